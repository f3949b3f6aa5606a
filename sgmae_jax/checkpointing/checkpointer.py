"""Writes checkpoints beside the training, and finds the one to go on from."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from sgmae_jax.checkpointing.commit import DIRECTORY_MODE, committing_with
from sgmae_jax.checkpointing.digest import read_digest, write_digest
from sgmae_jax.checkpointing.errors import (
    Damaged,
    NoUsableCheckpoint,
    RestoreRefused,
    SaveFailed,
)
from sgmae_jax.checkpointing.fingerprint import as_text, fingerprints
from sgmae_jax.checkpointing.folders import (
    BAD,
    forget_replaced,
    is_local,
    make_way,
    set_aside,
    step_folders,
    tidy,
    undo,
)
from sgmae_jax.checkpointing.quiet import mute_orbax
from sgmae_jax.checkpointing.reading import (
    array_entries,
    check_step,
    check_target,
    load_meta,
    load_state,
)
from sgmae_jax.processes import everywhere, on_first

_SLOW_SECONDS = 1.0
_NONE_THERE, _NONE_USABLE = -1, -2


class Checkpointer:
    """Asynchronous, verified checkpoints in one directory.

    One object writes to a directory at a time; every process of a job calls the
    same methods in the same order, process 0 alone renames and deletes.

    Args:
        directory: where the step directories lie; made if absent.
        keep: how many of the newest steps stay, at least 1.
        keep_period: steps divisible by it stay too, for good; None: no others do.
        timeout: seconds a save may take; then it counts as failed and is abandoned.
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
        keep_period: int | None = None,
        max_failures: int = 3,
        timeout: int = 1800,
        log: Callable[[str], None] = print,
    ):
        self.directory = epath.Path(directory).absolute()
        self._keep, self._keep_period = keep, keep_period
        self._max_failures, self._timeout = max_failures, timeout
        self._log = log
        self._failures = 0
        self._manager: ocp.CheckpointManager | None = None
        self._pending: int | None = None
        self._began = 0.0
        self._arrays: Any = None
        self._words: dict[str, jax.Array] = {}
        mute_orbax()
        on_first(self._make_directory)

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
        self._pending, self._began = step, time.monotonic()
        try:
            if on_first(lambda: make_way(self.directory, step, self._log)):
                self._drop_manager()
            self._open().save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                force=True,
            )
        except Exception as error:
            self._missed(step, error)

    def wait(self) -> bool:
        """Waits until the running save, if any, is on the disk.

        Returns:
            Whether the last save succeeded; True if there was none.

        Raises:
            SaveFailed: after `max_failures` failed saves in a row.
        """
        step = self._pending
        if step is None or self._manager is None:
            return self._failures == 0
        error: Exception | None = None
        try:
            self._finish(self._manager)
        except Exception as caught:
            error = caught
        if not everywhere((self.directory / str(step)).exists()):
            self._missed(step, error or OSError("not there after the save"))
            return False
        if not everywhere(error is None):
            # What came after the commit has failed: deleting an older step.
            self._drop_manager()
            reason = _reason(error) if error else "see the log of another process"
            self._log(f"checkpoint {step}: saved; an older one stays: {reason}")
        on_first(lambda: forget_replaced(self.directory, step))
        self._pending, self._failures = None, 0
        return True

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
        on_first(lambda: tidy(self.directory, self._log))
        while (step := on_first(self._newest_sound)) >= 0:
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
                on_first(functools.partial(set_aside, folder, damage, self._log))
        if step == _NONE_USABLE:
            raise NoUsableCheckpoint(
                f"no usable checkpoint in {self.directory}; the rejected ones are"
                " kept there as *.bad"
            )
        return None

    def _newest_sound(self) -> int:
        """Returns the newest step whose files are sound; sets others aside."""
        result = _NONE_USABLE if any(self.directory.glob(f"*{BAD}")) else _NONE_THERE
        for step, folder in step_folders(self.directory).items():
            try:
                check_step(folder, step)
                return step
            except Damaged as damage:
                set_aside(folder, damage, self._log)
                result = _NONE_USABLE
        return result

    def _finish(self, manager: ocp.CheckpointManager) -> None:
        """Waits for a save for as long as one may take.

        Orbax bounds only its barriers between processes, not a write that hangs.

        Raises:
            TimeoutError: it has not ended; what it still does is never committed.
        """
        caught: list[Exception] = []

        def watch() -> None:
            try:
                manager.wait_until_finished()
            except Exception as error:
                caught.append(error)

        watcher = threading.Thread(target=watch, name="checkpoint", daemon=True)
        watcher.start()
        watcher.join(max(self._began + self._timeout - time.monotonic(), 0.0))
        if watcher.is_alive():
            self._manager = None  # to close it would wait as well
            raise TimeoutError(
                errno.ETIMEDOUT,
                f"took over {self._timeout} s (checkpoint.timeout)",
            )
        if caught:
            raise caught[0]

    def _missed(self, step: int, error: Exception) -> None:
        self._pending = None
        self._failures += 1
        self._drop_manager()
        on_first(lambda: undo(self.directory, step))
        line = f"checkpoint {step}: not saved: {_reason(error)}"
        count = f"failed save {self._failures} of {self._max_failures} in a row"
        if self._failures >= self._max_failures:
            raise SaveFailed(f"{line} ({count})") from error
        self._log(f"{line} ({count}); the run goes on")

    def _make_directory(self) -> None:
        if not self.directory.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            if is_local(self.directory):
                os.chmod(self.directory, DIRECTORY_MODE)

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:

            def seal(folder: epath.Path, step: int) -> None:
                if self._manager is not manager:
                    raise TimeoutError(errno.ETIMEDOUT, "came too late")
                prints = as_text(self._words)
                write_digest(folder, step, array_entries(self._arrays, prints))

            self._manager = manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=self._keep,
                    keep_period=self._keep_period,
                    create=False,
                    # Failures of mkdir show in save() and not after a time-out.
                    async_options=ocp.AsyncOptions(
                        create_directories_asynchronously=False,
                        timeout_secs=self._timeout,
                    ),
                    file_options=ocp.options.FileOptions(
                        path_permission_mode=DIRECTORY_MODE
                    ),
                    temporary_path_class=committing_with(self.directory, seal),
                    lightweight_initialize=True,
                ),
            )
        return self._manager

    def _drop_manager(self) -> None:
        """Closes Orbax's manager, whose list of steps is no longer that of the disk.

        It holds barriers: all processes do this together.
        """
        if self._manager is not None:
            with contextlib.suppress(Exception):
                self._manager.close()
            self._manager = None


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
