"""Finding, checking and loading step directories. Nothing here alters a file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from sgmae_jax.checkpointing.digest import (
    ArrayEntry,
    Digest,
    check_files,
    read_digest,
)
from sgmae_jax.checkpointing.errors import (
    Damaged,
    NoUsableCheckpoint,
    RestoreRefused,
)
from sgmae_jax.checkpointing.fingerprint import as_text, fingerprints, named_leaves
from sgmae_jax.checkpointing.folders import is_link, step_folders

BEST = "best"
_SHOWN = 5


def check_step(folder: epath.Path, step: int) -> Digest:
    """Checks that a step directory is complete and unaltered.

    Args:
        folder: step directory.
        step: its number.

    Returns:
        Its digest.

    Raises:
        Damaged: with the reason.
        RestoreRefused: if a file may not be read or is of a later version.
    """
    if is_link(folder):
        raise Damaged("is a symbolic link")
    digest = read_digest(folder, step)
    check_files(folder, digest)
    return digest


def check_target(digest: Digest, target: Any, *, prefix: str = "") -> None:
    """Checks that the saved arrays are those a target asks for.

    Args:
        digest: digest of the step.
        target: pytree of arrays or `jax.ShapeDtypeStruct`.
        prefix: looks only at the saved arrays below this name, such as `params/`.

    Raises:
        RestoreRefused: listing the first differing leaves and their number.
    """
    wanted = {prefix + name: leaf for name, leaf in named_leaves(target).items()}
    saved = {n: a for n, a in digest.arrays.items() if n.startswith(prefix)}
    lines = []
    for name in sorted(wanted.keys() | saved.keys()):
        have = _describe(saved[name].dtype, saved[name].shape) if name in saved else ""
        want = ""
        if name in wanted:
            want = _describe(wanted[name].dtype, wanted[name].shape)
        if have != want:
            lines.append(f"{name} is {have or 'absent'}, not {want or 'expected'}")
    if lines:
        more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise RestoreRefused(
            f"checkpoint {digest.step}: {len(lines)} arrays differ from the model:"
            f" {'; '.join(lines[:_SHOWN])}{more}"
        )


def array_entries(tree: Any, prints: dict[str, str]) -> dict[str, ArrayEntry]:
    """Puts type, shape and fingerprint of every array together.

    Args:
        tree: pytree of arrays or `jax.ShapeDtypeStruct`.
        prints: fingerprints by name.

    Returns:
        Entries for a digest by name.
    """
    return {
        name: ArrayEntry(np.dtype(leaf.dtype).name, tuple(leaf.shape), prints[name])
        for name, leaf in named_leaves(tree).items()
    }


def load_meta(folder: epath.Path) -> dict[str, Any]:
    """Reads what the training loop said about the step.

    Args:
        folder: checked step directory.

    Returns:
        The `meta` that was given to `save`, after its way through JSON.
    """
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return dict(reader.restore(folder / "meta"))


def load_state(folder: epath.Path, digest: Digest, target: Any) -> Any:
    """Reads arrays into the shardings of a target and checks their fingerprints.

    Args:
        folder: checked step directory.
        digest: its digest, already compared with the target.
        target: dict of pytrees of `jax.ShapeDtypeStruct`; entries of the saved
            state that it lacks are not read.

    Returns:
        Pytree of arrays, of the structure of the target.

    Raises:
        Damaged: if an array is not the one that was saved.
        RestoreRefused: if Orbax cannot read files that are sound.
    """
    target = jax.tree.map(_with_sharding, target)
    try:
        with ocp.PyTreeCheckpointer() as reader:
            state = reader.restore(
                folder / "state",
                args=ocp.args.PyTreeRestore(
                    item=target,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(target),
                    partial_restore=True,
                ),
            )
    except Exception as error:
        raise RestoreRefused(
            f"checkpoint {digest.step}: its files are sound, but Orbax cannot read"
            f" them: {str(error).splitlines()[0] if str(error) else repr(error)}"
        ) from error
    for name, text in as_text(fingerprints(state)).items():
        if text != digest.arrays[name].fingerprint:
            raise Damaged(f"array {name}: fingerprint differs")
    return state


def read_meta(
    directory: str | epath.Path, *, log: Callable[[str], None] = print
) -> tuple[int, dict[str, Any]]:
    """Reads the meta of the newest sound step. Alters nothing.

    Args:
        directory: where the step directories lie.
        log: receives one line for each damaged step that was passed over.

    Returns:
        (step, meta).

    Raises:
        NoUsableCheckpoint: if there is no sound step.
        RestoreRefused: if the files may not be read or are of a later version.
    """
    step, folder, _ = _newest_sound(epath.Path(directory), None, log)
    return step, load_meta(folder)


def restore_params(
    directory: str | epath.Path,
    target: Any,
    *,
    step: int | None = None,
    log: Callable[[str], None] = print,
) -> Any:
    """Restores `state["params"]` alone. Alters nothing.

    Args:
        directory: where the step directories lie.
        target: pytree of `jax.ShapeDtypeStruct` of the parameters; without a
            sharding an array goes to the first device.
        step: this step and no other; default: the newest sound one.
        log: receives one line for each damaged step that was passed over.

    Returns:
        The parameters.

    Raises:
        NoUsableCheckpoint: if there is no sound step.
        RestoreRefused: if structure, shapes or types differ.
    """
    number, folder, digest = _newest_sound(epath.Path(directory), step, log)
    check_target(digest, target, prefix="params/")
    try:
        return load_state(folder, digest, {"params": target})["params"]
    except Damaged as damage:
        raise NoUsableCheckpoint(f"checkpoint {number}: {damage}") from damage


def folder_of(run: str | os.PathLike) -> pathlib.Path:
    """Where the parameters lie that a run is known by.

    Args:
        run: a run directory.

    Returns:
        `best`, if a step was kept there for its score, else `checkpoints`.
    """
    best = pathlib.Path(run, BEST)
    if best.is_dir() and saved_steps(epath.Path(best)):
        return best
    return pathlib.Path(run, "checkpoints")


def saved_steps(directory: str | epath.Path) -> list[int]:
    """The steps that have a directory, in ascending order; nothing is checked."""
    return sorted(step_folders(epath.Path(directory)))


def restore_series(
    directory: str | epath.Path,
    target: Any,
    steps: Collection[int],
    *,
    log: Callable[[str], None] = print,
) -> Iterator[tuple[int, Any]]:
    """Restores `state["params"]` of several steps, one after the other. Alters nothing.

    Args:
        directory: where the step directories lie.
        target: as for `restore_params`.
        steps: which ones; those that are not there are left out.
        log: receives one line for each damaged step, which is passed over.

    Yields:
        (step, parameters), in ascending order.

    Raises:
        RestoreRefused: if structure, shapes or types differ.
    """
    for step, folder in reversed(step_folders(epath.Path(directory)).items()):
        if step not in steps:
            continue
        try:
            digest = check_step(folder, step)
            check_target(digest, target, prefix="params/")
            params = load_state(folder, digest, {"params": target})["params"]
        except Damaged as damage:
            log(f"checkpoint {step}: {damage}; passed over")
            continue
        yield step, params


def _newest_sound(
    directory: epath.Path, only: int | None, log: Callable[[str], None]
) -> tuple[int, epath.Path, Digest]:
    for step, folder in step_folders(directory).items():
        if only is not None and step != only:
            continue
        try:
            return step, folder, check_step(folder, step)
        except Damaged as damage:
            log(f"checkpoint {step}: {damage}; passed over")
    which = "usable checkpoint" if only is None else f"usable checkpoint {only}"
    raise NoUsableCheckpoint(f"no {which} in {directory}")


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0]
    )
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _describe(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(dtype).name}[{','.join(map(str, shape))}]"
