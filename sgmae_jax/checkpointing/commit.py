"""The last act of a save: digest, permissions, flush, rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from etils import epath
from orbax.checkpoint._src.path import atomicity

from sgmae_jax.checkpointing.folders import UNFINISHED, is_local

DIRECTORY_MODE = 0o770
FILE_MODE = 0o660


def committing_with(
    directory: epath.Path, seal: Callable[[epath.Path, int], None]
) -> type[atomicity.AtomicRenameTemporaryPath]:
    """Makes the Orbax class that commits step directories with a digest.

    Orbax ends a save by writing its own two small files and renaming the temporary
    directory. Here that rename leads to a second temporary name; the digest, which
    then covers everything Orbax writes, is added there, and only the last rename
    gives the directory its number.

    Args:
        directory: where the step directories lie.
        seal: called with the complete folder and the step number; writes the
            digest. What it raises fails the save.

    Returns:
        A class for `CheckpointManagerOptions.temporary_path_class`.
    """

    class Sealed(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self, *args: Any, **kwargs: Any) -> None:
            final = self.get_final()
            if final.parent != directory:
                # One item inside the step directory; it has no digest of its own.
                await super().finalize(*args, **kwargs)
                return
            folder = directory / f"{final.name}{UNFINISHED}-sealing"
            self._final_path = folder
            try:
                await super().finalize(*args, **kwargs)
            finally:
                self._final_path = final
            _forget_place(folder)
            seal(folder, int(final.name))
            if is_local(folder):
                _settle(folder)
            folder.rename(final)
            if is_local(directory):
                _flush(directory)

    return Sealed


def _forget_place(folder: epath.Path) -> None:
    """Takes the path of this machine out of the marks that Orbax only looks for."""
    for path in (folder, *folder.iterdir()):
        if (mark := path / atomicity.COMMIT_SUCCESS_FILE).exists():
            mark.write_text("done\n")


def _settle(folder: epath.Path) -> None:
    """Closes a tree to other users and pushes it to the disk (local disks only)."""
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            os.chmod(path, FILE_MODE)
            _flush(path)
        os.chmod(parent, DIRECTORY_MODE)
        _flush(parent)


def _flush(path: str | os.PathLike[str]) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
