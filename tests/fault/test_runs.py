"""What a whole run does about damage and about a disk that refuses."""

import ctypes
import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import time

import pytest

from sgmae_jax.main import main
from tests.tiny import arguments, environment, losses

_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 24, 1, 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of twelve steps with all its checkpoints."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    words = arguments(folder, steps=12, checkpoint__keep=9, eval__limit=1)
    assert main(words) == 0
    return folder


@pytest.mark.fault(3)
@pytest.mark.fault(5)
@pytest.mark.fault(6)
def test_a_run_passes_over_every_kind_of_harm(finished, tmp_path, capsys):
    """Four damaged steps and strange names, and the curve is the same."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    place = folder / "checkpoints"
    assert len(list(place.iterdir())) == 6
    manifest = place / "12" / "state" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])
    (place / "10" / "state" / "_METADATA").unlink()
    linked = place / "8" / "meta" / "metadata"
    linked.rename(tmp_path / "outside")
    linked.symlink_to(tmp_path / "outside")
    shutil.rmtree(place / "6")
    (place / "6").mkdir()
    (place / "latest").write_text("99")
    (place / "14.partial").mkdir()
    capsys.readouterr()
    words = arguments(folder, steps=12, checkpoint__keep=9, eval__limit=1)
    assert main(words) == 0
    output = capsys.readouterr().out
    assert "resuming at step 4" in output
    for step, name in (
        (12, "state/manifest.ocdbt"),
        (10, "state/_METADATA"),
        (8, "meta/metadata"),
        (6, "digest.json"),
    ):
        assert re.search(rf"checkpoint {step}: file {name}: .*as {step}\.bad", output)
    assert losses(folder) == losses(finished)


@pytest.mark.fault(9)
def test_another_schema_of_the_program_is_refused(
    finished, tmp_path, capsys, monkeypatch
):
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setattr("sgmae_jax.training.loop.SCHEMA_VERSION", 2)
    assert main(arguments(tmp_path / "run", steps=12)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "schema version 1, not 2" in error


@pytest.mark.fault(10)
@pytest.mark.parametrize(
    "body",
    [
        "return random_mask(keys, context, ratio=ratio / 2)",
        "return random_mask(keys, context, ratio=ratio).hidden",
        "raise KeyError('x')",
    ],
)
def test_a_mask_function_that_is_wrong(body, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_masks.py").write_text(
        "from sgmae_jax.masking import random_mask\n"
        f"def mask(keys, context, *, ratio):\n    {body}\n"
        "def other(image):\n    return image\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_masks", None)
    for name in ("mask", "other"):
        assert main(arguments(tmp_path / "run", mask__fn=f"my_masks:{name}")) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and f"my_masks:{name}" in error


@pytest.mark.fault(10)
def test_a_batch_that_the_devices_do_not_divide(tmp_path, capsys):
    assert main(arguments(tmp_path / "run", data__batch_size=7)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "config.data.batch_size = 7: must be a multiple of devices" in error


def bound_by_modes():
    """Makes permissions hold for a child of root as well."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        for capability in (_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
            library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def start(folder, **changes):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "sgmae_jax.main", *arguments(folder, **changes)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bound_by_modes,
    )


@pytest.mark.fault(8)
def test_a_directory_without_permission_is_exit_code_2(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o550)
    child = start(folder / "run")
    _, error = child.communicate(timeout=120)
    if child.returncode == 0:
        pytest.skip("permissions do not bind this user")
    assert child.returncode == 2 and error.count("\n") == 1
    assert "cannot be written (Permission denied)" in error


def until(child, words, output, limit=180):
    """Reads a child's lines up to one with these words."""
    end = time.monotonic() + limit
    for line in child.stdout:
        output.append(line)
        if words in line:
            return
        assert time.monotonic() < end
    raise AssertionError((words, output, child.stderr.read()))


def hinder(child, folder, how):
    """The disk refuses from now on; returns what ends that."""
    place = folder / "checkpoints"
    if how == "closed":
        os.chmod(place, 0o550)
        return lambda: os.chmod(place, 0o770)
    soft, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (30_000, hard))
    return lambda: resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (soft, hard))


# A class apart: files that cannot grow are as near to a full disk as tests may come.
@pytest.mark.parametrize(
    ("how", "words"),
    [
        pytest.param("full", "file too large", marks=pytest.mark.fault(7)),
        pytest.param(
            "closed",
            "permission denied",
            marks=(pytest.mark.fault(8), pytest.mark.slow),
        ),
    ],
)
def test_a_disk_that_refuses_midway_costs_checkpoints_and_no_step(how, words, tmp_path):
    changes = {"steps": 400, "eval__limit": 1, "checkpoint__max_failures": 1000}
    changes |= {"log__every": 10, "checkpoint__every": 5}
    folder, output = tmp_path / "run", []
    child = start(folder, **changes)
    try:
        until(child, "step 20/", output)
        release = hinder(child, folder, how)
        until(child, "not saved", output)
        kept = [p for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]
        assert kept
        until(child, "the run goes on", output)
        release()
        rest, error = child.communicate(timeout=240)
    finally:
        child.kill()
    assert child.returncode == 0, error
    lost = [line for line in output + rest.splitlines() if "not saved" in line]
    assert words in lost[0] and "failed save 1 of 1000 in a row" in lost[0]
    assert sorted(losses(folder)) == list(range(5, 401, 5))
    assert (folder / "checkpoints" / "400").is_dir()


@pytest.mark.slow
@pytest.mark.fault(7)
def test_a_disk_that_never_recovers_is_exit_code_5(tmp_path):
    folder, output = tmp_path / "run", []
    changes = {"steps": 4000, "checkpoint__max_failures": 2, "checkpoint__every": 5}
    child = start(folder, log__every=10, **changes)
    try:
        until(child, "step 20/", output)
        hinder(child, folder, "full")
        _, error = child.communicate(timeout=240)
    finally:
        child.kill()
    assert child.returncode == 5, error
    assert error.count("\n") == 1
    assert "failed save 2 of 2 in a row" in error


@pytest.mark.fault(7)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_below_metrics_or_report_is_one_line(
    number, tmp_path, monkeypatch, capsys
):
    def full(self, step, values):
        raise OSError(number, os.strerror(number), "metrics.jsonl")

    monkeypatch.setattr("sgmae_jax.training.writers.MetricWriter.write", full)
    assert main(arguments(tmp_path / "run")) == 5
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "metrics.jsonl" in error
