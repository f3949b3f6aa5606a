"""Writers, budget, run directory and console: what the host side of a run does."""

import io
import json
import subprocess
import sys
import time

import pytest

from sgmae_jax.config import ConfigError, default_config
from sgmae_jax.training.console import Console, Stopwatch, clock
from sgmae_jax.training.guard import NonFiniteError, SkipBudget
from sgmae_jax.training.workdir import open_workdir, public_config, write_json
from sgmae_jax.training.writers import MetricWriter


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_resuming_drops_later_lines_and_half_lines(tmp_path):
    first = MetricWriter(tmp_path, start_step=0, tensorboard=False)
    for step in (1, 2, 3):
        first.write(step, {"loss": step / 3})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    again = MetricWriter(tmp_path, start_step=2, tensorboard=False)
    again.write(3, {"loss": 9.0})
    again.close()
    assert [(one["step"], one["loss"]) for one in lines(tmp_path)] == [
        (1, 1 / 3),
        (2, 2 / 3),
        (3, 9.0),
    ]


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    writer = MetricWriter(tmp_path, start_step=0, tensorboard=True)
    writer.write(1, {"loss": float("nan"), "lr": float("inf"), "epoch": 0.5})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "loss": None, "lr": None, "epoch": 0.5}]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.fault(13)
def test_events_are_written_without_importing_pytorch(tmp_path):
    """An installed one would add seconds to every start, and is there afterwards."""
    (tmp_path / "torch.py").write_text("print('imported')\n")
    code = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from sgmae_jax.training.writers import MetricWriter
writer = MetricWriter(pathlib.Path(sys.argv[1]), start_step=0, tensorboard=True)
writer.write(1, {"loss": 0.5})
writer.close()
print("torch" in sys.modules)
import torch
"""
    words = [sys.executable, "-c", code, str(tmp_path)]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "imported"]
    assert list(tmp_path.glob("tensorboard/events.*"))


def test_the_budget_counts_in_a_window_and_keeps_a_capture(tmp_path):
    budget = SkipBudget(budget=2, window=10, folder=tmp_path)
    for step in (1, 5, 12, 20):  # never three within ten steps
        budget.void(step, {"seed": 0})
    with pytest.raises(NonFiniteError, match="3 of the last 10") as caught:
        budget.void(21, {"seed": 0, "batches": {"train": {"ids": [3]}}})
    assert caught.value.exit_code == 4
    kept = json.loads((tmp_path / "nan_capture" / "step_21.json").read_text())
    assert kept["batches"]["train"]["ids"] == [3] and kept["step"] == 21


@pytest.mark.fault(20)
def test_a_second_run_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path):
    folder = tmp_path / "run"
    hold = (
        "import sys, time\n"
        "import pathlib\nfrom sgmae_jax.training.workdir import open_workdir\n"
        f"kept = open_workdir(pathlib.Path({str(folder)!r}))\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match=f"in use by process {holder.pid}"):
        open_workdir(folder)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    lock = open_workdir(folder)
    lock.close()


@pytest.mark.fault(8)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        open_workdir(tmp_path / "file" / "run")


def test_the_public_config_holds_no_directories():
    config = default_config()
    config.data.path = "/home/somebody/secret/cifar10.zip"
    values = public_config(config)
    assert values["data.path"] == "cifar10.zip"
    assert "somebody" not in json.dumps(values)


def test_json_is_replaced_whole(tmp_path):
    write_json(tmp_path / "scores.json", {"a": 1})
    write_json(tmp_path / "scores.json", {"a": 2})
    assert json.loads((tmp_path / "scores.json").read_text()) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_live_line_in_a_terminal():
    screen = Terminal()
    console = Console(screen)
    console.progress("step 1")
    console.progress("step 2")
    console.say("note")
    console.close()
    text = screen.getvalue()
    assert text.count("\n") == 2 and text.count("\r") == 2
    assert text.endswith("note\n")


def test_progress_is_plain_lines_elsewhere():
    file = io.StringIO()
    console = Console(file)
    console.progress("step 1")
    console.progress("step 2")
    assert file.getvalue() == "step 1\nstep 2\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "0:05"), (65, "1:05"), (3600, "1:00:00"), (7384, "2:03:04")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_what_is_done_aside_is_not_training_time():
    watch = Stopwatch(start_step=0, total_steps=100, batch_size=10)
    with watch.aside():
        time.sleep(0.3)
    time.sleep(0.05)
    rate, left = watch.lap(5)
    assert 50 / 0.2 < rate < 50 / 0.05
    assert left == pytest.approx(95 / (rate / 10))
