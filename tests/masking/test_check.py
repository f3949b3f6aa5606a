"""The checker accepts what keeps the contract and names what breaks it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.masking import (
    MaskError,
    block_mask,
    check_mask_fn,
    num_keep,
    random_mask,
    select,
)

GRID = (4, 6)


def good(keys, context, *, ratio):
    return random_mask(keys, context, ratio=ratio)


def by_attention(keys, context, *, ratio, layer=1):
    return select(-context.attention(layer)[:, :, 0, 1:].mean(1), num_keep(24, ratio))


def by_features(keys, context, *, ratio, layer):
    features = context.features(layer)
    center = features.mean(1, keepdims=True)
    return select((features * center).sum(-1), num_keep(24, ratio))


def by_images(keys, context, *, ratio):
    height, width = context.grid
    batch, rows, columns, channels = context.images.shape
    cells = context.images.reshape(
        batch, height, rows // height, width, columns // width, channels
    )
    return select(cells.std((2, 4, 5)).reshape(batch, -1), num_keep(24, ratio))


def by_step(keys, context, *, ratio):
    count = jnp.full(keys.shape[0], 3 + (context.step > 10))
    return select(
        jax.vmap(lambda k: jax.random.uniform(k, (24,)))(keys), 6, count=count
    )


def in_place(keys, context, *, ratio):
    """All tokens go in, in order; the hidden ones are marked as padding."""
    mask = random_mask(keys, context, ratio=ratio)
    order = jnp.tile(jnp.arange(24, dtype=jnp.int32), (keys.shape[0], 1))
    return mask._replace(ids_keep=order, ids_restore=order, keep_valid=mask.hidden == 0)


def any_options(*args, **kwargs):
    return random_mask(*args, ratio=kwargs["ratio"])


def learned_gate(keys, context, *, ratio):
    mask = random_mask(keys, context, ratio=ratio)
    gate = jax.nn.sigmoid(context.features(-1) @ jnp.ones(32))
    return mask._replace(gate=gate, loss_weight=1 - gate)


@pytest.mark.parametrize(
    "fn, options",
    [
        (good, {}),
        (by_attention, {}),
        (by_attention, {"layer": -1}),
        (by_features, {"layer": 11}),
        (by_images, {}),
        (by_step, {}),
        (in_place, {}),
        (any_options, {"whatever": 3}),
        (learned_gate, {}),
        (partial(block_mask, aspect=(1.0, 2.0)), {"area": [0.1, 0.2]}),
    ],
)
def test_masks_that_keep_the_contract_pass(fn, options):
    check_mask_fn(fn, grid=GRID, ratio=0.75, options=options, image_shape=(16, 24, 1))


@pytest.mark.parametrize("batch", [1, 5])
def test_the_size_of_the_trial_is_free(batch):
    check_mask_fn(good, grid=GRID, ratio=0.75, batch=batch)
    with pytest.raises(MaskError, match=f"hidden must be float32.{batch}, 24"):
        check_mask_fn(
            changed(hidden=lambda m: m.hidden[:, 1:]),
            grid=GRID,
            ratio=0.75,
            batch=batch,
        )


def no_ratio(keys, context):
    return random_mask(keys, context, ratio=0.75)


def one_place(keys, *, ratio):
    return keys


def needs_more(keys, context, *, ratio, width):
    return random_mask(keys, context, ratio=ratio)


def halved(keys, context, *, ratio):
    return random_mask(keys, context, ratio=ratio / 2)


def changed(**fields):
    """A good mask with fields replaced by functions of the mask."""

    def fn(keys, context, *, ratio):
        mask = random_mask(keys, context, ratio=ratio)
        return mask._replace(**{name: made(mask) for name, made in fields.items()})

    return fn


def host_value(keys, context, *, ratio):
    if jax.random.uniform(keys[0]) > 0.5:
        return random_mask(keys, context, ratio=ratio)
    return random_mask(keys, context, ratio=ratio)


def by_whole_batch(keys, context, *, ratio):
    scores = jax.random.uniform(keys[0], (keys.shape[0], 24))
    return select(scores, num_keep(24, ratio))


def by_host_randomness(keys, context, *, ratio):
    scores = np.random.default_rng().random((keys.shape[0], 24))
    return select(jnp.asarray(scores), num_keep(24, ratio))


def gate_of_the_batch(keys, context, *, ratio):
    mask = random_mask(keys, context, ratio=ratio)
    return mask._replace(gate=mask.gate * keys.shape[0])


def wrong_layer(keys, context, *, ratio):
    context.features(3)
    raise ValueError("only layers up to 2\nand more")


BAD_FUNCTIONS = [
    (no_ratio, {}, "does not take the keyword 'ratio'"),
    (one_place, {}, "cannot be called: too many positional arguments"),
    (needs_more, {}, "missing a required argument: 'width'"),
    (block_mask, {"aera": 1}, "no option 'aera'; did you mean area?"),
    (block_mask, {"aera": 1}, "(its options: area, aspect, rectangles)"),
    (good, {"area": 1}, "(its options: none)"),
    (good, {"ratio": 0.5}, "'ratio' is passed by itself"),
    (block_mask, {"area": (2, 3)}, "area must be"),
    (lambda k, c, *, ratio: None, {}, "returns NoneType, not a Mask"),
    (lambda k, c, *, ratio: tuple(good(k, c, ratio=ratio)), {}, "returns tuple"),
    (lambda k, c, *, ratio: "mask", {}, "TypeError"),
    (halved, {}, "ids_keep must be int32[2, 6]"),
    (host_value, {}, "cannot be traced"),
    (wrong_layer, {}, "ValueError: only layers up to 2"),
    (by_whole_batch, {}, "changes with the batch"),
    (by_host_randomness, {}, "changes with the batch"),
    (gate_of_the_batch, {}, "gate of an example changes with the batch"),
    (changed(hidden=lambda m: m.hidden.astype(bool)), {}, "hidden must be float32"),
    (changed(hidden=lambda m: m.hidden[:, :-1]), {}, "hidden must be float32[2, 24]"),
    (changed(ids_restore=lambda m: m.ids_restore * 1.0), {}, "ids_restore must be int"),
    (
        changed(ids_keep=lambda m: m.ids_keep[:, :-1]),
        {},
        "ids_keep must be int32[2, 6]",
    ),
    (changed(gate=lambda m: m.gate[0]), {}, "gate must be float32[2, 24]"),
    (changed(gate=lambda m: 1.0), {}, "gate must be float32[2, 24]"),
    (changed(keep_valid=lambda m: m.ids_keep >= 0), {}, None),
    (changed(keep_valid=lambda m: m.ids_keep), {}, "keep_valid must be bool"),
    (changed(ids_restore=lambda m: m.ids_restore // 2), {}, "not a permutation"),
    (changed(ids_restore=lambda m: m.ids_restore + 1), {}, "not a permutation"),
    (changed(ids_keep=lambda m: m.ids_keep[:, ::-1]), {}, "disagree"),
    (changed(hidden=lambda m: m.hidden * 0.5), {}, "other values than 0 and 1"),
    (changed(hidden=lambda m: 1 - m.hidden), {}, "it has 6 ones of 24"),
    (changed(hidden=lambda m: m.hidden * 0), {}, "it has 0 ones of 24"),
    (
        changed(keep_valid=lambda m: m.ids_keep < 0),
        {},
        "hidden must be 0 on the tokens of ids_keep (where keep_valid)",
    ),
    (changed(loss_weight=lambda m: m.gate / 0), {}, "loss_weight is not finite"),
    (changed(gate=lambda m: m.gate * jnp.nan), {}, "gate is not finite"),
]


@pytest.mark.parametrize("fn, options, words", BAD_FUNCTIONS)
@pytest.mark.fault(10)
def test_masks_that_break_the_contract_are_named(fn, options, words):
    check = partial(check_mask_fn, fn, grid=GRID, ratio=0.75, options=options)
    if words is None:
        check()
        return
    with pytest.raises(MaskError) as caught:
        check()
    message = str(caught.value)
    assert words in message and "\n" not in message
    if hasattr(fn, "__qualname__"):
        assert fn.__qualname__ in message


def test_missing_images_are_the_context_s_business():
    with pytest.raises(MaskError, match="by_images fails"):
        check_mask_fn(by_images, grid=GRID, ratio=0.75)


def test_a_function_is_not_run_for_its_options_alone():
    called = []

    def counts(keys, context, *, ratio):
        called.append(1)

    with pytest.raises(MaskError, match="no option 'x'"):
        check_mask_fn(counts, grid=GRID, ratio=0.5, options={"x": 1})
    assert not called


def test_an_empty_trial_is_refused():
    with pytest.raises(ValueError, match="batch"):
        check_mask_fn(good, grid=GRID, ratio=0.5, batch=0)
