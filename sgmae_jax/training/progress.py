"""Turns the metrics of steps into log lines, and keeps the host near the device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from sgmae_jax.analysis.flops import model_flops_utilisation
from sgmae_jax.processes import summed
from sgmae_jax.training.console import Console, Stopwatch, clock
from sgmae_jax.training.guard import SkipBudget

# Above this share of the time spent waiting for data, the log says so.
_INPUT_BOUND = 0.2


class Progress:
    """Collects metrics of steps on the device and writes them window by window.

    A window ends at every `log.every`-th step and at every checkpoint, so that a run
    resumed from a checkpoint writes the same windows as one that never stopped.
    """

    def __init__(
        self,
        config,
        run,
        domain,
        method,
        mesh,
        loaders,
        writer,
        console: Console,
        budget,
    ):
        self._config, self._run, self._method, self._mesh = config, run, method, mesh
        self._unit, self._short = domain.UNIT, domain.SHORT
        self._loaders, self._writer, self._console = loaders, writer, console
        self._budget: SkipBudget = budget
        self._pending: list[tuple[int, Any, Any]] = []
        self._waited = 0.0
        self._profiling = False
        self._named: set[str] = set()  # bad items the console has told of

    def begin(self, step: int) -> None:
        """Starts the clock."""
        self._watch = Stopwatch(
            start_step=step,
            total_steps=self._run.total_steps,
            batch_size=self._config.data.batch_size,
        )

    def add(self, step: int, metrics, rows: Mapping[str, Any], *, ahead: int) -> None:
        """Takes the metrics of a step; waits if the device is `ahead` steps behind."""
        origin = {
            name: {"ids": part["id"], "epochs": part["epoch"]}
            for name, part in rows.items()
        }
        self._pending.append((step, metrics, origin))
        if len(self._pending) > ahead:
            jax.block_until_ready(self._pending[-1 - ahead][1])

    def flush(self, step: int, phase) -> None:
        """Writes the window that ends at `step`.

        Raises:
            NonFiniteError: too many void steps.
        """
        if not self._pending:
            return
        metrics = jax.device_get([metrics for _, metrics, _ in self._pending])
        origins = [(number, origin) for number, _, origin in self._pending]
        self._pending.clear()
        void = [bool(one["skipped"] or one.get("spiked", 0)) for one in metrics]
        good = [one for one, bad in zip(metrics, void, strict=True) if not bad]
        # In float64 and in order of steps: the same numbers whoever adds them up.
        # Phases differ in what they measure; an update that rested has measured NaN.
        found: dict[str, list[np.float64]] = {}
        for one in good or metrics:
            for name, value in one.items():
                if name not in ("skipped", "spiked") and not (good and np.isnan(value)):
                    found.setdefault(name, []).append(np.float64(value))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        loss = means.get("loss", np.nan)
        rate, left = self._watch.lap(step)
        waited = sum(loader.wait_seconds for loader in self._loaders.values())
        share = (waited - self._waited) * rate / self._config.data.batch_size
        share /= max(len(metrics), 1)
        self._waited = waited
        values = {
            "epoch": step / self._run.steps_per_epoch,
            **means,
            **{
                name: float(sum(int(one[name]) for one in metrics))
                for name in ("skipped", "spiked")
                if name in metrics[0]
            },
            f"bad_{self._unit}s": float(self._bad()),
            f"{self._unit}s_per_second": rate,
            "input_wait": share,
        }
        flops = self._method.flops(phase)
        mfu = flops and model_flops_utilisation(
            rate, flops, self._mesh.devices.flat[0].device_kind, self._mesh.size
        )
        if mfu is not None:
            values["mfu"] = mfu
        self._writer.write(step, values)
        self._console.progress(
            f"step {step}/{self._run.total_steps} · epoch {values['epoch']:.2f} · "
            f"loss {loss:.4f} · {rate:.0f} {self._short}/s · ETA {clock(left)}"
            + (f" · MFU {mfu:.0%}" if mfu is not None else "")
            + (f" · {sum(void)} skipped" if any(void) else "")
            + (f" · input-bound ({share:.0%})" if share > _INPUT_BOUND else "")
        )
        for name, text in self._method.alarms.items():
            if means.get(name):
                self._console.say(f"step {step}: {text} ({name} {means[name]:.3g})")
        for loader in self._loaders.values():
            for bad in loader.bad.names:
                if bad not in self._named:
                    self._named.add(bad)
                    self._console.warn(f"bad {self._unit}, replaced: {bad}")
        for (number, origin), one, bad in zip(origins, metrics, void, strict=True):
            if bad:
                self._capture(number, origin, one)

    def aside(self) -> AbstractContextManager[None]:
        """Leaves what happens inside (scores, pictures) out of the throughput."""
        return self._watch.aside()

    def profile(self, step: int) -> None:
        """Starts and ends the profiler around its window of steps."""
        window = self._config.profile
        if window.start and step == window.start and self._writer.folder is not None:
            jax.profiler.start_trace(str(self._writer.folder / "profile"))
            self._profiling = True
        if step == window.start + window.steps:
            self.end_profile()

    def end_profile(self) -> None:
        """Writes the profile, if one is being taken."""
        if self._profiling:
            jax.profiler.stop_trace()
            self._profiling = False
            self._console.say("profile written")

    def _bad(self) -> int:
        """Bad items that all processes have met; too many end the run on each."""
        counts = [summed(loader.bad.count) for loader in self._loaders.values()]
        for loader, count in zip(self._loaders.values(), counts, strict=True):
            loader.check_share(count)
        return sum(counts)

    def _capture(self, step: int, origin, metrics) -> None:
        what = "loss or gradient not finite" if metrics["skipped"] else "a spike"
        self._console.say(f"step {step}: {what}, step skipped")
        self._budget.void(
            step,
            {
                "seed": self._config.seed,
                "batches": {
                    name: {key: rows.tolist() for key, rows in part.items()}
                    for name, part in origin.items()
                },
                "metrics": {name: repr(float(v)) for name, v in metrics.items()},
            },
        )
