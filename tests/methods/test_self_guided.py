"""Self-guided MAE as the loop sees it: phases, sources of guidance, bank, monitor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.masking import guide, num_keep
from sgmae_jax.methods.guidance import Phase
from sgmae_jax.methods.image import make_autoencoder, training_flops
from sgmae_jax.training.mesh import put_batch, state_shardings
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from tests.methods.cases import (
    EXAMPLES,
    KEY,
    batch_of,
    build,
    start,
    stepper,
    tiny_config,
)

WARM, LOOK = Phase(0.75), Phase(0.75, 0, True)
REST = Phase(0.75, 0, False)  # guided, by what the bank holds


def config_of(**changes):
    fields = {"begin_epoch": 0, "hint_ratio": 0.0} | changes
    own = {f"method__{name}": value for name, value in fields.items()}
    return tiny_config("self_guided", **own)


def hidden_of(method, params, batch, phase=LOOK, step=0):
    picture = jax.jit(method.picture, static_argnums=4)
    return np.asarray(picture(params, batch, KEY, step, phase).hidden)


def absorbed(method, state, batch, phase):
    absorb = jax.jit(method.sweep.absorb, static_argnums=3)
    return absorb(state.params, batch, state.step, phase)


def relevance_of(config, params, images):
    """What `guide` says of a layer of the model itself, put together by hand."""
    model = make_autoencoder(config)

    @jax.jit
    def relevance(params, images):
        layer = model.layer(params, images, config.method.layer)
        return guide(layer.features[:, 1:], layer.attention).relevance

    return relevance(params, images)


@pytest.mark.parametrize("begin", [0, 0.3, 0.5])
def test_masks_are_random_until_guidance_begins(begin):
    method = build(config_of(begin_epoch=begin))
    phases = [method.phase(step, {}) for step in range(10)]
    first = round(begin * 10)
    assert phases == [WARM] * first + [Phase(0.75, first, True)] * (10 - first)


def test_by_default_guidance_begins_after_an_eighth_of_the_run():
    method = build(config_of(begin_epoch=None), steps=80)
    assert method.phase(9, {}).begun is None and method.phase(10, {}).begun == 10


def test_the_most_relevant_tokens_are_hidden_and_exactly_so_many():
    config = config_of()
    method = build(config)
    state, batch = start(method), batch_of()
    hidden = hidden_of(method, state.params, batch)
    relevance = relevance_of(config, state.params["model"], batch["image"])
    kept = num_keep(24, 0.75)
    assert (hidden.sum(1) == 24 - kept).all()
    edge = np.sort(relevance, axis=1)[:, kept][:, None]
    np.testing.assert_array_equal(hidden, relevance >= edge)


def test_in_the_warm_phase_it_is_mae():
    mae = build(tiny_config())
    own = build(config_of())
    batch = {"train": batch_of()}
    states = start(mae), start(own)
    for _ in range(3):
        states = (
            stepper(mae)(states[0], batch, 0.75)[0],
            stepper(own)(states[1], batch, WARM)[0],
        )
    jax.tree.map(
        np.testing.assert_array_equal,
        states[0].params["model"],
        states[1].params["model"],
    )


def test_no_gradient_flows_into_the_guide():
    method = build(config_of())
    state, batch = start(method), batch_of()

    @jax.jit
    @jax.value_and_grad
    def total(params):
        _, made, _ = method.prepare(params, {"train": batch}, KEY, jnp.int32(0), LOOK)
        return made["train"]["relevance"].sum()

    value, through = total(state.params)
    assert float(value) != 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(through))


@pytest.mark.parametrize(
    "changes",
    [
        {"guide": "ema", "relation": "attention", "side": "seed"},
        {"guide": "snapshot", "layer": 2, "side": "size", "threshold": "mean"},
        {"part": "decoder", "layer": -1, "guide": "ema", "refresh": "bank"},
        {"part": "decoder", "layer": 1, "guide": "snapshot", "refresh": "bank"},
        {"refresh": "interval", "refresh_steps": 2, "tau": 0.2},
        {"hint_ratio": 0.3, "hint_mode": "similarity", "norm_pix": False},
    ],
    ids=str,
)
def test_every_source_and_rule_trains(changes):
    config = config_of(**changes)
    validate(config)
    method = build(config)
    state, step = start(method), stepper(method)
    losses = []
    for number in range(4):
        if method.sweep and method.sweep.due(number, {}):
            params = absorbed(method, state, batch_of(), method.phase(number, {}))
            state = state._replace(params=params)
        phase = method.phase(number, {})
        state, metrics = step(state, {"train": batch_of()}, phase)
        losses.append(float(metrics["loss"]))
        if phase.look:
            assert 0 <= float(metrics["guidance/degenerate"]) <= 1
        else:
            assert float(metrics["guidance/known"]) == 1
    assert np.isfinite(losses).all() and int(state.skipped) == 0


def test_decaying_hints_are_one_program():
    config = config_of(hint_ratio=0.5, hint_ratio_end=0.0)
    method = build(config)
    state, step = start(method), stepper(method)
    hints = []
    for number in range(10):
        state, metrics = step(state, {"train": batch_of()}, method.phase(number, {}))
        hints.append(int(metrics["hints"]))
    assert step._cache_size() == 1
    assert hints == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def moved(params):
    """The same parameters with another model."""
    return {**params, "model": jax.tree.map(lambda leaf: leaf + 1, params["model"])}


def test_an_average_follows_the_model():
    method = build(config_of(guide="ema", ema_momentum=0.75))
    params = method.init(KEY)
    token = params["guide"]["encoder"]["cls_token"]
    for step in (1, 2):
        params = moved(params)
        params = {**params, **method.post_update(params, step)}
    expected = token + 0.75 * 0.25 * 1 + 0.25 * 2
    np.testing.assert_allclose(
        params["guide"]["encoder"]["cls_token"], expected, rtol=1e-5
    )
    assert "decoder" not in params["guide"]


def test_a_snapshot_is_the_model_as_it_was_when_guidance_began():
    method = build(config_of(guide="snapshot"))
    prepare = jax.jit(method.prepare, static_argnums=4)
    params, batches = method.init(KEY), {"train": batch_of()}
    phase = Phase(0.75, 3, True)
    seen = []
    for step in range(3, 6):
        params = moved(params)
        params, _, _ = prepare(params, batches, KEY, jnp.int32(step), phase)
        seen.append(params["guide"]["encoder"]["cls_token"])
        model = params["model"]["encoder"]["cls_token"]
        assert (seen[-1] == model).all() == (step == 3)
    np.testing.assert_array_equal(seen[0], seen[2])


def test_a_sweep_makes_the_bank_say_what_a_look_says():
    swept = build(config_of(refresh="bank"))
    looking = build(config_of())
    state = start(swept)
    phase = swept.phase(0, {})
    assert phase == REST and swept.sweep.due(0, {})
    nothing = hidden_of(swept, state.params, batch_of(), phase)
    params = absorbed(swept, state, batch_of(), phase)
    model = {"model": params["model"]}
    by_look = hidden_of(looking, model, batch_of())
    # Ranks may change where float16 rounds two relevances to one.
    assert (hidden_of(swept, params, batch_of(), phase) == by_look).mean() > 0.97
    assert (nothing == by_look).mean() < 0.8
    mirrored = batch_of()
    mirrored["view"][:, 1] = [1, -1]
    flipped = hidden_of(swept, params, mirrored, phase).reshape(-1, 4, 6)[..., ::-1]
    assert (flipped.reshape(-1, 24) == by_look).mean() > 0.97


def test_an_unknown_example_is_masked_at_random_and_counted():
    method = build(config_of(refresh="bank"))
    state = start(method)
    params = absorbed(method, state, batch_of(8), REST)
    state = state._replace(params=params)
    _, metrics = stepper(method)(state, {"train": batch_of()}, REST)
    assert float(metrics["guidance/known"]) == 0.5
    hidden = hidden_of(method, params, batch_of(), REST)
    again = hidden_of(method, params, batch_of(epoch=1), REST)
    assert (hidden[:8] == again[:8]).all()
    assert not (hidden[8:] == again[8:]).all()


def test_looks_sweeps_and_their_intervals():
    interval = build(config_of(refresh="interval", refresh_steps=3, begin_epoch=0.2))
    looks = [interval.phase(step, {}).look for step in range(10)]
    assert [i for i, look in enumerate(looks) if look] == [2, 5, 8]
    assert interval.sweep is None
    bank = build(config_of(refresh="bank", refresh_epochs=2, begin_epoch=0.3), 70)
    due = [step for step in range(70) if bank.sweep.due(step, {})]
    assert due == [3, 23, 43, 63]
    assert not any(bank.phase(step, {}).look for step in range(70))
    assert interval.init(KEY)["bank"]["written"].shape == (EXAMPLES,)


def test_void_steps_leave_bank_and_average_alone():
    config = config_of(refresh="interval", guide="ema")
    method = build(config)
    state = start(method)
    model = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["model"])
    state = state._replace(params={**state.params, "model": model})
    after, metrics = stepper(method)(state, {"train": batch_of()}, LOOK)
    assert int(metrics["skipped"]) == 1
    for name in ("bank", "guide"):
        jax.tree.map(
            np.testing.assert_array_equal, after.params[name], state.params[name]
        )


def run_on(shape):
    method = build(config_of(refresh="interval"))
    make_state = functools.partial(init_state, method)
    auto = (jax.sharding.AxisType.Auto,) * 2
    devices = jax.devices()[: shape[0] * shape[1]]
    mesh = jax.make_mesh(shape, ("data", "fsdp"), auto, devices=devices)
    shardings = state_shardings(jax.eval_shape(make_state, KEY), mesh)
    state = jax.jit(make_state, out_shardings=shardings)(KEY)
    batch = put_batch(batch_of(), mesh)
    step = jax.jit(make_step(method), static_argnums=2, out_shardings=(shardings, None))
    losses = []
    for _ in range(3):
        state, metrics = step(state, {"train": batch}, LOOK)
        losses.append(float(metrics["loss"]))
    hidden = hidden_of(method, state.params, batch, REST, step=4)
    return hidden, losses


def test_devices_change_no_mask_and_hardly_a_loss():
    (hidden, losses), (again, others) = run_on((1, 1)), run_on((4, 2))
    np.testing.assert_array_equal(hidden, again)
    np.testing.assert_allclose(losses, others, rtol=2e-6)


def test_the_monitor_measures_shares_of_attention():
    method = build(config_of())
    params = method.init(KEY)
    attention = params["model"]["decoder"]["blocks"]["attn"]
    attention["qkv"]["kernel"] *= 0  # uniform: 18 of 25 tokens are mask tokens
    found = jax.jit(method.monitor.measure)(params, batch_of(), KEY, jnp.int32(0))
    raw = [float(found[f"exploitation/{name}_raw"]) for name in ("visible", "mask")]
    assert sum(raw) == pytest.approx(1, abs=1e-5)
    assert raw[1] == pytest.approx(18 / 25, abs=1e-5)
    for name in ("visible", "mask"):
        each = float(found[f"exploitation/{name}_per_token"])
        assert each == pytest.approx(1, abs=1e-5)


def test_guidance_begins_by_itself_when_mask_tokens_pass_visible_ones():
    method = build(config_of(begin_by="exploitation", begin_epoch=2))

    def look(step, mask, marks):
        rates = {"exploitation/mask_raw": mask, "exploitation/visible_raw": 1 - mask}
        return method.monitor.decide(step, rates, marks)

    marks = look(0, 0.7, {})  # ahead from the start: nothing has been passed
    assert marks == {}
    marks = look(10, 0.3, marks)
    assert marks == {"behind": 10}
    assert look(11, 0.6, marks) == marks  # passed, but before the earliest epoch
    marks = look(20, 0.6, marks)
    assert marks == {"behind": 10, "guidance": 20}
    assert look(30, 0.2, marks) == marks  # begun is begun
    assert method.phase(19, marks) == WARM
    assert method.phase(20, marks) == Phase(0.75, 20, True)
    assert method.phase(20, {}) == WARM


def test_the_cost_is_that_of_a_pass_over_all_tokens_up_to_the_layer():
    def ratio(**changes):
        config = tiny_config("self_guided")
        config.data.image_size, config.model.preset = 224, "vit_b"
        config.model.patch_size = 16
        config.model.width = config.model.depth = config.model.heads = None
        config.model.decoder_width, config.model.decoder_depth = 512, 8
        for name, value in changes.items():
            config.method[name] = value
        method = build(config)
        warm = training_flops(make_autoencoder(config), 0.75)
        assert method.flops(WARM) == warm
        return method.flops(LOOK) / warm

    # The published count is 1.59 for the last layer, 1.55 for the last but one.
    assert ratio(layer=-1) == pytest.approx(1.596, abs=0.01)
    assert ratio() == pytest.approx(1.55, abs=0.01)
    assert ratio(refresh="interval") == pytest.approx(1 + 0.55 / 4, abs=0.01)
    assert ratio(refresh="bank") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 0}, "config.method.layer = 0: must be"),
        ({"layer": -3}, "config.method.layer = -3"),
        ({"layer": 2, "part": "decoder"}, "config.method.layer = 2"),
        ({"guide": "teacher"}, "config.method.guide = 'teacher': must be one of"),
        ({"side": "left"}, "cls_attention, seed, size"),
        ({"hint_ratio": 1.5}, "config.method.hint_ratio = 1.5"),
        ({"refresh_steps": 1}, "config.method.refresh_steps = 1"),
        ({"monitor_epochs": 0}, "config.method.monitor_epochs = 0"),
    ],
)
def test_bad_fields_are_named(changes, words):
    with pytest.raises(ConfigError) as caught:
        validate(config_of(**changes))
    assert words in str(caught.value) and "\n" not in str(caught.value)
