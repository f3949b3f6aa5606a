"""The launch scripts as child processes, and what is left of them."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


def start(script: str, *words: object, **environment: object) -> subprocess.Popen:
    """Starts a script of `launch/` with piped output."""
    return subprocess.Popen(
        [LAUNCH / script, *map(str, words)],
        env=os.environ | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as tests may be, ignores SIGINT, and so would bash.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(child: subprocess.Popen) -> tuple[int, str, str]:
    """Waits for the end; (exit code, stdout, stderr)."""
    try:
        stdout, stderr = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        raise
    return child.returncode, stdout, stderr


def run(script: str, *words: object, **environment: object) -> tuple[int, str, str]:
    """Runs a script to its end; (exit code, stdout, stderr)."""
    return finish(start(script, *words, **environment))


def bash(program: str, *words: object) -> list[str]:
    """The command of a stub program in bash; `words` are its $1, $2, …"""
    return ["--", "bash", "-c", program, "stub", *map(str, words)]


def eventually(condition: Callable[[], object], seconds: float = 20) -> bool:
    """Says whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def alive(pid: int) -> bool:
    """Says whether a process is there and is no zombie."""
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in "ZX"


def numbers(folder: pathlib.Path) -> list[int]:
    """The process ids that stubs have written into a folder, one a file."""
    texts = [path.read_text() for path in sorted(folder.glob("pid*"))]
    return [int(text) for text in texts if text.endswith("\n")]
