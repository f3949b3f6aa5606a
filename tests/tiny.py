"""The smallest run there is, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

TINY = {
    "epochs": "None",
    "steps": "8",
    "data.batch_size": "16",
    "data.image_size": "16",
    "data.in_memory": "False",
    "model.width": "24",
    "model.depth": "1",
    "model.heads": "2",
    "model.decoder_width": "16",
    "model.decoder_depth": "1",
    "model.decoder_heads": "2",
    "optim.warmup_epochs": "0.001",
    "checkpoint.every": "2",
    "log.every": "1",
    "log.pictures": "0",
    "log.tensorboard": "False",
    "eval.fit_limit": "40",
    "eval.limit": "20",
    "eval.batch_size": "32",
    "eval.baselines": "False",
}


def arguments(workdir: pathlib.Path, **changes: object) -> list[str]:
    """Command-line words for a tiny run; `data__path=x` means config.data.path."""
    fields = TINY | {
        name.replace("__", "."): str(value) for name, value in changes.items()
    }
    words = ["--config", "quickstart", "--workdir", str(workdir)]
    return words + [f"--config.{name}={value}" for name, value in fields.items()]


def environment(devices: int = 1) -> dict[str, str]:
    """The environment of a child with so many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def start(workdir: pathlib.Path, devices: int = 1, **changes) -> subprocess.Popen:
    """Starts a tiny run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "sgmae_jax.main", *arguments(workdir, **changes)],
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(workdir: pathlib.Path, devices: int = 1, **changes) -> tuple[int, str]:
    """Runs to the end; (exit code, output)."""
    child = start(workdir, devices, **changes)
    output, _ = child.communicate(timeout=300)
    return child.returncode, output


def losses(workdir: pathlib.Path) -> dict[int, float]:
    """step -> loss, exactly as written."""
    text = (workdir / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}
