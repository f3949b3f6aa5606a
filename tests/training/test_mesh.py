"""The mesh, and the rules that say where the state lies on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from sgmae_jax.config import ConfigError, default_config
from sgmae_jax.training.mesh import (
    check_batch,
    make_mesh,
    placer,
    put_same,
    state_shardings,
)


def mesh(data=2, fsdp=4):
    config = default_config()
    config.mesh.data, config.mesh.fsdp = data, fsdp
    return make_mesh(config.mesh)


def shapes():
    layer = {
        "kernel": jax.ShapeDtypeStruct((4, 8, 12), jnp.float32),
        "bias": jax.ShapeDtypeStruct((4, 12), jnp.float32),
    }
    params = {"model": {"encoder": {"up": layer}, "odd": jnp.zeros((3, 5))}}
    return {"params": params, "opt": ({"mu": params, "count": jnp.zeros(())},)}


def specs(rules=None, **sizes):
    given = () if rules is None else (rules,)
    placed = state_shardings(shapes(), mesh(**sizes), *given)
    flat = jax.tree_util.tree_leaves_with_path(placed)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): one.spec
        for path, one in flat
    }


def test_kernels_are_divided_and_vectors_are_whole_by_default():
    found = specs()
    assert found["params/model/encoder/up/kernel"] == P(None, None, "fsdp")
    assert found["opt/0/mu/model/encoder/up/kernel"] == P(None, None, "fsdp")
    assert found["params/model/encoder/up/bias"] == P()
    assert found["params/model/odd"] == P()  # nothing divides it
    assert found["opt/0/count"] == P()


def test_without_fsdp_everything_is_whole():
    assert set(specs(data=8, fsdp=1).values()) == {P()}


def test_the_first_rule_that_is_found_says_where():
    rules = (
        ("encoder/up/kernel", ("fsdp", "data")),
        ("encoder", ("fsdp",)),
        ("encoder/up/bias", "whole"),
    )
    found = specs(rules)
    assert found["params/model/encoder/up/kernel"] == P("fsdp", "data")
    assert found["opt/0/mu/model/encoder/up/bias"] == P("fsdp")
    assert found["params/model/odd"] == P()  # no rule names it


@pytest.mark.parametrize(
    "place", [("data", None, "fsdp", None), (None, None, "data", "fsdp"), ("fsdp",)]
)
def test_a_rule_that_does_not_fit_names_the_array(place):
    with pytest.raises(ConfigError, match=r"does not fit \S*model/odd.*\(3, 5\)"):
        specs((("odd", place),))


def test_a_mesh_has_all_devices():
    with pytest.raises(ConfigError, match="multiply to the number of devices, 8"):
        mesh(data=3, fsdp=2)
    with pytest.raises(ConfigError, match="multiple of devices"):
        check_batch(24, 2, mesh())


@pytest.mark.parametrize(("rows", "parts"), [(16, 8), (9, 1)])
def test_batches_are_divided_where_they_fit(rows, parts):
    batch = {"a": np.arange(rows * 2).reshape(rows, 2), "b": np.arange(rows)}
    placed = placer(mesh())(batch)
    for name, array in batch.items():
        np.testing.assert_array_equal(placed[name], array)
        shard = placed[name].addressable_shards[0].data.shape[0]
        assert shard == rows // parts


def test_what_all_processes_have_becomes_one_array():
    place = jax.sharding.NamedSharding(mesh(), P(None, "fsdp"))
    array = np.arange(24.0).reshape(3, 8)
    (placed,) = put_same([jnp.asarray(array)], [place])
    assert placed.sharding == place
    np.testing.assert_array_equal(placed, array)
