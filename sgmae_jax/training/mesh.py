"""The device mesh, and where the state and the batches live on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sgmae_jax.config import ConfigError
from sgmae_jax.schema import FIELDS

# A batch is divided over both axes; the state only over `fsdp`.
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(mesh_config) -> Mesh:
    """All devices as a (data, fsdp) mesh.

    Args:
        mesh_config: the config's `mesh` section.

    Raises:
        ConfigError: the sizes named do not multiply to the number of devices.
    """
    devices = jax.device_count()
    fsdp = mesh_config.fsdp
    data = mesh_config.data or max(devices // fsdp, 1)
    if data * fsdp != devices:
        raise ConfigError(
            f"config.mesh.data = {mesh_config.data}, config.mesh.fsdp = {fsdp}: must "
            f"multiply to the number of devices, {devices}"
        )
    # Auto: the compiler places what lies between the inputs and outputs we place.
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)


def check_batch(batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """A micro-batch must divide over the devices.

    Raises:
        ConfigError: it does not.
    """
    if batch_size % (mesh.size * accumulate):
        raise ConfigError(
            f"config.data.batch_size = {batch_size}: must be a multiple of devices * "
            f"optim.accumulate = {mesh.size} * {accumulate}"
        )


def state_shardings(
    shapes: PyTree,
    mesh: Mesh,
    rules: Sequence[Any] = FIELDS["mesh.rules"].default,
) -> PyTree:
    """Where each array of a state lies, by the first rule whose pattern its name has.

    Args:
        shapes: tree of arrays or `ShapeDtypeStruct`.
        mesh: as `make_mesh` gives it.
        rules: pairs (regular expression, place), searched for in names such as
            "params/model/encoder/blocks/mlp/up/kernel"; of a moment, what follows the
            optimizer's own part is the same. A place is "whole" (every device has all
            of it), "largest" (the largest dimension that `fsdp` divides is divided
            over it; whole if there is none) or a tuple with None or an axis of the
            mesh a dimension. What no rule names is whole.

    Returns:
        A tree of shardings like `shapes`.

    Raises:
        ConfigError: a tuple does not fit an array that it is meant for.
    """
    patterns = [(re.compile(pattern), place) for pattern, place in rules]

    def place(name: str, leaf) -> NamedSharding:
        found = (place for pattern, place in patterns if pattern.search(name))
        wished = next(found, "whole")
        if wished == "whole":
            return replicated(mesh)
        if wished == "largest":
            return NamedSharding(mesh, _largest(leaf.shape, mesh.shape["fsdp"]))
        # A rule is written for kernels; counts and factors match it too, by name.
        spec = tuple(wished) if leaf.shape else ()
        parts = [1 if axis is None else mesh.shape[axis] for axis in spec]
        if len(spec) > len(leaf.shape) or any(
            size % part for size, part in zip(leaf.shape, parts, strict=False)
        ):
            raise ConfigError(
                f"config.mesh.rules: {tuple(wished)} does not fit {name}, whose shape "
                f"is {tuple(leaf.shape)}, on a mesh of {dict(mesh.shape)}"
            )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: place(
            jax.tree_util.keystr(path, simple=True, separator="/"), leaf
        ),
        shapes,
    )


def _largest(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    fits = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or not fits:
        return PartitionSpec()
    axis = max(fits, key=lambda a: shape[a])
    return PartitionSpec(*[None] * axis, "fsdp")


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """This process' rows of a batch as global arrays."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows)
        for name, rows in batch.items()
    }


def put_same(tree: PyTree, shardings: PyTree) -> PyTree:
    """Arrays that every process has whole, as global arrays."""

    def put(array, sharding):
        rows = np.asarray(array)
        return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)

    return jax.tree.map(put, tree, shardings)


def placer(mesh: Mesh) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Puts batches that every process has whole on the mesh, divided where they fit."""

    def place(batch: dict[str, Any]) -> dict[str, Any]:
        rows = len(next(iter(batch.values())))
        spec = PartitionSpec() if rows % mesh.size else BATCH
        return put_same(batch, {name: NamedSharding(mesh, spec) for name in batch})

    return place


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device has all of it."""
    return NamedSharding(mesh, PartitionSpec())


def placed(shapes: PyTree, shardings: PyTree) -> PyTree:
    """The tree of `ShapeDtypeStruct` that a restore is asked for."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )
