"""Kills and signals at random moments: the stitched run equals an unbroken one."""

import json
import random
import shutil
import signal
import time

import pytest
from etils import epath

from sgmae_jax.checkpointing.reading import check_step
from tests import tiny

STEPS = 40


def whole(tmp_path, steps=STEPS, **changes):
    code, output = tiny.run(tmp_path / "whole", steps=steps, eval__limit=1, **changes)
    assert code == 0, output
    return tiny.losses(tmp_path / "whole")


def interrupted(workdir, number, rng, sig, steps=STEPS, **changes):
    """Runs to the end under `number` signals; returns how often it was hit."""
    hits = 0
    for _ in range(10 * number):
        child = tiny.start(workdir, steps=steps, eval__limit=1, **changes)
        if hits < number:
            seen = (
                len(tiny.losses(workdir)) if (workdir / "metrics.jsonl").exists() else 0
            )
            goal = min(seen + rng.randint(1, max(steps // (2 * number), 2)), steps - 1)
            while child.poll() is None and _steps(workdir) < goal:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.05)
            if child.poll() is None:
                child.send_signal(sig)
                hits += 1
        output, _ = child.communicate(timeout=300)
        if child.returncode == 0 and _steps(workdir) == steps:
            return hits
        expected = -signal.SIGKILL if sig == signal.SIGKILL else 0
        assert child.returncode == expected, output
    raise AssertionError("the run never ended")


def _steps(workdir):
    try:
        text = (workdir / "metrics.jsonl").read_text()
    except FileNotFoundError:
        return 0
    lines = text.splitlines()
    while lines:
        try:
            return json.loads(lines.pop())["step"]
        except ValueError:
            continue
    return 0


@pytest.mark.parametrize(
    ("number", "steps"), [(3, 80), pytest.param(20, 160, marks=pytest.mark.slow)]
)
@pytest.mark.fault(1)
def test_kill_nine_changes_no_loss(number, steps, tmp_path):
    expected = whole(tmp_path, steps)
    rng = random.Random(number)
    hits = interrupted(tmp_path / "torn", number, rng, signal.SIGKILL, steps)
    assert hits == number
    assert tiny.losses(tmp_path / "torn") == expected


# A run goes on for some steps between the wish to stop it and the signal.
@pytest.mark.parametrize(
    ("number", "steps"), [(2, 80), pytest.param(20, 200, marks=pytest.mark.slow)]
)
@pytest.mark.fault(2)
def test_sigterm_saves_and_exits_zero(number, steps, tmp_path):
    expected = whole(tmp_path, steps)
    rng = random.Random(number)
    hits = interrupted(tmp_path / "torn", number, rng, signal.SIGTERM, steps)
    assert hits == number
    assert tiny.losses(tmp_path / "torn") == expected


@pytest.mark.fault(4)
@pytest.mark.slow
def test_a_flipped_byte_falls_back_and_the_curve_is_the_same(tmp_path):
    expected = whole(tmp_path)
    folder = tmp_path / "whole" / "checkpoints" / str(STEPS)
    data = max(
        (f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)
    code, output = tiny.run(tmp_path / "whole", steps=STEPS, eval__limit=1)
    assert code == 0, output
    assert f"checkpoint {STEPS}" in output and "kept aside" in output
    assert f"resuming at step {STEPS - 2}" in output
    assert tiny.losses(tmp_path / "whole") == expected


# Guidance begins at step 5 of 20 an epoch; what it then needs is saved with the run.
GUIDED = {
    "method__name": "self_guided",
    "data__split": "train[:320]",
    "method__begin_epoch": 0.25,
    "method__monitor_epochs": 0.2,
    "method__monitor_images": 16,
    "method__layer": 1,
}
CASES = [
    pytest.param(
        signal.SIGKILL,
        {"method__refresh": "bank", "method__refresh_epochs": 1},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        signal.SIGTERM,
        {"method__refresh": "interval", "method__guide": "ema"},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        signal.SIGTERM,
        {"method__refresh": "bank", "method__refresh_epochs": 1},
        marks=pytest.mark.slow,
    ),
    pytest.param(
        signal.SIGKILL,
        {"method__guide": "snapshot", "method__hint_ratio_end": 0},
        marks=pytest.mark.slow,
    ),
]


# Each method's own state: a teacher and its momentum; two stages; two optimizers that
# take turns; a discriminator, its power iteration and a frozen scorer; levels that move
# at every fourth step, and a batch that stays for as long; a head, and all that varies
# what it sees; statistics beside a frozen encoder, and a momentum; two crops an image,
# and with them a teacher and a centre.
METHODS = {
    "rc_mae": {"method__momentum": 0.9},
    "dbot": {"method__teacher_depths": "(0,None)", "method__drop_path": 0.1},
    "lc_mae": {
        "method__other_view": "crop",
        "method__align_on": "decoder",
        "method__negative": "infonce",
        "method__negative_weight": 0.1,
    },
    "local_siamese": {"method__target": "ema", "method__hidden": 16, "method__out": 8},
    "cl_mae": {"method__masker_depth": 1, "method__masker_heads": 2},
    "automae": {"method__temperature_end": 0.5},
    "mlo_mae": {"method__every": 4, "method__solver": "identity"},
    "finetune": {
        "method__layer_decay": 0.7,
        "method__drop_path": 0.1,
        "method__mixup": 0.8,
        "method__cutmix": 1.0,
        "method__erase": 0.25,
        "data__rand_augment": "(9,0.5)",
    },
    "linear_probe": {"optim__base_lr": 8.0, "data__crop_clip": True},
    "segment": {
        "method__frozen": False,
        "method__drop_path": 0.1,
        "eval__every": 10,
        "eval__choose_best": True,
        "eval__validation_split": "train[19990:]",
    },
}


@pytest.mark.parametrize(
    ("number", "sig"),
    [
        (1, signal.SIGKILL),
        pytest.param(3, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(3, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        # What they keep beside the others is parameters and moments like any.
        pytest.param(name, marks=pytest.mark.slow)
        if name not in ("mlo_mae", "linear_probe")
        else name
        for name in METHODS
    ],
)
@pytest.mark.fault(1)
@pytest.mark.fault(2)
def test_each_method_survives_kills_and_signals(name, number, sig, tmp_path):
    changes = {"method__name": name, **METHODS[name]}
    if name == "automae":
        changes["method__scorer"] = scorer(tmp_path / "scorer")
    expected = whole(tmp_path, 40, **changes)
    assert len(expected) == 40
    torn = tmp_path / "torn"
    assert interrupted(torn, number, random.Random(3), sig, 40, **changes) == number
    assert tiny.losses(torn) == expected
    assert arrays(torn, 40) == arrays(tmp_path / "whole", 40)
    scores = [tmp_path / run / "scores.json" for run in ("whole", "torn")]
    assert scores[0].read_text() == scores[1].read_text()


@pytest.mark.parametrize(
    "step", [pytest.param(near, marks=pytest.mark.slow) for near in (18, 20, 22)]
)
@pytest.mark.fault(1)
def test_a_stage_boundary_is_crossed_once(step, tmp_path):
    """A run whose newest checkpoint is of the boundary, or just beside it, goes on."""
    changes = {"method__name": "dbot", "checkpoint__keep_period": 2}
    expected = whole(tmp_path, 40, **changes)
    before = arrays(tmp_path / "whole", 40)
    for folder in (tmp_path / "whole" / "checkpoints").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)
    code, output = tiny.run(tmp_path / "whole", steps=40, eval__limit=1, **changes)
    assert code == 0 and f"resuming at step {step}" in output
    assert tiny.losses(tmp_path / "whole") == expected
    assert arrays(tmp_path / "whole", 40) == before


def scorer(folder):
    """A finished tiny run of MAE."""
    code, output = tiny.run(folder, steps=2, eval__limit=1)
    assert code == 0, output
    return folder


def arrays(workdir, step):
    """Fingerprint of every array of a checkpoint: parameters, moments, vectors."""
    folder = epath.Path(workdir / "checkpoints" / str(step))
    return check_step(folder, step).arrays


@pytest.mark.parametrize(("sig", "changes"), CASES, ids=str)
@pytest.mark.fault(1)
@pytest.mark.fault(2)
def test_guidance_survives_kills_and_signals(sig, changes, tmp_path):
    changes = GUIDED | changes
    expected = whole(tmp_path, 60, **changes)
    assert len(expected) == 60
    rng = random.Random(7)
    torn = tmp_path / "torn"
    assert interrupted(torn, 2, rng, sig, 60, **changes) == 2
    assert tiny.losses(torn) == expected
