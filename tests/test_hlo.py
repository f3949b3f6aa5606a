"""Bytes and FLOPs read from compiled programs whose numbers are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.hlo import Collective, collectives, dot_flops

LAYERS, WIDTH, ROWS = 5, 16, 64
WEIGHTS = LAYERS * WIDTH**2 * 4  # bytes


def _layers(weights, x):
    def layer(x, weight):
        return jnp.tanh(x @ weight), None

    return jax.lax.scan(layer, x, weights)[0].sum()


def _mesh(shape=(8, 1)):
    return jax.make_mesh(shape, ("data", "fsdp"), (AxisType.Auto,) * 2)


def _compiled(function, place, mesh=None):
    mesh = mesh or _mesh()
    weights = jax.ShapeDtypeStruct(
        (LAYERS, WIDTH, WIDTH), np.float32, sharding=NamedSharding(mesh, place)
    )
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), np.float32, sharding=rows)
    out = NamedSharding(mesh, PartitionSpec())
    return jax.jit(function, out_shardings=out).lower(weights, x).compile().as_text()


def test_gradients_are_summed_once_a_layer():
    text = _compiled(jax.grad(_layers), PartitionSpec())
    found = collectives(text)
    assert {one.kind for one in found} == {"all-reduce"}
    assert {one.group for one in found} == {8}
    assert sum(one.wire for one in found) == pytest.approx(2 * 7 / 8 * WEIGHTS)


def test_loops_count_as_often_as_they_turn():
    text = _compiled(_layers, PartitionSpec())
    assert dot_flops(text) == 2 * LAYERS * ROWS // 8 * WIDTH**2
    backward = _compiled(jax.grad(_layers), PartitionSpec())
    # Of the first layer nothing asks for the gradient of what it takes, but the loop
    # makes it all the same.
    assert dot_flops(backward) == 3 * 2 * LAYERS * ROWS // 8 * WIDTH**2


@pytest.mark.parametrize("shape", [(1, 8), (4, 2)])
def test_weights_that_are_divided_are_gathered(shape):
    mesh = _mesh(shape)
    whole = NamedSharding(mesh, PartitionSpec())

    def gathered(weights, x):
        def layer(x, weight):
            weight = jax.lax.with_sharding_constraint(weight, whole)
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(layer, x, weights)[0].sum()

    found = collectives(_compiled(gathered, PartitionSpec(None, None, "fsdp"), mesh))
    gathers = [one for one in found if one.kind == "all-gather"]
    assert {one.group for one in gathers} == {shape[1]}
    share = (shape[1] - 1) / shape[1]
    assert sum(one.wire for one in gathers) == pytest.approx(share * WEIGHTS)


@pytest.mark.parametrize(
    ("kind", "sent"),
    [("all-reduce", 150), ("all-gather", 75), ("reduce-scatter", 300)],
)
def test_a_ring_of_four(kind, sent):
    assert Collective(kind, 4, 1, 100, "f32", "").wire == sent


LINE = "  %a = f32[8,4]{1,0} all-reduce(%p), channel_id=1, replica_groups=GROUPS, x"


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("[2,4]<=[8]", 4),
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("mesh['a'=4,'b'=2] {'a'}", 4),
        ("mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("mesh['a'=8] {'a':(1)2}", 2),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", 4),
    ],
)
def test_groups_are_read(groups, size):
    head = "ENTRY %main (p: f32[8,4]) -> f32[8,4] {\n"
    (one,) = collectives(head + LINE.replace("GROUPS", groups) + "\n}\n")
    assert (one.group, one.result) == (size, 128)


def test_groups_that_cannot_be_read_are_refused():
    head = "ENTRY %main (p: f32[8,4]) -> f32[8,4] {\n"
    with pytest.raises(ValueError, match="no groups"):
        collectives(head + LINE.replace("GROUPS", "new") + "\n}\n")


def test_a_loop_of_unknown_length_is_refused():
    text = (
        "%body (p: f32[4]) -> f32[4] {\n"
        + LINE.replace("GROUPS", "[1,8]<=[8]")
        + "\n}\n"
        + "ENTRY %main (p: f32[4]) -> f32[4] {\n"
        + "  %w = f32[4]{0} while(%p), condition=%cond, body=%body\n}\n"
    )
    with pytest.raises(ValueError, match="unknown length"):
        collectives(text)
