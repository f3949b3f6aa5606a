"""Masked autoencoders with guided masks, in JAX and Flax."""

__version__ = "0.1.0"
