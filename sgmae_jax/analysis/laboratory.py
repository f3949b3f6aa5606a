"""Analyses A to E of one model on fixed images and masks, with bootstrap intervals.

What each of them is, and why, says docs/laboratory.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from sgmae_jax.analysis.bootstrap import mean_interval
from sgmae_jax.analysis.decoder_maps import by_position, reach
from sgmae_jax.analysis.invariance import geometry, invariance, masks_of, over_masks
from sgmae_jax.analysis.receptive import FIELDS, fields, profile, queried, radii
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.analysis.study import batch_size, padded
from sgmae_jax.masking import num_keep
from sgmae_jax.models import Autoencoder

# Functions of (model, look, params, images, ids) -> tree with images first; compiled
# once for all runs of one architecture.
Measure = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Look:
    """How to look.

    Attributes:
        ratio: share of the tokens that masks hide, in (0, 1).
        norm_pix: predictions are in units of each patch's own mean and deviation.
        seed: of the masks.
        masks: over which means of predictions are taken, >= 2.
        pairs: of masks that tokens are compared under, >= 1.
    """

    ratio: float
    norm_pix: bool
    seed: int = 0
    masks: int = 32
    pairs: int = 4


class Laboratory:
    """Measures parameters of one autoencoder on the same images and masks.

    Args:
        model: whose parameters will come.
        samples: images and ids.
        look: how.
        ratios: mask ratios that reach and receptive fields are measured at; those that
            do not hide and leave two tokens at least are passed over.
        queries: patches of an image whose receptive field is measured, at most.
    """

    def __init__(
        self,
        model: Autoencoder,
        samples: Samples,
        look: Look,
        *,
        ratios: tuple[float, ...],
        queries: int,
    ):
        self.model, self._samples, self.look = model, samples, look
        tokens = model.encoder.tokens
        self.ratios = tuple(r for r in ratios if 2 <= num_keep(tokens, r) <= tokens - 2)
        self._queries = queries
        self._batch = min(batch_size(model), len(samples.images))

    def glance(self, params: PyTree) -> dict[str, Any]:
        """Analysis A alone, for every checkpoint."""
        found = self._run(_glance, params)
        return {name: mean_interval(rows) for name, rows in found.items()}

    def measure(self, params: PyTree) -> dict[str, Any]:
        """Analyses A to E, as docs/laboratory.md lists them."""
        found = self._run(_glance, params) | self._run(_geometry, params)
        numbers = {name: mean_interval(rows) for name, rows in found.items()}
        if not self.model.decoder.depth:
            return numbers  # no attention to look at
        numbers["position"] = mean_interval(self._run(_position, params)["position"])
        numbers["reach"], numbers["radii"], numbers["profile"] = {}, {}, {}
        for ratio in self.ratios:
            rows = self._run(_reach, params, ratio=ratio)["reach"]
            numbers["reach"][str(ratio)] = mean_interval(rows)
            found = self._run(_fields, params, ratio=ratio, queries=self._queries)
            for name in ("radii", "profile"):
                numbers[name][str(ratio)] = {
                    kind: mean_interval(rows) for kind, rows in found[name].items()
                }
        return numbers

    def tokens(self, params: PyTree) -> Float[np.ndarray, "L M N D"]:
        """Patch tokens of all encoder layers, whole images."""
        return self._run(_tokens, params)["tokens"].swapaxes(0, 1)

    def _run(self, function: Measure, params: PyTree, **static: Any) -> Any:
        """Batches of one size; the last is padded with its last image."""
        params = jax.device_put(params, jax.devices()[0])
        images, ids, _ = self._samples
        rows = []
        for start in range(0, len(images), self._batch):
            part = slice(start, start + self._batch)
            given = [padded(x[part], self._batch) for x in (images, ids)]
            found = function(self.model, self.look, params, *given, **static)
            count = len(images[part])
            rows.append(jax.tree.map(lambda x, n=count: np.asarray(x[:n]), found))
        return jax.tree.map(lambda *x: np.concatenate(x), *rows)


_compiled = functools.partial(jax.jit, static_argnames=("model", "look"))


@_compiled
def _glance(model, look, params, images, ids):
    pixels = model.normalise(images)
    alike = invariance(
        model,
        params,
        pixels,
        ids,
        ratio=look.ratio,
        seed=look.seed,
        pairs=look.pairs,
    )
    found = _means(model, look, params, pixels, ids)
    return {
        **alike,
        "error": found["error"],
        "variance": found["variance"],
        "bias": found["bias"],
        "variance_share": found["variance"] / found["error"],
    }


@_compiled
def _geometry(model, look, params, images, ids):
    pixels = model.normalise(images)
    found = _means(model, look, params, pixels, ids)
    whole = model.encode(params, images, capture=("features",)).captured["features"]

    def by_layer(layers: Array) -> Array:
        one = functools.partial(geometry, patches=found["target"])
        return jax.lax.map(one, layers.astype(jnp.float32)).swapaxes(0, 1)

    return {
        "geometry_encoder": by_layer(whole[:, :, 1:]),
        "geometry_decoder": by_layer(found["tokens"]),
        "geometry_prediction": geometry(found["prediction"], found["target"]),
    }


def _means(model, look, params, pixels, ids):
    return over_masks(
        model,
        params,
        pixels,
        ids,
        ratio=look.ratio,
        seed=look.seed,
        norm_pix=look.norm_pix,
        masks=look.masks,
    )


@_compiled
def _position(model, look, params, images, ids):
    del ids
    pixels = model.normalise(images)
    found = by_position(model, params, pixels, ratio=look.ratio, seed=look.seed)
    return {"position": found}


@functools.partial(jax.jit, static_argnames=("model", "look", "ratio"))
def _reach(model, look, params, images, ids, *, ratio):
    pixels = model.normalise(images)
    return {"reach": reach(model, params, pixels, ids, ratio=ratio, seed=look.seed)}


@functools.partial(jax.jit, static_argnames=("model", "look", "ratio", "queries"))
def _fields(model, look, params, images, ids, *, ratio, queries):
    pixels = model.normalise(images)
    found = fields(
        model, params, pixels, ids, ratio=ratio, seed=look.seed, queries=queries
    )
    mask = masks_of(model, ids, 0, ratio=ratio, seed=look.seed)
    hidden, seen = queried(mask, queries)
    asked = {"model": hidden, "decoder": hidden, "encoder": seen}
    # What the place of the visible patches alone would give.
    visible = (1 - mask.hidden)[:, None]
    for name, queries_of in (("even, hidden", hidden), ("even, visible", seen)):
        shape = (*queries_of.shape, visible.shape[-1])
        found[name], asked[name] = jnp.broadcast_to(visible, shape), queries_of
    return {
        "radii": {name: radii(found[name], asked[name], model.grid) for name in found},
        "profile": {
            name: profile(found[name], asked[name], model.grid) for name in FIELDS
        },
    }


@_compiled
def _tokens(model, look, params, images, ids):
    del look, ids
    layers = model.encode(params, images, capture=("features",)).captured["features"]
    return {"tokens": layers[:, :, 1:].astype(jnp.float32).swapaxes(0, 1)}
