"""The processes of one job: how they find each other, and what they must agree on.

Nearly everything a process does, all do at the same time: a call below that talks to
the others must be made by every process, in the same order.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

_PACKAGE = pathlib.Path(__file__).parent
_SHOWN = 5


class ProcessError(RuntimeError):
    """Another process of the job has failed, or was never there."""

    exit_code = 6

    def __init__(self, message: str, exit_code: int = 6):
        super().__init__(message)
        self.exit_code = exit_code


class Disagreement(ValueError):
    """The processes of a job were not started with the same things."""

    exit_code = 2


def start(wished) -> None:
    """Joins the processes of the job, or stays alone where there are no others.

    The coordinator's address, the number of processes and which one this is come from
    the config, else from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID,
    else from what JAX finds of Cloud TPU, Slurm, Open MPI or Kubernetes. No device may
    have been touched yet; where one has, nothing is looked for.

    Args:
        wished: the config's `distributed` section.

    Raises:
        Disagreement: some of the three are given and others are not.
        ProcessError: the others cannot be reached. Where they do not come in time, the
            process ends with its exit code.
    """
    if wished.cluster == "none" or jax.distributed.is_initialized():
        return
    given = (
        wished.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS"),
        _number(wished.processes, "JAX_NUM_PROCESSES"),
        _number(wished.process, "JAX_PROCESS_ID"),
    )
    named = None if wished.cluster == "auto" else wished.cluster
    if None not in given:
        named = "deactivate"  # JAX would still look for the rest in the environment
    if named is None and any(one is not None for one in given) and None in given:
        raise Disagreement(
            "config.distributed: coordinator, processes and process (or "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID) must be given "
            f"together; they are {', '.join(map(str, given))}"
        )
    # The loop has its own handler of SIGTERM, which asks all processes (see `Vote`).
    jax.config.update("jax_enable_preemption_service", False)
    # JAX aborts the process when time is up; ours is up before, and says so.
    alarm = threading.Timer(wished.timeout, _give_up, (wished.timeout,))
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=named,
            initialization_timeout=wished.timeout + 60,
            heartbeat_timeout_seconds=wished.heartbeat,
        )
    except ValueError as error:
        if None not in given:
            raise Disagreement(f"config.distributed: {error}") from None
        if named is not None:
            raise Disagreement(
                f"config.distributed.cluster = {named!r}: must be where this runs; "
                f"{error}"
            ) from None
        # Nothing in the environment speaks of other processes.
    except RuntimeError as error:
        if named is None and "before any JAX calls" in str(error):
            return  # part of a program that has begun without others
        reason = (str(error).splitlines() or [""])[0]
        raise ProcessError(f"the processes of the job cannot meet: {reason}") from None
    finally:
        alarm.cancel()


def _give_up(seconds: int) -> None:
    print(
        f"error: the processes of the job did not meet within {seconds} s; a process "
        "that is alone needs distributed.cluster = 'none'",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ProcessError.exit_code)


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def on_first(action: Callable[[], int | None]) -> int:
    """Runs an action on process 0 alone and gives its result to every process.

    Args:
        action: returns a number of 32 bits, or None for 0. Its exception is raised
            on process 0, and a `ProcessError` with the same exit code elsewhere:
            nobody waits for ever.

    Returns:
        The result, the same everywhere.
    """
    if jax.process_count() == 1:
        return action() or 0
    result, error = 0, None
    if is_first():
        try:
            result = action() or 0
        except Exception as caught:
            error = caught
    code = 0 if error is None else getattr(error, "exit_code", 1)
    shared = np.array([result, code], np.int32)
    result, code = map(int, multihost_utils.broadcast_one_to_all(shared))
    if code:
        raise error or ProcessError("process 0 has stopped with an error", code)
    return result


def everywhere(flag: bool) -> bool:
    """Says whether a flag is set on every process.

    Args:
        flag: the flag of this process.

    Returns:
        The same on every process.
    """
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.bool_(flag)).all())


def summed(number: int) -> int:
    """The sum of a number over all processes, below 2**31."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).sum())


def of_first(values: Mapping[str, float]) -> dict[str, float]:
    """The values of process 0, on every process; all must have the same names."""
    if jax.process_count() == 1:
        return dict(values)
    # As bits: float64 does not survive the way through a device.
    bits = np.array(list(values.values()), np.float64).view(np.int32)
    shared = multihost_utils.broadcast_one_to_all(bits)
    numbers = np.asarray(shared, np.int32).view(np.float64)
    return dict(zip(values, map(float, numbers), strict=True))


def fetch(tree: PyTree) -> PyTree:
    """Arrays as numpy, whole, on every process, wherever their parts lie."""

    def whole(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and not (
            leaf.is_fully_addressable or leaf.is_fully_replicated
        ):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(whole, tree)


def check_same(what: str, facts: Mapping[str, Any]) -> None:
    """Checks that all processes were started with the same facts.

    Args:
        what: the facts in a word, for the message.
        facts: by name; anything JSON can hold.

    Raises:
        Disagreement: on every process, with what differs from process 0.
    """
    if jax.process_count() == 1:
        return
    text = json.dumps(facts, sort_keys=True, default=str).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    told = [
        json.loads(row[:length].tobytes())
        for row, length in zip(rows, lengths.ravel(), strict=True)
    ]
    for index, found in enumerate(told):
        lines = [
            f"{name} = {found.get(name)!r}, not {told[0].get(name)!r}"
            for name in sorted(told[0].keys() | found.keys())
            if found.get(name) != told[0].get(name)
        ]
        if lines:
            more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            raise Disagreement(
                f"process {index} has another {what} than process 0: "
                f"{'; '.join(lines[:_SHOWN])}{more}"
            )


def code_digest() -> str:
    """A hash of the package's own files: that of the program that runs."""
    found = hashlib.blake2b(digest_size=8)
    for file in sorted(_PACKAGE.rglob("*.py")):
        found.update(file.relative_to(_PACKAGE).as_posix().encode())
        found.update(file.read_bytes())
    return found.hexdigest()


class Vote:
    """Whether any process wishes something, known to all after the same call.

    A vote is a collective that nobody waits for: its outcome is looked at some calls
    later, when the devices are done with it anyway.

    Args:
        late: calls of `cast` that lie between a vote and its outcome.
    """

    def __init__(self, late: int):
        self._late = late
        self._open: list[jax.Array] = []
        devices = np.array(jax.devices())
        mesh = jax.sharding.Mesh(devices, ("all",))
        spec = jax.sharding.PartitionSpec
        self._each = jax.sharding.NamedSharding(mesh, spec("all"))
        self._any = jax.jit(
            lambda flags: flags.any(),
            out_shardings=jax.sharding.NamedSharding(mesh, spec()),
        )

    def cast(self, wish: bool) -> bool:
        """Votes, and returns the outcome of an earlier vote: the same everywhere."""
        local = np.full(jax.local_device_count(), wish)
        flags = jax.make_array_from_process_local_data(self._each, local)
        self._open.append(self._any(flags))
        return len(self._open) > self._late and bool(self._open.pop(0))


def _number(value: int | None, variable: str) -> int | None:
    """A config's value, else that of an environment variable."""
    text = os.environ.get(variable)
    if value is not None or text is None:
        return value
    if not text.isdecimal():
        raise Disagreement(f"{variable} = {text!r}: must be a whole number")
    return int(text)
