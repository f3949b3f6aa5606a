"""Jobs of several processes on this machine."""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.tiny import environment

LAUNCH = pathlib.Path(__file__).parents[1] / "launch"


def start(
    processes: int,
    devices: int,
    words: Sequence[object],
    *,
    module: str = "sgmae_jax.main",
    own: Sequence[Sequence[str]] = (),
    **variables: str,
) -> list[subprocess.Popen]:
    """Starts the processes of a job, each with so many devices.

    Args:
        processes: how many, at least two.
        devices: CPU devices of each.
        words: of the command line.
        module: what is run.
        own: further words of each process.
        variables: of the environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for index in range(processes):
        given = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(index),
        }
        more = own[index] if own else ()
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *map(str, words), *more],
                env=environment(devices)
                | given
                | {"JAX_COMPILATION_CACHE_DIR": _cache(index)}
                | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def finish(job: Sequence[subprocess.Popen], seconds: float = 300) -> list[tuple]:
    """(exit code, output) of every process; none is left behind."""
    end = time.monotonic() + seconds
    try:
        found = []
        for one in job:
            output, _ = one.communicate(timeout=max(end - time.monotonic(), 1))
            found.append((one.returncode, output))
        return found
    finally:
        for one in job:
            if one.poll() is None:
                one.kill()
                one.wait()


def run(
    processes: int,
    devices: int,
    words: Sequence[object],
    *,
    module: str = "sgmae_jax.main",
    **variables: str,
) -> str:
    """Runs a job by launch/local_multiprocess.sh, to a good end; its output."""
    apart = 'export JAX_COMPILATION_CACHE_DIR=$0$JAX_PROCESS_ID; exec "$@"'
    done = subprocess.run(
        [
            *(LAUNCH / "local_multiprocess.sh", str(processes)),
            *("--devices", str(devices), "--"),
            *("bash", "-c", apart, _cache("")),
            *(sys.executable, "-m", module, *map(str, words)),
        ],
        env=environment() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _cache(index: object) -> str:
    """A folder of compiled programs is for one process."""
    mine = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ".pytest_cache"))
    return str(mine.with_name(f"{mine.name}_{index}"))
