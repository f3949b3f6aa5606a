"""The authors' three networks for MLO-MAE in ours, and their iterations."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sgmae_jax.bilevel import (
    Identity,
    Level,
    OneStep,
    hypergradient,
    implicit_vjp,
    mixed_difference,
    optimizer_step,
    unroll,
)
from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.three_levels import ThreeLevels
from sgmae_jax.models.head import ClassificationHead
from sgmae_jax.models.patch_maskers import FlatMasker
from tests.golden.authors import load
from tests.golden.fixtures import Fixture

MASKER = {
    "first_hidden_layer.fc.weight": ("hidden", "kernel"),
    "first_hidden_layer.fc.bias": ("hidden", "bias"),
    "output_layer.weight": ("logits", "kernel"),
    "output_layer.bias": ("logits", "bias"),
}
HEAD = {
    "fc_norm.weight": ("norm", "scale"),
    "fc_norm.bias": ("norm", "bias"),
    "head.weight": ("linear", "kernel"),
    "head.bias": ("linear", "bias"),
}
# The direct path and that through the head.
BOTH = (1.0, 1.0)


def from_names(names, theirs):
    """Head or masking network as our tree."""
    tree: dict = {}
    for name, (layer, leaf) in names.items():
        tree.setdefault(layer, {})[leaf] = theirs[name].T
    return tree


def to_names(names, tree, like):
    """Our tree under the names in `like`."""
    return {n: np.asarray(tree[names[n][0]][names[n][1]]).T for n in like}


class Point(NamedTuple):
    """Parameters of the autoencoder, of the head and of the masking network."""

    theta: Any
    head: Any
    masker: Any


class Networks:
    """The authors' three, and what is computed with them."""

    def __init__(self, path, dtype):
        self.fixture = fixture = Fixture(path)
        self.meta, theirs = fixture.meta, fixture.under("theta/")
        trained = fixture.under("grad_pretrain/theta/")
        images = fixture["in/images_pretrain"][0]
        sizes = self.meta["heads"], self.meta["dheads"]
        model, tree = load(theirs, trained, images, *sizes)
        model = dataclasses.replace(
            model,
            encoder=model.encoder.clone(dtype=dtype),
            decoder=model.decoder.clone(dtype=dtype),
        )
        self.levels = ThreeLevels(
            model=model,
            masker=FlatMasker(self.meta["mask_hidden"]),
            head=ClassificationHead(self.meta["classes"]),
            pool="cls",
            norm_pix=self.meta["norm_pix_loss"],
            weight_norm="count",
            token_gradient=True,
        )
        self.detached = dataclasses.replace(self.levels, token_gradient=False)
        self.dropping = dataclasses.replace(
            self.levels, head=ClassificationHead(self.meta["classes"], dropout=0.1)
        )
        head, masker = fixture.under("w/"), fixture.under("phi/")
        start = Point(tree, from_names(HEAD, head), from_names(MASKER, masker))
        self.start = jax.tree.map(lambda a: jnp.asarray(a, dtype), start)
        self.dtype = dtype

    def batch(self, of, number):
        """(images, labels) of "pretrain", "finetune" or "masking"."""
        images = self.fixture[f"in/images_{of}"][number].transpose(0, 2, 3, 1)
        labels = self.fixture[f"in/labels_{of}"][number]
        return jnp.asarray(images, self.dtype), jnp.asarray(labels, jnp.int32)

    def select(self, point, images):
        logits = self.levels.logits(point.masker, point.theta, images)
        return select(logits, num_keep(logits.shape[1], self.meta["mask_ratio"]))

    def optimizer(self, tag, rate):
        if tag.startswith("sgd"):
            return optax.sgd(rate)
        adamw = self.meta["adamw"]
        b1, b2 = adamw["betas"]
        # The root of an exact zero has no derivative; of a key bias there is one.
        tiny = 1e-60 if self.dtype == "float64" else 0.0
        return optax.adamw(
            rate, b1, b2, adamw["eps"], tiny, weight_decay=adamw["weight_decay"]
        )

    def rates(self, tag):
        """Of autoencoder, head and masking network."""
        if tag.startswith("adamw"):
            return self.meta["lr_adamw"]
        if tag == "sgd_small_lr":
            return [1e-3] * 3
        lower, head, masker = self.meta["lr_sgd"]
        share = 5 if tag.endswith("unroll2") else 1
        return [lower / share, head / share, masker]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def fill_in(self, kind, rate, state, point, batch):
        """One step of the autoencoder."""
        images, _ = batch
        mask = self.select(point, images)
        gradient = jax.grad(self.levels.reconstruction)(
            point.theta, point.masker, images, mask
        )
        change, state = self.optimizer(kind, rate).update(gradient, state, point.theta)
        return point._replace(theta=optax.apply_updates(point.theta, change)), state

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def classify(self, kind, rate, state, point, batch):
        """One step of the head."""
        found = self.levels.features(point.theta, batch[0])
        gradient = jax.grad(self.levels.head_loss)(point.head, found, batch[1])
        change, state = self.optimizer(kind, rate).update(gradient, state, point.head)
        return point._replace(head=optax.apply_updates(point.head, change)), state

    @functools.partial(jax.jit, static_argnums=0)
    def judge(self, point, batch):
        """The masking loss and its gradient by the head."""
        found = self.levels.features(point.theta, batch[0])
        return jax.value_and_grad(self.levels.head_loss)(point.head, found, batch[1])

    def hyper(self, levels, product, point, batches, weights=BOTH, **drops):
        """See below; what is compiled is told everything, or it is compiled again."""
        drops = {"key": None, "fixed": False} | drops
        return self._hyper(levels, product, point, batches, weights, **drops)

    @functools.partial(jax.jit, static_argnums=(0, 1, 2))
    def _hyper(self, levels, product, point, batches, weights, key, fixed):
        """The hypergradient with identities for the inverse Hessians.

        With a key, the head drops features: others in each evaluation of its losses,
        unless `fixed`.
        """
        (images, _), teach, judge = batches
        mask, draws = self.select(point, images), itertools.count()

        def head_loss(head, found, labels):
            draw = jnp.where(fixed, 0, next(draws))
            own = None if key is None else jax.random.fold_in(key, draw)
            return levels.head_loss(head, found, labels, own)

        middle = Level(
            lambda head, found: head_loss(head, found, teach[1]),
            Identity(),
            product=product,
        )
        lower = Level(
            lambda theta, masker: levels.reconstruction(theta, masker, images, mask),
            Identity(),
            product=product,
        )
        return hypergradient(
            lambda found, head, masker: head_loss(head, found, judge[1]),
            middle,
            lower,
            *point,
            views=(
                lambda theta: levels.features(theta, teach[0]),
                lambda theta: levels.features(theta, judge[0]),
            ),
            weights=weights,
        ).value

    def library(self, point, batches):
        """As the library: a difference for each path, and their sum."""
        paths = [
            self.hyper(self.levels, mixed_difference, point, batches, path)
            for path in ((1.0, 0.0), (0.0, 1.0))
        ]
        return optax.tree.add(*paths)

    def losses(self, point, batches):
        """Of the autoencoder, of the head, and the masking loss."""
        levels, ((images, _), teach, judge) = self.levels, batches
        mask = self.select(point, images)

        def reconstruct(theta, masker):
            return levels.reconstruction(theta, masker, images, mask)

        def head_loss(head, theta):
            return levels.head_loss(head, levels.features(theta, teach[0]), teach[1])

        def outer(theta, head):
            return levels.head_loss(head, levels.features(theta, judge[0]), judge[1])

        return reconstruct, head_loss, outer

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def unrolled(self, kind, rates, states, point, batches):
        """Through one step of autoencoder and head, in reverse mode."""
        reconstruct, head_loss, outer = self.losses(point, batches)
        lower, middle = (self.optimizer(kind, rate) for rate in rates)

        def total(masker):
            start = lower, point.theta, masker
            theta = unroll(reconstruct, *start, steps=1, state=states[0])
            start = middle, point.head, theta
            return outer(theta, unroll(head_loss, *start, steps=1, state=states[1]))

        return jax.grad(total)(point.masker)

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def one_step(self, kind, rates, states, before, after, batches):
        """The same by `OneStep` on both levels, each at the point of its own step."""
        reconstruct, head_loss, outer = self.losses(before, batches)

        def pull(level, loss, inner, hyper, cotangent):
            optimizer = self.optimizer(kind, rates[level])
            gradient = jax.grad(loss)(inner, hyper)
            step = optimizer_step(optimizer, gradient, states[level], inner)
            return implicit_vjp(Level(loss, OneStep(step)), inner, hyper, cotangent)[0]

        direct, of_head = jax.grad(outer, argnums=(0, 1))(after.theta, after.head)
        through = pull(1, head_loss, before.head, after.theta, of_head)
        wanted = optax.tree.add(direct, through)
        return pull(0, reconstruct, before.theta, before.masker, wanted)


class Iteration(NamedTuple):
    """One of the authors' iterations: their order is P (P) F M."""

    states: tuple  # of the autoencoder's and of the head's optimizer, before
    before: Point
    after: Point  # autoencoder and head have stepped
    last: Point  # so has the masking network
    batches: tuple
    library: Any  # our hypergradient by their differences


@functools.cache
def networks(path, dtype="float64"):
    return Networks(path, dtype)


@functools.cache
def run(path, tag):
    """The iterations of a tag."""
    nets = networks(path)
    rates, kind = nets.rates(tag), tag.split("_")[0]
    steps = 2 if tag.endswith("unroll2") else 1  # of the autoencoder
    optimizers = [nets.optimizer(tag, rate) for rate in rates]
    states = [o.init(p) for o, p in zip(optimizers, nets.start, strict=True)]
    point, found = nets.start, []
    for number in range(2):
        if f"{tag}/iter{number}/masking_loss" not in nets.fixture.arrays:
            break
        before, kept = point, tuple(states[:2])
        for step in range(steps):
            batch = nets.batch("pretrain", number * steps + step)
            point, states[0] = nets.fill_in(kind, rates[0], states[0], point, batch)
        teach = nets.batch("finetune", number)
        point, states[1] = nets.classify(kind, rates[1], states[1], point, teach)
        batches = batch, teach, nets.batch("masking", number)
        gradient = nets.library(point, batches)
        change, states[2] = optimizers[2].update(gradient, states[2], point.masker)
        last = point._replace(masker=optax.apply_updates(point.masker, change))
        found.append(Iteration(kept, before, point, last, batches, gradient))
        point = last
    return found
