"""The device mesh, and where the state and the batches live on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from sgmae_jax.config import ConfigError

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


def state_shardings(shapes: PyTree, mesh: Mesh) -> PyTree:
    """Replicated, or each leaf's largest divisible axis over `fsdp`.

    Args:
        shapes: tree of arrays or `ShapeDtypeStruct`.
        mesh: as `make_mesh` gives it.

    Returns:
        A tree of shardings like `shapes`.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf):
        fits = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or not fits:
            return NamedSharding(mesh, PartitionSpec())
        axis = max(fits, key=lambda a: leaf.shape[a])
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree.map(place, shapes)


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, jax.Array]:
    """This process' rows of a batch as global arrays."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows)
        for name, rows in batch.items()
    }


def placer(mesh: Mesh) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Puts batches that need not fit the mesh on it where they do."""

    def place(batch: dict[str, Any]) -> dict[str, Any]:
        rows = len(next(iter(batch.values())))
        fits = rows % mesh.size == 0 and jax.process_count() == 1
        return put_batch(batch, mesh) if fits else batch

    return place


def placed(shapes: PyTree, shardings: PyTree) -> PyTree:
    """The tree of `ShapeDtypeStruct` that a restore is asked for."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        shardings,
    )
