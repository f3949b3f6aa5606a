"""The names in a checkpoint directory, and moving things between them.

120                          a finished step
120.replaced                 the finished step while 120 is saved anew
120.orbax-checkpoint-tmp…    a save that has not finished
120.bad, 120.bad2            rejected; never deleted
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable

from etils import epath

# Orbax takes names with this inside for unfinished work, and so do we.
UNFINISHED = ".orbax-checkpoint-tmp"
REPLACED = ".replaced"
BAD = ".bad"
_STEP_NAME = re.compile(r"(0|[1-9][0-9]{0,17})(" + re.escape(REPLACED) + ")?")
_REMOVALS, _PAUSE_SECONDS = 5, 0.1


def is_local(path: epath.Path) -> bool:
    """Says whether a path is on a mounted file system (not gs:// and the like)."""
    return "://" not in os.fspath(path)


def is_link(path: epath.Path) -> bool:
    """Says whether a path is a symbolic link; object stores have none."""
    return is_local(path) and os.path.islink(path)


def step_folders(directory: epath.Path) -> dict[int, epath.Path]:
    """Lists the step directories, newest first, by number and not by date.

    Args:
        directory: where the step directories lie; may be absent.

    Returns:
        Folder by step number. Other names are no steps and are left alone.
    """
    found: dict[int, epath.Path] = {}
    if not directory.exists():
        return found
    for path in directory.iterdir():
        match = _STEP_NAME.fullmatch(path.name)
        if match and path.is_dir() and not (match[2] and int(match[1]) in found):
            found[int(match[1])] = path
    return dict(sorted(found.items(), reverse=True))


def set_aside(
    path: epath.Path, reason: Exception | str, log: Callable[[str], None]
) -> None:
    """Renames a rejected step to `N.bad`, or `N.bad2` and so on.

    Args:
        path: the step directory, or what has its name.
        reason: why it was rejected.
        log: receives the line about it.
    """
    number, kept = 1, path.parent / f"{path.name}{BAD}"
    while kept.exists() or is_link(kept):
        number += 1
        kept = path.parent / f"{path.name}{BAD}{number}"
    path.rename(kept)
    log(f"checkpoint {path.name}: {reason}; kept aside as {kept.name}")


def tidy(directory: epath.Path, log: Callable[[str], None]) -> None:
    """Ends what a killed process has begun; no save may be running.

    Args:
        directory: where the step directories lie; may be absent.
        log: receives a line for each unfinished save that is removed.
    """
    if not directory.exists():
        return
    for path in sorted(directory.iterdir(), key=lambda path: path.name):
        if UNFINISHED in path.name:
            _remove(path)
            log(f"checkpoint {path.name}: unfinished; removed")
        elif path.name.endswith(REPLACED):
            successor = directory / path.name.removesuffix(REPLACED)
            if successor.exists():
                _remove(path)
            else:
                path.rename(successor)


def make_way(directory: epath.Path, step: int, log: Callable[[str], None]) -> bool:
    """Moves what has the name of a step out of the way of a save.

    Args:
        directory: where the step directories lie.
        step: the step to be saved.
        log: receives a line if that is no step directory.

    Returns:
        Whether there was anything.
    """
    tidy(directory, log)
    path = directory / str(step)
    if path.is_dir() and not is_link(path):
        path.rename(directory / f"{step}{REPLACED}")
    elif path.exists() or is_link(path):
        set_aside(path, "is no directory", log)
    else:
        return False
    return True


def forget_replaced(directory: epath.Path, step: int) -> None:
    """Deletes the predecessor of a step that has been saved anew.

    Args:
        directory: where the step directories lie.
        step: the finished step.
    """
    with contextlib.suppress(OSError):  # the next `tidy` tries again
        _remove(directory / f"{step}{REPLACED}")


def undo(directory: epath.Path, step: int) -> None:
    """Removes what a failed save has left and puts back what was in its place.

    Args:
        directory: where the step directories lie.
        step: the step that could not be saved.
    """
    with contextlib.suppress(OSError):
        # Writes that are still under way may bring the folder back, a few times.
        for _ in range(_REMOVALS):
            if not (left := list(directory.glob(f"{step}{UNFINISHED}*"))):
                break
            for path in left:
                _remove(path)
            time.sleep(_PAUSE_SECONDS)
    with contextlib.suppress(OSError):
        replaced, path = directory / f"{step}{REPLACED}", directory / str(step)
        if replaced.exists() and not path.exists():
            replaced.rename(path)


def _remove(path: epath.Path) -> None:
    if path.is_dir() and not is_link(path):
        path.rmtree()
    else:
        path.unlink(missing_ok=True)
