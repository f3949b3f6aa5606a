"""One run of the program that notes when each phase of its start is over.

    python -m benchmarks.start_child BEGAN STEPS WORDS...

BEGAN: `time.time()` when the process was started. After STEPS steps the process ends at
once: what a run does at its end is not measured. The last line of its output is JSON.
"""

from __future__ import annotations

import collections
import json
import os
import sys
import time

_PARTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}
# What the two large programs of a start are called by JAX.
_PROGRAMS = {"init_state": "init", "on_mesh": "step"}


def program_of(name: str) -> str:
    """Which of "init", "step" and "other" a name of JAX's, as "jit(on_mesh)", means."""
    for part, program in _PROGRAMS.items():
        if part in name:
            return program
    return "other"


class Phases:
    """Seconds since the start of the process, and of what JAX compiles."""

    def __init__(self, began: float):
        self._began = began
        self.at: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self.compiled: dict[str, int] = collections.defaultdict(int)
        self.others: list[str] = []

    def mark(self, name: str) -> None:
        """Something is over for the first time."""
        if name not in self.at:
            self.at[name] = round(time.time() - self._began, 3)
            self.cpu[name] = round(time.process_time(), 3)

    def hear(self, event: str, seconds: float, **facts: object) -> None:
        """A listener of `jax.monitoring`."""
        if event not in _PARTS:
            return
        name = str(facts.get("fun_name", ""))
        program = program_of(name)
        self.seconds[f"{program}_{_PARTS[event]}"] += seconds
        if _PARTS[event] == "compile":
            self.compiled[program] += 1
            if program == "other":
                self.others.append(name)

    def line(self) -> str:
        """All of it as JSON."""
        seconds = {name: round(value, 3) for name, value in self.seconds.items()}
        return json.dumps(
            {
                "at": self.at,
                "cpu": self.cpu,
                "seconds": seconds,
                "compiled": self.compiled,
                "others": self.others,
            }
        )


def main() -> None:
    """Runs the program with its first step watched."""
    began, steps, words = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    phases = Phases(began)
    phases.mark("python")
    import jax
    import jax.monitoring

    phases.mark("import_jax")
    jax.monitoring.register_event_duration_secs_listener(phases.hear)
    import sgmae_jax.main
    from sgmae_jax.training import loop

    phases.mark("imports")
    make_step, make_mesh = loop.jitted_step, loop.make_mesh

    def watched_mesh(mesh_config):
        phases.mark("config")
        mesh = make_mesh(mesh_config)
        phases.mark("backend")
        return mesh

    def watched_step(*arguments, **options):
        phases.mark("state")
        step = make_step(*arguments, **options)

        left = iter(range(steps - 1, -1, -1))

        def call(*values):
            phases.mark("first_batch")
            result = step(*values)
            phases.mark("step_compiled")
            jax.block_until_ready(result)
            phases.mark("first_step")
            if next(left) == 0:
                print("\n" + phases.line(), flush=True)
                os._exit(0)
            return result

        # The loop may compile the step before it calls it.
        call.lower = step.lower
        return call

    loop.make_mesh, loop.jitted_step = watched_mesh, watched_step
    sys.exit(sgmae_jax.main.main(words) or 1)


if __name__ == "__main__":
    main()
