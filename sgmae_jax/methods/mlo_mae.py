"""MLO-MAE: masks learned from the downstream task, by implicit differentiation.

Three levels. The autoencoder learns to fill what the masking network hides; a head
learns to classify what the encoder makes of whole images; the masking network learns
to make that head right on images which neither has trained on. How its loss depends on
its weights, through both others' solutions, the implicit function theorem says.

Reference: Guo et al., Downstream Task Guided Masking Learning in Masked Autoencoders
Using Multi-Level Optimization (TMLR 2025); Alexiland/MLO-MAE.
"""

from __future__ import annotations

import itertools
from zlib import crc32

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from sgmae_jax import rules
from sgmae_jax.bilevel import (
    Hypergradient,
    Level,
    OneStep,
    hypergradient,
    mixed_difference,
    mixed_product,
    optimizer_step,
)
from sgmae_jax.config import ConfigError, near
from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.base import Method, Picture, Run, Stream, Update, descend
from sgmae_jax.methods.image import (
    Masking,
    adamw_of,
    check_own_masks,
    cosine_adamw,
    forward_macs,
    make_autoencoder,
    pooled_features,
    training_flops,
    whole_macs,
)
from sgmae_jax.methods.patch_weights import make_masker, mask_metrics, masker_macs
from sgmae_jax.methods.solving import (
    cosine,
    damping_of,
    hypergradient_metrics,
    make_solvers,
    solver_forwards,
    zero_unless,
)
from sgmae_jax.methods.three_levels import ThreeLevels
from sgmae_jax.models.head import ClassificationHead
from sgmae_jax.rules import Field, boolean, choice, integer, number

FIELDS = {
    "name": Field("mlo_mae", rules.name, "this method"),
    "norm_pix": Field(
        True, boolean, "predict each patch's pixels by its own mean and deviation"
    ),
    "masker": Field("shared", choice("shared", "flat"), "flat: the authors'"),
    "masker_hidden": Field(512, integer(1), "units of its hidden layer"),
    "masker_rate": Field(1e-3, number(0, low_open=True), "its learning rate at start"),
    "pool": Field("cls", choice("cls", "mean"), "what the head reads"),
    "head_step": Field(
        "solve", choice("solve", "adamw"), "how it learns from a batch's features"
    ),
    "head_rate": Field(1e-3, number(0, low_open=True), "at start, with adamw"),
    "head_dropout": Field(0.0, number(0, 1, high_open=True), "released: 0.1"),
    "every": Field(16, integer(1), "steps between those of head and masking network"),
    "validation": Field(
        0.2,
        number(0, 1, low_open=True, high_open=True),
        "share of the training images whose labels teach the masking network",
    ),
    "pretrain_on_all": Field(False, boolean, "the autoencoder sees these too"),
    "weight_norm": Field("sum", choice("sum", "count"), "of the weighted error"),
    "token_gradient": Field(
        False, boolean, "the autoencoder may lower its loss by the masks' weights"
    ),
    "paths": Field(
        "both",
        choice("both", "head", "direct", "random", "none"),
        "of the hypergradient; random: a direction of noise; none: a frozen network",
    ),
    "solver": Field(
        "cg",
        choice("identity", "one_step", "neumann", "cg", "tracked", "nystrom"),
        "of the autoencoder's linear system",
    ),
    "curvature": Field("gauss_newton", choice("gauss_newton", "hessian"), "in it"),
    "iterations": Field(2, integer(1), "products in it"),
    "rate": Field(1.0, number(0, low_open=True), "of identity, neumann and tracked"),
    "damping": Field(0.01, number(0), "added to the curvature"),
    "precondition": Field("none", choice("none", "adam"), "by AdamW's second moments"),
    "head_solver": Field("cg", choice("identity", "cg"), "of the head's linear system"),
    "head_iterations": Field(10, integer(1), "products in it; steps of solve"),
    "head_damping": Field(0.1, number(0, low_open=True), "in the system"),
    "head_hold": Field(1.0, number(0), "how near solve stays to where it starts"),
    "product": Field("exact", choice("exact", "difference"), "difference: as released"),
    "upper_schedule": Field(
        "own", choice("own", "released"), "released: the cosines end half way"
    ),
}
PRESETS: dict[str, dict[str, object]] = {
    "recommended": {},
    # But for the dropout, which makes their difference quotients mostly noise.
    "released": {
        "masker": "flat",
        "head_step": "adamw",
        "every": 2,
        "pretrain_on_all": True,
        "weight_norm": "count",
        "token_gradient": True,
        "solver": "identity",
        "head_solver": "identity",
        "upper_schedule": "released",
    },
}
# A residual this many times the right-hand side is taken for divergence.
_DIVERGED = 100.0
# Of the direct path and of the path through the head.
_WEIGHTS = {"both": (1.0, 1.0), "direct": (1.0, 0.0), "head": (0.0, 1.0)}
_ALARMS = {
    "masker/diverged": "the hypergradient's solver diverged, and the masking network "
    "was not moved; raise method.damping or lower method.rate",
    "equal_logits": "the masking network tells the patches of an image no longer "
    "apart, masks go by their order; lower method.masker_rate",
}


def set_preset(config, name: str) -> None:
    """Sets this method's fields as a preset has them.

    Args:
        config: to change.
        name: "recommended", the defaults; or "released".

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"{name!r} behind the colon: must be one of {', '.join(PRESETS)}"
            f"{near(name, PRESETS)}"
        )
    config.method.update(PRESETS[name])


def check(config) -> None:
    """What the fields of this method must agree on with others.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    check_own_masks(config)
    part = config.method
    reverse = part.product == "difference" and part.solver in ("identity", "one_step")
    if config.model.attention == "cudnn" and not reverse:
        raise ConfigError(
            "config.model.attention = 'cudnn': must be 'matmul' or 'xla' for this "
            "method, whose hypergradient takes forward-mode derivatives (or set "
            "method.product = 'difference' with method.solver = 'identity')"
        )
    if part.solver == "nystrom" and (part.precondition != "none" or not part.damping):
        raise ConfigError(
            "config.method.solver = 'nystrom': must go with method.precondition = "
            "'none' and a method.damping above 0"
        )


def streams(config) -> dict[str, Stream]:
    """Disjoint shares, by example id: to train on, and to judge the masks by."""
    part = config.method
    last = 1 - part.validation
    if part.paths in ("none", "random"):
        return {"train": Stream(0.0, 1.0 if part.pretrain_on_all else last)}
    shares = {
        "train": Stream(0.0, last, labelled=True),
        "validation": Stream(last, 1.0, labelled=True, every=part.every),
    }
    if part.pretrain_on_all:
        # Deviation: the authors take the images in order of file.
        shares["head"] = Stream(0.0, last, labelled=True, every=part.every)
        shares["train"] = Stream()
    return shares


def build(config, run: Run) -> Method:
    """The method as a config describes it, for a run of known length."""
    model = make_autoencoder(config)
    ratio_at = Masking(config, run).ratio_at
    part, encoder = config.method, model.encoder
    # Where the masking network learns nothing from labels, no head is trained.
    judged = part.paths not in ("random", "none")
    levels = ThreeLevels(
        model=model,
        masker=make_masker(part),
        head=ClassificationHead(max(run.classes, 1), dropout=part.head_dropout),
        pool=part.pool,
        norm_pix=part.norm_pix,
        weight_norm=part.weight_norm,
        token_gradient=part.token_gradient,
    )
    solver, head_solver = make_solvers(part)
    optimizer = adamw_of(config, run)
    tracked = part.solver == "tracked"

    def init(key):
        params = levels.init(key)
        return params | {"adjoint": solver.init(params["model"])} if tracked else params

    def choose(params, batch, ratio):
        """The images, the logits of their patches, and the masks these make."""
        images = model.normalise(batch["image"])
        logits = levels.logits(params["masker"], params["model"], images)
        logits = jax.lax.stop_gradient(logits)
        return images, logits, select(logits, num_keep(encoder.tokens, ratio))

    def model_loss(params, batches, key, step, ratio):
        """Stage I."""
        del key, step
        images, logits, mask = choose(params, batches["train"], ratio)
        loss = levels.reconstruction(params["model"], params["masker"], images, mask)
        return loss, mask_metrics(logits, mask)

    def head_batch(batches):
        return batches.get("head", batches["train"])

    def head_gradient(params, batches, key, step, ratio):
        """Stage II, on the features of whole images: the encoder stands still."""
        del ratio
        batch, weights = head_batch(batches), params["head"]
        found = levels.features(params["model"], batch["image"])
        own = _at(key, "dropout", step)
        loss, gradient = jax.value_and_grad(levels.head_loss)(
            weights, found, batch["label"], own
        )
        if part.head_step == "solve":
            solved = levels.solve_head(
                weights,
                found,
                batch["label"],
                hold=part.head_hold,
                steps=part.head_iterations,
            )
            gradient = optax.tree.sub(weights, solved)
        return {"head": gradient}, {"loss": loss}

    def differentiate(params, batches, key, step, ratio, states) -> Hypergradient:
        """Stage III: the validation loss by the masking network's weights."""
        theta = params["model"]
        # Chosen once: sorting anew within a solve would differentiate a jump.
        images, _, mask = choose(params, batches["train"], ratio)
        teach, judge = head_batch(batches), batches["validation"]
        draws = itertools.count(1)

        def drop():
            """Another key for each evaluation of the head's losses, as released."""
            return jax.random.fold_in(_at(key, "dropout", step), next(draws))

        def head_loss(weights, found):
            return levels.head_loss(weights, found, teach["label"], drop())

        def outer(found, weights, masking):
            del masking
            return levels.head_loss(weights, found, judge["label"], drop())

        def reconstruct(theta, masking):
            return levels.reconstruction(theta, masking, images, mask)

        lower = solver
        if part.solver == "one_step":
            gradient = {"model": jax.grad(reconstruct)(theta, params["masker"])}
            pull = optimizer_step(optimizer, gradient, states[""], {"model": theta})
            lower = OneStep(lambda wanted: pull({"model": wanted})["model"])
        damping, precondition = damping_of(part, config.optim, states[""])
        product = mixed_product if part.product == "exact" else mixed_difference
        return hypergradient(
            outer,
            Level(
                head_loss,
                head_solver,
                damping=part.head_damping,
                curvature=levels.head_curvature(teach["label"]),
                product=product,
            ),
            Level(
                reconstruct,
                lower,
                damping=damping,
                precondition=precondition,
                curvature=(
                    levels.reconstruction_curvature(images, mask)
                    if part.curvature == "gauss_newton"
                    else None
                ),
                product=product,
            ),
            theta,
            params["head"],
            params["masker"],
            views=(
                lambda theta: levels.features(theta, teach["image"]),
                lambda theta: levels.features(theta, judge["image"]),
            ),
            weights=_WEIGHTS[part.paths],
            states=((), params.get("adjoint", ())),
        )

    def masker_gradient(params, batches, key, step, ratio, states):
        found = differentiate(params, batches, key, step, ratio, states)
        good = jnp.isfinite(optax.tree.norm(found.value))
        good &= ~(found.lower.residual > _DIVERGED)
        gradients = {"masker": zero_unless(good, found.value)}
        if tracked:
            # One step to the new solution; from zero again where it has run away.
            kept = zero_unless(good, found.states[1])
            gradients["adjoint"] = optax.tree.sub(params["adjoint"], kept)
        moments = optax.tree.get(states["masker"], "mu")["masker"]
        return gradients, {
            **hypergradient_metrics(found),
            # Above 0 where the hypergradients of different batches agree.
            "agreement": cosine(gradients["masker"], moments),
            "diverged": 1 - good.astype(jnp.float32),
        }

    def random_gradient(params, batches, key, step, ratio):
        """The control: the same optimizer, and no information."""
        del batches, ratio
        own = _at(key, "random hypergradient", step)
        drawn = optax.tree.random_like(own, params["masker"])
        return {"masker": drawn}, {"loss": jnp.zeros(())}

    def picture(params, batch, key, step, ratio):
        del key, step
        images, _, mask = choose(params, batch, ratio)
        return Picture(mask.hidden, levels.predict(params["model"], images, mask))

    def scores(params, images):
        found = levels.features(params["model"], images)
        return levels.classify(params["head"], found)

    def flops(ratio):
        whole, masked = whole_macs(model, encoder.depth), forward_macs(model, ratio)
        layers = masker_macs(part, encoder.tokens, encoder.width)
        total = training_flops(model, ratio) + 2 * layers
        # Head: whole images forward. Masking network: forward and back, twice; then
        # the solver and the mixed product.
        outer = 14 * whole + 2 * masked * solver_forwards(part) + 6 * layers
        return total + judged * outer / part.every

    released = part.upper_schedule == "released"
    length = run.total_steps if released else -(-run.total_steps // part.every)
    masker_optimizer = cosine_adamw(config, part.masker_rate, length)
    updates = [Update(("model",), descend(("model",), model_loss), optimizer)]
    if part.paths == "random":
        updates.append(
            Update(("masker",), random_gradient, masker_optimizer, part.every, "masker")
        )
    if judged:
        step = cosine_adamw(config, part.head_rate, length)
        if part.head_step == "solve":
            step = optax.sgd(1.0)
        updates.append(Update(("head",), head_gradient, step, part.every, "head"))
        parts = {"masker": masker_optimizer}
        if tracked:
            parts["adjoint"] = optax.sgd(1.0)
        updates.append(
            Update(
                tuple(parts),
                masker_gradient,
                optax.partition(parts, {name: name for name in parts}),
                part.every,
                "masker",
                reads=("", "masker"),
            )
        )
    return Method(
        init=init,
        updates=tuple(updates),
        features={"encoder": pooled_features(model, config.eval.pool)},
        encoder=lambda params: params["model"]["encoder"],
        decoder=lambda params: params["model"]["decoder"],
        flops=flops,
        picture=picture,
        norm_pix=part.norm_pix,
        phase=ratio_at,
        logits=scores if judged else None,
        alarms=_ALARMS,
    )


def _at(key: Key[Array, ""], purpose: str, step: Int[Array, ""]) -> Key[Array, ""]:
    """A key of a purpose and a step."""
    return jax.random.fold_in(jax.random.fold_in(key, crc32(purpose.encode())), step)
