"""Self-guided runs as a user starts them."""

import json

import pytest

from tests import tiny

SHORT = {
    "method__name": "self_guided",
    "data__split": "train[:320]",  # 20 steps an epoch
    "steps": 30,
    "checkpoint__every": 10,
    "method__begin_epoch": 0.5,
    "method__layer": 1,
}


def lines_with(workdir, name):
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[name] for row in rows if name in row}


@pytest.mark.slow
def test_guidance_and_exploitation_are_logged(tmp_path):
    code, output = tiny.run(tmp_path, method__monitor_epochs=0.5, **SHORT)
    assert code == 0, output
    guided = lines_with(tmp_path, "guidance/object")
    assert list(guided) == list(range(11, 31))
    assert list(lines_with(tmp_path, "exploitation/mask_raw")) == [0, 10, 20, 30]
    assert set(lines_with(tmp_path, "hints").values()) == {1}  # of 12 hidden
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_bank_is_filled_when_it_is_due(tmp_path):
    code, output = tiny.run(
        tmp_path, method__refresh="bank", method__refresh_epochs=1, **SHORT
    )
    assert code == 0, output
    passes = [line for line in output.splitlines() if "a pass over the 320" in line]
    assert [line.split(":")[0] for line in passes] == ["step 10", "step 30"][:1]
    assert set(lines_with(tmp_path, "guidance/known").values()) == {1.0}


def test_guidance_begins_by_itself_and_stays_begun(tmp_path):
    """In a tiny decoder the rates cross early; a resumed run must not forget."""
    changes = SHORT | {
        "method__begin_by": "exploitation",
        "method__begin_epoch": "None",
        "method__monitor_epochs": 0.05,
        "optim__base_lr": 0.05,
    }
    code, output = tiny.run(tmp_path, **changes)
    assert code == 0, output
    saved = sorted((tmp_path / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    meta = json.loads((saved[-1] / "meta" / "metadata").read_text())
    rates = lines_with(tmp_path, "exploitation/mask_raw")
    behind = [step for step, rate in rates.items() if rate <= 0.5]
    assert meta["marks"].get("behind") == (behind[0] if behind else None)
    passed = [s for s, rate in rates.items() if behind and s > behind[0] and rate > 0.5]
    assert meta["marks"].get("guidance") == (passed[0] if passed else None)
    guided = lines_with(tmp_path, "guidance/object")
    assert list(guided) == (list(range(passed[0] + 1, 31)) if passed else [])
    code, output = tiny.run(tmp_path, **changes | {"steps": 32})
    assert code == 0, output
    if passed:
        assert 32 in lines_with(tmp_path, "guidance/object")


@pytest.mark.parametrize("method", ["mae", "self_guided"])
def test_the_mask_alone_guides_a_plain_mae(method, tmp_path):
    """`mask.fn` may be the guided mask itself: features of the model, every step."""
    changes = SHORT | {
        "method__name": method,
        "mask__fn": "sgmae_jax.masking:guided_mask",
        "mask__options__layer": 1,
        "mask__options__side": "seed",
        "steps": 4,
    }
    if method == "mae":
        changes = {
            k: v for k, v in changes.items() if k[8:] not in ("begin_epoch", "layer")
        }
    code, output = tiny.run(tmp_path, **changes)
    assert code == 0, output
    assert len(tiny.losses(tmp_path)) == 4


@pytest.mark.slow
def test_data_without_a_held_out_split_watch_training_images(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(20):
        Image.new("RGB", (16, 16), (10 * number, 99, 0)).save(folder / f"{number}.png")
    changes = SHORT | {
        "data__source": "folder",
        "data__path": folder,
        "data__split": "train",
        "steps": 2,
    }
    code, output = tiny.run(tmp_path / "run", **changes)
    assert code == 0, output
    assert "training images are watched" in output
    assert 0 in lines_with(tmp_path / "run", "exploitation/mask_raw")
