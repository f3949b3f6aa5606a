"""What a run keeps of its start, and what the benchmark of starts reads."""

import os
import pathlib

import pytest

from benchmarks.start import COLD, FULL, RAMP, compilations, run, slowest_imports
from benchmarks.start_child import Phases, program_of
from tests import tiny

COMPILE = "/jax/core/compile/backend_compile_duration"


def test_programs_are_told_apart_by_their_names():
    names = ("jit(init_state)", "on_mesh", "jit(run)", "")
    assert [program_of(name) for name in names] == ["init", "step", "other", "other"]


def test_seconds_and_compilations_add_up():
    phases = Phases(0.0)
    phases.hear(COMPILE, 1.5, fun_name="jit(on_mesh)")
    phases.hear(COMPILE, 2.0, fun_name="jit(on_mesh)")
    phases.hear(COMPILE, 0.25, fun_name="jit(iota)")
    phases.hear("/jax/another", 9.0, fun_name="jit(on_mesh)")
    assert dict(phases.seconds) == {"step_compile": 3.5, "other_compile": 0.25}
    assert dict(phases.compiled) == {"step": 2, "other": 1}
    assert phases.others == ["jit(iota)"]
    phases.mark("first")
    before = dict(phases.at)
    phases.mark("first")
    assert phases.at == before


def test_the_slowest_imports_are_found():
    text = (
        "import time: self [us] | cumulative | imported package\n"
        "import time:      2000 |       2500 | jax\n"
        "import time:        10 |         10 |   small\n"
        "import time:      9000 |       9000 |     flax.linen\n"
    )
    assert slowest_imports(text, 2) == {"flax.linen": 9.0, "jax": 2.0}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """As a user starts the program: no folder for compiled programs is named."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
def test_compiled_programs_are_kept_and_torn_ones_do_no_harm(tmp_path, cache):
    code, output = tiny.run(tmp_path / "run", steps=2)
    assert code == 0, output
    whole = tiny.losses(tmp_path / "run")
    kept = [path for path in cache.glob("sgmae_jax/compiled/*") if path.is_file()]
    assert any("on_mesh" in path.name for path in kept)
    for path in kept:  # what a kill while writing leaves
        os.truncate(path, path.stat().st_size // 2)
    code, output = tiny.run(tmp_path / "again", steps=2)
    assert code == 0, output
    assert tiny.losses(tmp_path / "again") == whole


@pytest.mark.slow
def test_without_a_place_for_them_programs_are_compiled(tmp_path, cache):
    cache.write_text("a file where the folder should be")
    code, output = tiny.run(tmp_path / "run", steps=2)
    assert code == 0, output


@pytest.mark.slow
def test_a_moving_ratio_compiles_once_a_bucket():
    assert compilations(RAMP) == RAMP["mask.buckets"]


@pytest.mark.slow
def test_phases_of_a_start_come_in_order(tmp_path):
    fields = {name: RAMP[name] for name in RAMP if name in FULL}
    found = run(fields, tmp_path / "run", tmp_path / "cache", 1)
    times = list(found["at"].values())
    assert times == sorted(times) and found["at"]["first_step"] < 10 * COLD
    assert found["compiled"]["step"] == found["compiled"]["init"] == 1
