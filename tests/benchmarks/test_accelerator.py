"""The script that measures accelerators: its tables, its plan, a whole small run."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks.accelerator_lines import attempt, fastest, read, table
from benchmarks.accelerator_plan import FULL, SMALL
from sgmae_jax.analysis.flops import peak_flops

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmarks" / "accelerator.sh"
SHELLCHECK = pathlib.Path(sys.executable).parent / "shellcheck"


def _program(name, rate, **more):
    return {
        "program": name,
        "size": "ViT-B/16",
        "batch": 256,
        "images_per_second": rate,
        "gflop_per_image": 58.7,
        "tflops": rate * 58.7 / 1e3,
        "mfu": rate * 58.7e9 / 989e12,
        "ms": 256e3 / rate,
        "quartiles_ms": [255e3 / rate, 257e3 / rate],
        **more,
    }


LINES = [
    {"part": "environment", "limit_s": 25},
    {
        "run": "full",
        "device": "NVIDIA H200",
        "devices": 1,
        "cores": 16,
        "sheet_tflops": 989.0,
        "versions": {"jax": "0.10.2", "torch": "2.14.1"},
    },
    {"matmul": "bfloat16", "tflops": 800.0, "ms": 1.0, "quartiles_ms": [1.0, 1.0]},
    {"part": "environment", "ended": 0, "seconds": 9},
    _program("ours, bfloat16, remat dots, matmul", 5000.0, compile_s=21.5),
    _program(
        "ours, bfloat16, remat none, matmul",
        6740.0,
        planned_bytes=3 * 2**30,
        peak_bytes=2**31,
    ),
    _program("ours, float32, remat none, matmul", 2500.0),
    _program("ours, bfloat16, remat full, matmul", 9000.0) | {"batch": 64},
    _program("authors, bfloat16, eager", 9999.0),
    {
        "ratio": "ours / theirs",
        "median": 0.91,
        "quartiles": [0.9, 0.92],
        "target": 1.0,
        "size": "ViT-B/16",
        "batch": 256,
    },
    {
        "attention": "xla",
        "tokens": 785,
        "heads": 12,
        "head_width": 64,
        "batch": 64,
        "ms": 2.5,
        "quartiles_ms": [2.4, 2.6],
    },
    {"attention": "cudnn", "tokens": 785, "failed": "RuntimeError: no cuDNN"},
    {
        "loader": "in memory",
        "threads": 16,
        "batch": 256,
        "images_per_second": 12345,
        "ms": 20.0,
        "quartiles_ms": [19.0, 21.0],
    },
    {"part": "outer", "ended": 124, "seconds": 15},
]


def test_the_table_has_what_the_lines_have(tmp_path):
    file = tmp_path / "lines.jsonl"
    text = "\n".join(json.dumps(line) for line in LINES)
    file.write_text(text + '\n{"program": "cut o')
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accelerator", "--table", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout
    assert "1 x NVIDIA H200, 16 cores; jax 0.10.2, torch 2.14.1." in found
    assert "989 TFLOP/s" in found and "800 in bfloat16" in found
    # 6740 images of 58.7 GFLOP are 395.6 TFLOP/s: 40.0 % of 989, 49.5 % of 800.
    assert (
        "| ViT-B/16 | 256 | ours, bfloat16, remat none, matmul | 6,740 | 37.98 "
        "| 37.83 – 38.13 | 395.6 | 40.0% | 49.5% | 3.00 | 2.00 | – |"
    ) in found
    # The peak on the data sheet is that of bfloat16.
    assert "| ours, float32, remat none, matmul | 2,500 | 102.4 " in found
    assert "| 146.8 | – | – |" in found
    assert "| ours / theirs | ViT-B/16, batch 256 | 0.91 | 0.9 – 0.92 | 1.0 |" in found
    assert "| xla | 785 | 12 x 64 | 64 | 2.5 | 2.4 – 2.6 |" in found
    assert "| in memory | 16 | 12,345 | 20 | 19 – 21 |" in found
    assert "* cudnn, 785: RuntimeError: no cuDNN" in found
    assert "* outer, what is not above: out of time after 15 s" in found
    for lines in found.split("\n\n"):
        rows = [one for one in lines.splitlines() if one.startswith("|")]
        assert len({one.count("|") for one in rows}) <= 1


def test_a_run_that_was_cut_off_at_once_has_a_table(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_text('{"part": "environment", "limit_s": 25}\n')
    assert table(read(file)) == "No line says what this ran on."


def test_the_fastest_of_ours_in_the_first_case():
    assert fastest(LINES) == "ours, bfloat16, remat none, matmul"
    assert fastest(LINES[:4]) is None


def test_a_program_that_fails_is_a_line(capsys):
    assert attempt({"program": "good"}, lambda: 7) == 7
    assert attempt({"program": "bad"}, lambda: 1 // 0) is None
    line = json.loads(capsys.readouterr().out)
    assert line["program"] == "bad" and line["failed"].startswith("ZeroDivisionError")


@pytest.mark.parametrize(
    ("kind", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA B200", 2250),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
    ],
)
def test_the_peak_is_known(kind, tera):
    assert peak_flops(kind) == tera * 1e12


def test_what_was_asked_for_is_in_the_plan():
    cases = [FULL.main, *FULL.others]
    for name in ("ViT-S/16", "ViT-B/16", "ViT-L/16"):
        same = [case for case in cases if case.name == name]
        assert len({case.batch for case in same}) > 1
        assert any(case.compiled or case is FULL.main for case in same)
    assert {tokens for _, tokens, _, _ in FULL.attention} == {50, 197, 785}
    assert FULL.main.sizes.ratio == 0.75 and FULL.main.sizes.image == 224
    assert FULL.graphs == (64, 256)


@pytest.mark.parametrize("plan", [FULL, SMALL], ids=["full", "small"])
def test_the_solvers_are_there(plan):
    from benchmarks.hypergradient import SOLVERS

    assert set(plan.solvers) <= set(SOLVERS)


def test_shellcheck_finds_nothing():
    done = subprocess.run([SHELLCHECK, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _run(*words, out, **environment):
    return subprocess.run(
        [SCRIPT, *words],
        env={**os.environ, "PYTHON": sys.executable, "OUT": str(out), **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--large"], "--large is no option"),
        (["--parts"], "--parts must be followed by names"),
        (["--parts", "step nothing"], "nothing is no part"),
    ],
)
def test_wrong_usage(words, said, tmp_path):
    done = _run(*words, out=tmp_path / "out")
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


def test_the_last_second_is_before_the_ninth_minute():
    entries = SCRIPT.read_text().split("schedule=(")[1].split(")")[0].split()
    ends = [int(entry.split(":")[1]) for entry in entries]
    assert ends == sorted(ends) and ends[-1] < 540
    from benchmarks.accelerator import PARTS

    assert [entry.split(":")[0] for entry in entries] == list(PARTS)


def test_a_part_runs_and_is_in_the_table(tmp_path):
    done = _run("--parts", "environment", out=tmp_path, DEVICE="cpu")
    assert done.returncode == 0, done.stderr
    lines = read(tmp_path / "accelerator.jsonl")
    assert [line["part"] for line in lines if "part" in line] == 2 * ["environment"]
    assert lines[-1]["ended"] == 0
    assert {line["matmul"] for line in lines if "matmul" in line} == {
        *("bfloat16", "float32")
    }
    assert "the device is not measured" in (tmp_path / "accelerator.md").read_text()


@pytest.mark.slow
def test_a_small_run_reaches_its_end(tmp_path):
    done = _run("--small", out=tmp_path, DEVICE="cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = read(tmp_path / "accelerator.jsonl")
    assert [line["ended"] for line in lines if "ended" in line] == 10 * [0]
    ratios = " ".join(line["ratio"] for line in lines if "ratio" in line)
    for word in ("guided step", "Lanczos", "hypergradient", "MLO-MAE"):
        assert word in ratios
    for key in ("program", "attention", "loader"):
        assert any("ms" in line for line in lines if key in line)
