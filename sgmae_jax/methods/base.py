"""What a method is to the training loop: parameters, updates, and static phases."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, UInt8

Params = dict[str, PyTree]  # one named sub-tree a network: model, teacher, masker …
# id, epoch: i32[B], and what the data's domain has beside them: of images, for example,
# image u8[B,H,W,C], label i32[B], view f32[B,2,2], see data/rows.py
Batch = Mapping[str, Array]
Batches = Mapping[str, Batch]  # one batch a stream
Metrics = dict[str, Float[Array, ""]]
Marks = Mapping[str, int]  # what was decided during the run: name -> step
# (params, batches, root key, step, phase) -> (gradients of the owned sub-trees,
# metrics with at least "loss"); and by keyword `states`, where an update reads any
Gradient = Callable[..., tuple[Params, Metrics]]


class Update(NamedTuple):
    """Parameters that move together, and the gradient they follow.

    Attributes:
        owns: names of the sub-trees of params that this update moves.
        gradient: see `Gradient`; ordinary descent is `descend(owns, loss)`.
        optimizer: an optax transformation over the dict of owned sub-trees.
        every: this update acts on steps divisible by it.
        name: in front of its metrics, "name/loss"; empty for the one whose loss is
            the run's. Every method has exactly one of these.
        reads: names of the updates whose optimizer states the gradient is handed, by
            name, in a further argument `states`.
    """

    owns: tuple[str, ...]
    gradient: Gradient
    optimizer: optax.GradientTransformation
    every: int = 1
    name: str = ""
    reads: tuple[str, ...] = ()


class Stage(NamedTuple):
    """A boundary in training: at step `begin`, before that step, params change.

    Optimizer states (and with them every schedule) start anew at the boundary.

    Attributes:
        begin: first step of the stage, at least 1.
        enter: (params, key) -> params of the same structure; pure, so that a run
            resumed exactly at the boundary does the same again.
        keep_moments: Adam's moments, with their count, are the exception and stay.
    """

    begin: int
    enter: Callable[[Params, Key[Array, ""]], Params]
    keep_moments: bool = False


class Stream(NamedTuple):
    """A stream of batches: a share of the training split, by example id.

    Attributes:
        low: first share of the split's fixed permutation that belongs to it, in [0, 1).
        high: end of that share, in (0, 1].
        labelled: its labels are used, so the data set must have classes.
        every: a new batch comes on steps divisible by it, and stays until the next.
        pixels: its batches hold the classes of their pixels as well, "segments".
        pairs: its batches hold a second random crop of every image as well,
            "other_image" with its "other_view".
    """

    low: float = 0.0
    high: float = 1.0
    labelled: bool = False
    every: int = 1
    pixels: bool = False
    pairs: bool = False


class Monitor(NamedTuple):
    """A look at held-out images between steps, which may decide what comes next.

    Attributes:
        images: how many; always the same ones.
        due: step (host integer) -> whether to look before that step.
        measure: (params, batch, root key, step) -> metrics, for the log.
        decide: (step, metrics as floats, marks) -> marks. Pure; what it marks is
            saved with the run, and `phase` is told.
    """

    images: int
    due: Callable[[int], bool]
    measure: Callable[[Params, Batch, Key[Array, ""], Int[Array, ""]], Metrics]
    decide: Callable[[int, Mapping[str, float], Marks], Marks]


class Sweep(NamedTuple):
    """A pass over the whole, unvaried training images before certain steps.

    Attributes:
        due: (step, marks) -> whether to sweep before that step.
        absorb: (params, batch, step, phase) -> params; an example met twice must
            leave what it leaves when met once, as an interrupted sweep begins anew.
    """

    due: Callable[[int, Marks], bool]
    absorb: Callable[..., Params]


class Picture(NamedTuple):
    """What a method can show of a batch of B images.

    Attributes:
        hidden: 1 where a token was hidden.
        prediction: predicted patches of pixels, in the model's target space; None
            where it predicts something else.
    """

    hidden: Float[Array, "B N"]
    prediction: Float[Array, "B N P"] | None


class Run(NamedTuple):
    """What a method may need to know of the run it is built for.

    Attributes:
        steps_per_epoch: of the stream "train".
        total_steps: length of the run.
        examples: in the stream "train"; ids are below it.
        frozen: what the networks are like that the run took from files, by sub-tree;
            see methods/frozen.py.
        classes: of the data set; 0 where it has none.
        pixel_classes: of its pixels, likewise.
        facts: what the domain must know of the training data for ever, as JSON has it:
            columns, categories, means.
    """

    steps_per_epoch: int
    total_steps: int
    examples: int = 0
    frozen: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    classes: int = 0
    pixel_classes: int = 0
    facts: Mapping[str, Any] = MappingProxyType({})


def _none_follows(params: Params, step: Int[Array, ""]) -> Params:
    del params, step
    return {}


def _one_phase(step: int, marks: Marks) -> Hashable:
    del step, marks
    return ()


def _as_they_are(params, batches, key, step, phase):
    del key, step, phase
    return params, batches, {}


class Method(NamedTuple):
    """A system, as the training loop sees it.

    Attributes:
        init: key -> params.
        updates: applied in order within a step; each sees the parameters the ones
            before it left.
        features: name -> (params, images u8[B,H,W,C]) -> f32[B,D], what evaluation
            reads; the first is the one that is exported and scored by default.
        encoder: params -> the sub-tree that `export` writes.
        flops: phase -> FLOPs of one training step for one image, or None if unknown.
        picture: (params, batch, root key, step, phase) -> Picture, or None.
        norm_pix: predictions are in units of each patch's own mean and deviation.
        prepare: (params, batches, root key, step, phase) -> (params, batches,
            metrics), before the updates and without gradient: what is learned of a
            batch otherwise than by descent. It may add entries to the batches.
        post_update: (params, step) -> the networks that follow the trained ones, such
            as EMA teachers, by name; called after the updates.
        phase: (step, marks; host values) -> static facts of that step, hashable: the
            mask ratio's bucket, whether guidance is on. One compilation a distinct
            value.
        stages: boundaries, in order.
        monitor: see `Monitor`.
        sweep: see `Sweep`.
        given: () -> sub-trees of params that come from files (frozen teachers and
            scorers, an encoder to be fine-tuned); read once, when a new run begins, in
            place of those of `init`.
        logits: (params, images u8[B,H,W,C]) -> f32[B,classes], for a method that
            classifies; its accuracy is scored beside its features.
        segments: (params, images u8[B,H,W,C]) -> i32[B,H,W], the class of every pixel,
            for a method that tells them apart; scored likewise.
        answer: (params, batch) -> what the scorer of the data's domain holds against
            the truth, where that is neither logits nor segments: see that domain.
        alarms: metric -> what the console says of a window in which it was not 0.
        decoder: params -> the decoder that belongs to the encoder and predicts pixels,
            which `export` writes too; None where there is none.
    """

    init: Callable[[Key[Array, ""]], Params]
    updates: tuple[Update, ...]
    features: Mapping[str, Callable[[Params, UInt8[Array, "B H W C"]], Array]]
    encoder: Callable[[Params], PyTree]
    flops: Callable[[Hashable], float | None]
    picture: Callable[..., Picture] | None = None
    norm_pix: bool = False
    prepare: Callable[..., tuple[Params, Batches, Metrics]] = _as_they_are
    post_update: Callable[[Params, Int[Array, ""]], Params] = _none_follows
    phase: Callable[[int, Marks], Hashable] = _one_phase
    stages: tuple[Stage, ...] = ()
    monitor: Monitor | None = None
    sweep: Sweep | None = None
    given: Callable[[], Params] = dict
    logits: Callable[[Params, UInt8[Array, "B H W C"]], Array] | None = None
    segments: Callable[[Params, UInt8[Array, "B H W C"]], Array] | None = None
    answer: Callable[[Params, Batch], PyTree] | None = None
    alarms: Mapping[str, str] = MappingProxyType({})
    decoder: Callable[[Params], PyTree] | None = None


def descend(
    owns: tuple[str, ...], loss: Callable[..., tuple[Any, Metrics]]
) -> Gradient:
    """Ordinary descent: the gradient of `loss` by the owned sub-trees alone.

    Args:
        owns: names of the sub-trees that move; all others are constants.
        loss: (params, batches, key, step, phase) -> (scalar, metrics).

    Returns:
        A `Gradient`; "loss" is added to the metrics.
    """

    def gradient(params, batches, key, step, phase):
        fixed = {name: params[name] for name in params if name not in owns}

        def objective(own):
            value, metrics = loss({**fixed, **own}, batches, key, step, phase)
            return value, {"loss": value, **metrics}

        own = {name: params[name] for name in owns}
        return jax.grad(objective, has_aux=True)(own)

    return gradient
