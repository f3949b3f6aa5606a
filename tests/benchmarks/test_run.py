"""The table of all ratios, from lines as the benchmarks print them."""

import json

import pytest

from benchmarks import run
from benchmarks.measure import report


@pytest.mark.parametrize(
    ("seconds", "target", "met"),
    [
        (1.0, 1.0, True),
        (1.1, 1.0, False),
        (1.1, (0.9, 1.2), True),
        (0.8, (0.9, 1.2), False),
        (5.0, None, None),
    ],
)
def test_a_line_says_whether_its_target_is_met(capsys, seconds, target, met):
    line = report("a / b", [seconds] * 5, [1.0] * 5, row=3, target=target)
    assert line["met"] is met and line["median"] == pytest.approx(seconds)
    assert json.loads(capsys.readouterr().out)["row"] == 3


def test_every_row_of_the_table_is_there_and_in_order(capsys):
    sizes = {"image": 32, "width": 96, "depth": 4}
    slow = report(
        "ours / theirs",
        [2.0, 2.0, 2.0, 3.0, 3.0],
        [1.0] * 5,
        row=3,
        target=1.0,
        flop_ratio=1.5,
        sizes=sizes,
        batch=64,
    )
    bounds = report("c / d", [1.0] * 5, [1.0] * 5, row=10, target=(0.9, 1.1))
    here, there = ({"cores": cores, "processor": "A"} for cores in (2, 4))
    parts = {
        "late": {"lines": [bounds], "environment": here},
        "early": {"lines": [slow, {"trace": "x"}], "environment": there},
    }
    capsys.readouterr()
    text = run.table(json.loads(json.dumps(parts)))
    *rows, empty, machines = text.splitlines()[2:]
    assert len(rows) == len(run.ROWS) and not empty
    assert machines == "1: 2 cores of A; 2: 4 cores of A."
    assert rows[2] == (
        "| 3 | ours / theirs | 32 px, 96x4, batch 64 | 2.00 | 2.00 – 3.00 "
        "| 1.50 | 1.00 | **no** | 2 |"
    )
    assert rows[9] == (
        "| 10 | c / d |  | 1.00 | 1.00 – 1.00 |  | 0.90 to 1.10 | yes | 1 |"
    )
    assert all("not measured" in row for row in rows[3:9])


def test_a_benchmark_runs_in_a_process_and_what_it_skips_is_kept(
    monkeypatch, capfd, tmp_path
):
    monkeypatch.setitem(run.PARTS, "none", "no_such_benchmark")
    found = run.measure("none")
    assert found["exit"] == 1 and found["lines"] == [] == found["skipped"]
    assert "No module named" in capfd.readouterr().err
    assert {"date", "processor", "cores", "packages"} <= found["environment"].keys()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "model\t: 6\nmodel name\t: A 1\nflags\t: fpu avx2\n\nmodel name: B",
            "A 1, AVX2",
        ),
        (
            "model name\t: A\nflags\t: avx2 avx512f avx512_bf16",
            "A, AVX-512 with bfloat16",
        ),
        ("model name\t: A\nflags\t: amx_bf16 avx2 avx512_bf16", "A, AMX"),
        ("model name\t: A\nflags\t: sse", "A"),
    ],
)
def test_a_processor_is_known_by_its_name_and_what_it_can_multiply(
    monkeypatch, tmp_path, text, named
):
    monkeypatch.setattr(run, "CPUINFO", tmp_path / "cpuinfo")
    run.CPUINFO.write_text(text)
    assert run.environment()["processor"] == named
