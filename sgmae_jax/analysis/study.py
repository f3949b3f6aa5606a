"""Everything that is measured of one set of parameters, on a fixed set of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

from sgmae_jax.analysis import metrics
from sgmae_jax.analysis.clusters import (
    adjusted_rand_index,
    intersection_over_union,
    recall,
)
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.masking import (
    Context,
    Guidance,
    Mask,
    attention_relations,
    cosine_relations,
    example_keys,
    exploitation_rates,
    guide,
    hint_count,
    informed_mask,
    num_keep,
    random_mask,
    select,
)
from sgmae_jax.masking.guided import Relation, Side
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.models import Autoencoder
from sgmae_jax.models.layers import layer_index

Rows = Array | np.ndarray
PARTS = ("encoder", "decoder")
MASKS = ("random", "guided", "hinted")
_CAPTURE = ("features", "attention")
_MOST = 64
# Attention maps of a batch, all layers of both parts, stay below this many bytes.
_BUDGET = 2**30


@dataclass(frozen=True)
class Options:
    """How to look.

    Attributes:
        ratio: share of the tokens that masks hide, in (0, 1).
        norm_pix: predictions are in units of each patch's own mean and deviation.
        seed: of the masks.
        part: "encoder" or "decoder", whose tokens are divided in two.
        layer: of that part, from 1, or from the end with negative numbers.
        relation: see `masking.guide`.
        side: see `masking.guide`.
        hint_ratio: share of the hidden tokens that are swapped, for the mask "hinted".
        temperature: of `metrics.relation_divergence`.
    """

    ratio: float
    norm_pix: bool
    seed: int = 0
    part: str = "encoder"
    layer: int = -2
    relation: Relation = "cosine"
    side: Side = "cls_attention"
    hint_ratio: float = 0.0625
    temperature: float = 1.0


class Shown(NamedTuple):
    """What pictures are made of, for P images.

    Attributes:
        relation: cosine of every token to the marked one.
        object: the bi-partition; all False where there is none.
        relevance: of the guidance.
        guided: 1 where the mask without hints hides.
        hinted: 1 where the mask with hints hides.
        prediction: under the mask with hints, in the model's target space.
    """

    relation: Float[Rows, "P N"]
    object: Bool[Rows, "P N"]
    relevance: Float[Rows, "P N"]
    guided: Float[Rows, "P N"]
    hinted: Float[Rows, "P N"]
    prediction: Float[Rows, "P N V"]


class Study:
    """Measures parameters of one autoencoder on the same images and random masks.

    Everything is computed by one program, compiled once, on one device.

    Args:
        model: whose parameters will come.
        samples: images, ids and perhaps objects.
        options: how to look.
        shown: number of images that pictures are wanted of.

    Attributes:
        marked: the token of each image that relation maps refer to.
        compilations: programs compiled so far.

    Raises:
        ValueError: the model has no such layer.
    """

    def __init__(
        self, model: Autoencoder, samples: Samples, options: Options, *, shown: int = 0
    ):
        part = model.encoder if options.part == "encoder" else model.decoder
        layer_index(options.layer, part.depth)
        self._samples, self._shown = samples, shown
        self.options = options
        self._batch = min(batch_size(model), len(samples.images))
        self.marked = marked_tokens(samples, model.grid)
        self.compilations = 0

        def measure(params, final, images, ids, marked):
            self.compilations += 1  # Python runs while tracing, and only then
            return _measure(model, options, params, final, images, ids, marked)

        self._measure = jax.jit(measure)

    def measure(self, params: PyTree, final: PyTree) -> tuple[dict[str, Any], Shown]:
        """All metrics of a set of parameters, means over the images.

        Args:
            params: of the autoencoder.
            final: those of the last checkpoint, for the divergence of relations.

        Returns:
            Metrics as docs/analysis.md lists them (lists and floats), and what pictures
            are made of.
        """
        device = jax.devices()[0]
        params, final = jax.device_put((params, final), device)
        rows = []
        images, ids, _ = self._samples
        for start in range(0, len(images), self._batch):
            part = slice(start, start + self._batch)
            given = [padded(x[part], self._batch) for x in (images, ids, self.marked)]
            found = jax.device_get(self._measure(params, final, *given))
            count = len(images[part])
            rows.append(jax.tree.map(lambda x, count=count: x[:count], found))
        numbers, shown = jax.tree.map(lambda *x: np.concatenate(x), *rows)
        shown = Shown(*(x[: self._shown] for x in shown))
        return _summary(numbers, self._samples.objects), shown


def marked_tokens(samples: Samples, grid: tuple[int, int]) -> Int[np.ndarray, " M"]:
    """A token of each image: the one nearest to the middle of the object, if known.

    Else the middle of the image (below and right of it where the grid is even).
    """
    height, width = grid
    middle = height // 2 * width + width // 2
    marked = np.full(len(samples.images), middle, np.int32)
    for row, inside in enumerate(() if samples.objects is None else samples.objects):
        tokens = np.flatnonzero(inside)
        if len(tokens):
            y, x = np.divmod(tokens, width)
            marked[row] = tokens[np.hypot(y - y.mean(), x - x.mean()).argmin()]
    return marked


def _measure(
    model: Autoencoder,
    options: Options,
    params: PyTree,
    final: PyTree,
    images: UInt8[Array, "B H W C"],
    ids: Int[Array, " B"],
    marked: Int[Array, " B"],
) -> tuple[dict[str, Any], Shown]:
    """Metrics by image (axis 0), and what is shown."""
    pixels = model.normalise(images)
    whole = _whole(model, params, pixels, _CAPTURE)
    last = _whole(model, final, pixels, ("features",))
    chosen = whole[options.part]
    depth = chosen["features"].shape[0]
    index = layer_index(options.layer, depth)
    features = chosen["features"][index][:, 1:]
    attention = chosen["attention"][index]
    relation, side = options.relation, options.side
    guidance = guide(features, attention, relation=relation, side=side, grid=model.grid)
    relations = cosine_relations(features)
    graph = relations
    if options.relation == "attention":
        graph = attention_relations(attention)
    numbers: dict[str, Any] = {
        part: _by_layer(model, options, whole[part], last[part], guidance.object)
        for part in PARTS
    }
    numbers["partition"] = {
        "share": guidance.object.mean(-1),
        "eigenvalue": guidance.cut.eigenvalue,
        "gap": guidance.cut.gap,
        "residual": guidance.cut.residual,
        "degenerate": guidance.degenerate,
        "spectrum": metrics.spectrum(graph),
        "object": guidance.object,
    }
    masks = _masks(model, options, guidance, ids)
    target = pixel_targets(pixels, model.patch_size, norm_pix=options.norm_pix)
    embedded = model.embed(params, pixels)

    def masked(mask):
        found = model.predict(params, embedded, mask, capture=_CAPTURE)
        loss = jax.vmap(reconstruction_loss)(found.tokens, target, mask.hidden)
        of_decoder = _of_mask_tokens(found.captured["decoder"], mask.hidden)
        return loss, of_decoder, found.tokens

    # One after the other: less memory, and a third of the program to compile.
    stacked = jax.tree.map(lambda *masks: jnp.stack(masks), *masks.values())
    losses, of_decoder, predictions = jax.lax.map(masked, stacked)
    numbers["decoder"] |= {name: x[0] for name, x in of_decoder.items()}
    numbers["masks"] = {
        name: {"loss": losses[place], "hidden": mask.hidden}
        for place, (name, mask) in enumerate(masks.items())
    }
    shown = Shown(
        jnp.take_along_axis(relations, marked[:, None, None], axis=1)[:, 0],
        guidance.object,
        guidance.relevance,
        masks["guided"].hidden,
        masks["hinted"].hidden,
        predictions[-1],
    )
    return numbers, shown


def _whole(model: Autoencoder, params: PyTree, pixels: Array, capture: Any) -> Any:
    """Features and attention of every layer, decoder too, with nothing hidden."""
    tokens = model.encoder.tokens
    nothing_hidden = select(jnp.zeros((len(pixels), tokens)), tokens)
    embedded = model.embed(params, pixels)
    return model.predict(params, embedded, nothing_hidden, capture=capture).captured


def _by_layer(
    model: Autoencoder,
    options: Options,
    captured: Any,
    last: Any,
    object: Bool[Array, "B N"],
) -> dict[str, Any]:
    """Metrics of features and attention, [B, L, ...]; one layer after the other."""

    def layer(given):
        features, attention, final = given
        features, final = features[:, 1:], final[:, 1:]
        cosine = cosine_relations(features)
        attending = attention_relations(attention)
        cosine_intra, cosine_inter = metrics.intra_inter_weights(cosine, object)
        attention_intra, attention_inter = metrics.intra_inter_weights(
            attending, object
        )
        distance = metrics.attention_distance(attention, model.grid)
        return {
            "feature_variance": metrics.feature_variance(features),
            "similarity_variance": metrics.similarity_variance(cosine),
            "cosine_intra": cosine_intra,
            "cosine_inter": cosine_inter,
            "attention_intra": attention_intra,
            "attention_inter": attention_inter,
            "relation_divergence": metrics.relation_divergence(
                cosine_relations(final), cosine, options.temperature
            ),
            "attention_distance": distance.mean(-1),
            "attention_nmi": metrics.attention_nmi(attention).mean(-1),
            "relative_log_amplitude": metrics.relative_log_amplitude(
                features, model.grid
            ),
        }

    given = captured["features"], captured["attention"], last["features"]
    return _images_first(jax.lax.map(layer, given))


def _of_mask_tokens(captured: Any, hidden: Float[Array, "B N"]) -> dict[str, Any]:
    """What the decoder does with mask tokens, [B, L, ...]."""
    rates = exploitation_rates(captured["attention"].mean(2), hidden)
    variance = jax.lax.map(
        lambda x: metrics.mask_token_variance(x[:, 1:], hidden), captured["features"]
    )
    return _images_first(
        {
            "mask_token_variance": variance,
            "exploitation_layer": rates.layer,
            "exploitation_cumulated": rates.cumulated,
            "exploitation_per_token": rates.per_token,
        }
    )


def _images_first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x.swapaxes(0, 1), tree)


def _masks(
    model: Autoencoder, options: Options, guidance: Guidance, ids: Int[Array, " B"]
) -> dict[str, Mask]:
    """A random mask, the guided one, and the guided one with hints, as in `MASKS`."""

    def keys(purpose: str) -> Key[Array, " B"]:
        key = jax.random.key(options.seed)
        return example_keys(key, jnp.zeros_like(ids), ids, f"analysis {purpose}")

    tokens = model.encoder.tokens
    hidden = tokens - num_keep(tokens, options.ratio)
    hints = hint_count(hidden, options.hint_ratio, options.hint_ratio, 0.0)

    def informed(hints: Any) -> Mask:
        return informed_mask(
            keys("guided"), guidance.relevance, ratio=options.ratio, hints=hints
        )

    context = Context(grid=model.grid)
    return {
        "random": random_mask(keys("random"), context, ratio=options.ratio),
        "guided": informed(0),
        "hinted": informed(hints),
    }


def _summary(
    numbers: dict[str, Any], objects: Bool[np.ndarray, "M N"] | None
) -> dict[str, Any]:
    """Means over images, and agreement with the true object where that is known."""
    sound = ~numbers["partition"]["degenerate"]
    found: dict[str, Any] = {
        part: {
            # Without a bi-partition there is nothing inside or across it.
            name: _mean(rows[sound] if name.endswith(("_intra", "_inter")) else rows)
            for name, rows in numbers[part].items()
        }
        for part in PARTS
    }
    partition = dict(numbers["partition"])
    sides = partition.pop("object")
    found["partition"] = {name: _mean(rows) for name, rows in partition.items()}
    found["masks"] = {
        name: {"loss": _mean(numbers["masks"][name]["loss"])} for name in MASKS
    }
    if objects is not None:
        right = np.stack(
            [list(map(intersection_over_union, x, objects)) for x in (sides, ~sides)]
        )
        found["partition"]["object_iou"] = _mean(right[0])
        found["partition"]["right_side"] = _mean(right[0] > right[1])
        found["partition"]["ari"] = _mean(
            list(map(adjusted_rand_index, sides, objects))
        )
        for name in MASKS:
            hidden = numbers["masks"][name]["hidden"] > 0
            found["masks"][name] |= {
                "object_iou": _mean(
                    list(map(intersection_over_union, hidden, objects))
                ),
                "object_recall": _mean(list(map(recall, hidden, objects))),
            }
    return found


def _mean(rows: Any) -> Any:
    """Mean over images as (lists of) floats; None where it is not finite."""
    rows = np.asarray(rows, np.float64)
    total = rows.sum(0) / len(rows) if len(rows) else np.full(rows.shape[1:], np.nan)
    return _plain(total.tolist())


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return float(value) if np.isfinite(value) else None


def padded(rows: np.ndarray, count: int) -> np.ndarray:
    """The same shape for every batch: the last row is repeated."""
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), 0)])


def batch_size(model: Autoencoder) -> int:
    """Images at once, such that their attention maps fit the budget."""
    parts = (model.encoder, model.decoder)
    maps = sum(part.depth * part.heads for part in parts)
    each = 4 * maps * (1 + model.encoder.tokens) ** 2
    return max(1, min(_MOST, _BUDGET // each))
