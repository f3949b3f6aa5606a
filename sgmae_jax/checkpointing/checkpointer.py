"""Writes checkpoints beside the training, and finds the one to go on from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from sgmae_jax.checkpointing.commit import (
    DIRECTORY_MODE,
    UNFINISHED,
    committing_with,
)
from sgmae_jax.checkpointing.digest import is_link, is_local, read_digest, write_digest
from sgmae_jax.checkpointing.errors import (
    CheckpointError,
    Damaged,
    NoUsableCheckpoint,
    RestoreRefused,
    SaveFailed,
)
from sgmae_jax.checkpointing.fingerprint import as_text, fingerprints
from sgmae_jax.checkpointing.quiet import mute_orbax
from sgmae_jax.checkpointing.reading import (
    REPLACED,
    array_entries,
    check_step,
    check_target,
    load_meta,
    load_state,
    step_folders,
)

_SLOW_SECONDS = 1.0
_REMOVALS, _PAUSE_SECONDS = 5, 0.1
_NONE_THERE, _NONE_USABLE, _REFUSED = -1, -2, -3


class Checkpointer:
    """Asynchronous, verified checkpoints in one directory.

    One object writes to a directory at a time; every process of a job calls the
    same methods in the same order, process 0 alone renames and deletes.

    Args:
        directory: where the step directories lie; made if absent.
        keep: how many of the newest steps stay, at least 1.
        max_failures: after this many failed saves in a row, `save` and `wait`
            raise, at least 1.
        log: receives one line for each failed save and each rejected step.

    Raises:
        OSError: if the directory cannot be made.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        keep: int = 3,
        max_failures: int = 3,
        log: Callable[[str], None] = print,
    ):
        self.directory = epath.Path(directory).absolute()
        self._keep = keep
        self._max_failures = max_failures
        self._log = log
        self._failures = 0
        self._manager: ocp.CheckpointManager | None = None
        self._pending: int | None = None
        self._arrays: Any = None
        self._words: dict[str, jax.Array] = {}
        mute_orbax()
        if _leads() and not self.directory.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            if is_local(self.directory):
                os.chmod(self.directory, DIRECTORY_MODE)

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts writing a step and returns; the caller may donate the state.

        A save that is still running is waited for first. An error of the disk is
        logged and counted and does not stop the run.

        Args:
            step: number of the step, at least 0; one that exists is replaced once
                the new one is complete.
            state: pytree of arrays; key data as integers.
            meta: what JSON can hold.

        Raises:
            SaveFailed: after `max_failures` failed saves in a row.
            TypeError: if the state or the meta cannot be saved at all.
        """
        begin = time.monotonic()
        before = self._pending
        self.wait()
        if (waited := time.monotonic() - begin) > _SLOW_SECONDS:
            self._log(f"checkpoint {step}: waited {waited:.1f} s for {before} to end")
        json.dumps(meta)
        self._words = fingerprints(state)
        self._arrays = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state
        )
        self._pending = step
        try:
            self._make_way(step)
            self._open().save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        except Exception as error:
            self._missed(error)

    def wait(self) -> bool:
        """Waits until the running save, if any, is on the disk.

        Returns:
            Whether the last save succeeded; True if there was none.

        Raises:
            SaveFailed: after `max_failures` failed saves in a row.
        """
        if self._pending is not None and self._manager is not None:
            error: Exception | None = None
            try:
                self._manager.wait_until_finished()
                if not (self.directory / str(self._pending)).exists():
                    raise OSError("the directory is not there after the save")
            except Exception as caught:
                error = caught
            if not _all_agree(error is None):
                self._missed(error or OSError("failed on another process"))
            else:
                if _leads():
                    _remove(self.directory / f"{self._pending}{REPLACED}")
                self._failures = 0
                self._pending = None
        return self._failures == 0

    def close(self) -> None:
        """Waits for the running save and frees the threads; raises nothing."""
        with contextlib.suppress(SaveFailed):
            self.wait()
        self._drop_manager()

    def restore(
        self,
        target: Any,
        *,
        accept: Callable[[dict[str, Any]], str | None] = lambda meta: None,
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest step that passes every check.

        Steps that are incomplete or damaged are renamed to `N.bad`, with one line
        in the log each, and the next older one is tried.

        Args:
            target: the state as a pytree of `jax.ShapeDtypeStruct`; the shardings
                given there are those of the result.
            accept: looks at the meta of a sound step; a text is the reason why
                this run must not go on from it.

        Returns:
            (step, state, meta), or None if the directory holds no step at all.

        Raises:
            NoUsableCheckpoint: if there are steps, but none is sound.
            RestoreRefused: if a sound step has other arrays than the target, or
                `accept` gives a reason.
        """
        self.wait()
        # Orbax lists the directory once; it does so anew after what follows.
        self._drop_manager()
        if _leads():
            self._tidy()
        while (step := self._newest_sound()) >= 0:
            folder = self.directory / str(step)
            digest = read_digest(folder, step)
            check_target(digest, target)
            meta = load_meta(folder)
            if reason := accept(meta):
                raise RestoreRefused(f"checkpoint {step}: {reason}")
            try:
                return step, load_state(folder, digest, target), meta
            except Damaged as damage:
                # The same on every process: a fingerprint is of the whole array.
                if _leads():
                    self._set_aside(folder, damage)
        if step == _NONE_USABLE:
            raise NoUsableCheckpoint(
                f"no usable checkpoint in {self.directory}; the rejected ones are"
                " kept there as *.bad"
            )
        return None

    def _newest_sound(self) -> int:
        """Returns the newest step whose files are sound; sets others aside."""
        result, refusal = _NONE_THERE, None
        if _leads():
            if any(self.directory.glob("*.bad")):
                result = _NONE_USABLE
            for step, folder in step_folders(self.directory).items():
                try:
                    check_step(folder, step)
                except Damaged as damage:
                    self._set_aside(folder, damage)
                    result = _NONE_USABLE
                except RestoreRefused as error:
                    result, refusal = _REFUSED, error
                    break
                else:
                    result = step
                    break
        result = _agree(result)
        if result == _REFUSED:
            raise refusal or RestoreRefused("process 0 refused the checkpoint")
        return result

    def _set_aside(self, folder: epath.Path, reason: CheckpointError | str) -> None:
        number = 1
        kept = self.directory / f"{folder.name}.bad"
        while kept.exists() or is_link(kept):
            number += 1
            kept = self.directory / f"{folder.name}.bad{number}"
        folder.rename(kept)
        self._log(f"checkpoint {folder.name}: {reason}; kept aside as {kept.name}")

    def _tidy(self) -> None:
        """Ends what a killed process has begun."""
        if not self.directory.exists():
            return
        for path in sorted(self.directory.iterdir(), key=lambda path: path.name):
            if UNFINISHED in path.name:
                _remove(path)
                self._log(f"checkpoint {path.name}: unfinished; removed")
            elif path.name.endswith(REPLACED):
                successor = self.directory / path.name.removesuffix(REPLACED)
                if successor.exists():
                    _remove(path)
                else:
                    path.rename(successor)

    def _make_way(self, step: int) -> None:
        """Moves what has the name of the step out of the way."""
        moved = False
        if _leads():
            self._tidy()
            path = self.directory / str(step)
            moved = path.exists()
            if path.is_dir() and not is_link(path):
                path.rename(self.directory / f"{step}{REPLACED}")
            elif moved:
                self._set_aside(path, "is no directory")
        if _agree(moved):
            self._drop_manager()

    def _missed(self, error: Exception) -> None:
        step, self._pending = self._pending, None
        self._failures += 1
        self._drop_manager()
        if _leads():
            with contextlib.suppress(OSError):
                self._remove_unfinished(f"{step}{UNFINISHED}*")
                replaced = self.directory / f"{step}{REPLACED}"
                if replaced.exists():
                    replaced.rename(self.directory / str(step))
        line = f"checkpoint {step}: not saved: {_reason(error)}"
        count = f"failed save {self._failures} of {self._max_failures} in a row"
        if self._failures >= self._max_failures:
            raise SaveFailed(f"{line} ({count})") from error
        self._log(f"{line} ({count}); the run goes on")

    def _remove_unfinished(self, pattern: str) -> None:
        # Writes that are still under way may bring the folder back, a few times.
        for _ in range(_REMOVALS):
            if not (left := list(self.directory.glob(pattern))):
                break
            for path in left:
                _remove(path)
            time.sleep(_PAUSE_SECONDS)

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self._keep,
                    create=False,
                    # Failures of mkdir show in save() and not after a time-out.
                    async_options=ocp.AsyncOptions(
                        create_directories_asynchronously=False
                    ),
                    file_options=ocp.options.FileOptions(
                        path_permission_mode=DIRECTORY_MODE
                    ),
                    temporary_path_class=committing_with(self.directory, self._seal),
                    lightweight_initialize=True,
                ),
            )
        return self._manager

    def _seal(self, folder: epath.Path, step: int) -> None:
        prints = as_text(self._words)
        write_digest(folder, step, array_entries(self._arrays, prints))

    def _drop_manager(self) -> None:
        """Closes Orbax's manager, whose list of steps is no longer that of the disk.

        It holds barriers: all processes do this together.
        """
        if self._manager is not None:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None


def _leads() -> bool:
    return jax.process_index() == 0


def _agree(value: int) -> int:
    """Gives every process the value of process 0."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _all_agree(flag: bool) -> bool:
    """Says whether the flag is set on every process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.bool_(flag)).all())


def _remove(path: epath.Path) -> None:
    if path.is_dir() and not is_link(path):
        path.rmtree()
    else:
        path.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """Puts an error of Orbax or TensorStore into a few words."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, OSError) and chain.strerror:
            return chain.strerror.lower()
        if found := re.search(r"os_error_code='(\d+)'", str(chain)):
            return os.strerror(int(found[1])).lower()
        chain = chain.__cause__ or chain.__context__
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
