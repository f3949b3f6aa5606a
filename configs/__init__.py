"""Shipped configs; `--config NAME` finds them."""
