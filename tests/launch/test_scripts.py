"""All launch scripts: sound by shellcheck, executable, explained at their head."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.launch.scripts import LAUNCH

SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))
NAMES = [path.name for path in SCRIPTS]
SHELLCHECK = pathlib.Path(sys.executable).parent / "shellcheck"


def test_the_scripts_are_found():
    assert NAMES == [
        *("local_multiprocess.sh", "preempt_loop.sh", "slurm.sbatch", "tpu_vm.sh")
    ]


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_shellcheck_finds_nothing(path):
    done = subprocess.run([SHELLCHECK, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_bash_can_read_it(path):
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", SCRIPTS, ids=NAMES)
def test_it_can_be_called_and_says_how(path):
    assert os.access(path, os.X_OK)
    head = path.read_text().split("set -u")[0].splitlines()
    assert head[0] in ("#!/bin/bash", "#!/usr/bin/env bash")
    assert all(line.startswith("#") or not line for line in head)
    assert any(f"launch/{path.name}" in line for line in head)


@pytest.mark.parametrize("path", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_the_page_has_a_section_of_it(path):
    page = (LAUNCH.parent / "docs" / "launch.md").read_text()
    assert f"launch/{path.name}" in page
