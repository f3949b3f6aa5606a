"""Whole tiny runs: what they leave behind, resume, refuse, and report."""

import json
import pathlib
import shutil
import stat

import jax
import numpy as np
import pytest

from sgmae_jax import config as config_lib
from sgmae_jax.config import config_of_run, load_config
from sgmae_jax.main import main
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.sources import domain_of
from sgmae_jax.tasks import restore_run
from sgmae_jax.training.console import Console
from tests.methods.cases import first_stage
from tests.tiny import arguments, losses

SHIPPED = sorted(
    file.stem
    for file in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py")
    if file.stem != "__init__"
    and (config := config_lib._run_config_file(file, None)).task == "pretrain"
    and domain_of(config.data.source) == "images"
)
# Shrunk as they are here, they compile what the small configs of the same methods do;
# MAE's own stays, for the lengths that all take from it.
LARGE = {name for name in SHIPPED if "_vit_b_" in name} - {"mae_vit_b_imagenet"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "run"
    assert main(arguments(workdir, log__pictures=4, log__tensorboard=True)) == 0
    return workdir


def test_a_run_directory_holds_everything(finished):
    for name in ("config.json", "metrics.jsonl", "scores.json", "report.html"):
        assert (finished / name).is_file(), name
    pictures = sorted(file.name for file in (finished / "pictures").iterdir())
    assert pictures == [f"reconstruction_{step:08d}.png" for step in (4, 8)]
    steps = {folder.name for folder in (finished / "checkpoints").iterdir()}
    assert steps == {"4", "6", "8"}
    assert list((finished / "tensorboard").iterdir())
    assert sorted(losses(finished)) == list(range(1, 9))


def test_the_report_is_self_contained(finished):
    text = (finished / "report.html").read_text()
    assert "<img" in text and 'src="data:image/png;base64,' in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert str(finished.parent) not in text


def test_a_run_is_a_frozen_encoder_for_another(finished):
    config = config_of_run("evaluate", str(finished))
    _, trained, method, params, _ = restore_run(config, finished, Console())
    trained.checkpoint.path = str(finished)
    model = frozen_model(frozen_config(trained, "checkpoint.path"))
    found = read_frozen(trained, "checkpoint.path", model)
    jax.tree.map(np.testing.assert_array_equal, found, method.encoder(params))
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert model.encode({"encoder": found}, images).cls.shape == (2, 24)


@pytest.mark.slow
def test_what_a_run_was_given_is_kept_with_it(finished, tmp_path, capsys):
    """The folder of the first stage may go, and its place is nobody's business."""
    first, run = tmp_path / "secret" / "first", tmp_path / "run"
    shutil.copytree(finished, first)
    given = {"method__name": "automae", "method__scorer": first, "steps": 2}
    assert main(arguments(run, **given)) == 0
    shutil.rmtree(first)
    saved = json.loads((run / "config.json").read_text())
    assert saved["method.scorer"] == "first"
    for task in ("evaluate", "export", "analyze"):
        words = ["--config", f"{task}:{run}", "--workdir", str(tmp_path / task)]
        small = ["analyze.images=2", "analyze.layer=-1", "eval.limit=20"]
        words += [f"--config.{field}" for field in [*small, "eval.fit_limit=40"]]
        assert main(words) == 0
    assert (tmp_path / "analyze" / "analysis" / "masks.png").is_file()
    assert main(arguments(run, **given | {"steps": 4})) == 2
    assert "method.scorer" in capsys.readouterr().err


def test_the_run_directory_is_not_world_readable(finished):
    assert not stat.S_IMODE(finished.stat().st_mode) & 0o007


def test_a_finished_run_is_left_as_it_is(finished, capsys):
    before = losses(finished)
    assert main(arguments(finished)) == 0
    assert losses(finished) == before
    assert "resuming at step 8" in capsys.readouterr().out


def test_stopping_and_going_on_is_bit_equal(tmp_path):
    assert main(arguments(tmp_path / "whole")) == 0
    # The schedule's length comes from `steps`: stop by a kill in tests/fault; here
    # by dropping the newest checkpoints of a finished run.
    assert main(arguments(tmp_path / "again")) == 0
    import shutil

    for step in (6, 8):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / str(step))
    assert main(arguments(tmp_path / "again")) == 0
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")


@pytest.mark.fault(19)
def test_another_batch_size_is_refused_unless_allowed(finished, capsys):
    changes = {"data__batch_size": 8, "steps": 9}
    assert main(arguments(finished, **changes)) == 2
    error = capsys.readouterr().err
    assert "batch_size" in error and "allow_data_change" in error
    assert error.count("\n") == 1


@pytest.mark.fault(9)
def test_another_model_is_refused_and_the_leaves_are_named(finished, capsys):
    assert main(arguments(finished, model__width=48)) == 2
    error = capsys.readouterr().err
    assert "model/encoder" in error and error.count("\n") == 1


@pytest.mark.fault(5)
def test_no_usable_checkpoint_is_exit_code_3(tmp_path, capsys):
    workdir = tmp_path / "run"
    assert main(arguments(workdir, steps=2)) == 0
    for file in (workdir / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    assert main(arguments(workdir, steps=2)) == 3
    assert "error: " in capsys.readouterr().err
    assert not (workdir / "checkpoints" / "2").exists()


def test_evaluate_and_export_know_a_run_by_its_directory(finished, tmp_path, capsys):
    words = ["--config", f"evaluate:{finished}", "--workdir", str(tmp_path / "scores")]
    code = main([*words, "--config.eval.baselines=True"])
    output = capsys.readouterr().out
    assert code == 0
    assert "trained encoder" in output and "raw pixels" in output
    scores = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert scores["step"] == 8
    trained = json.loads((finished / "scores.json").read_text())["trained encoder"]
    found = scores["scores"]["trained encoder"]
    assert trained.items() <= found.items()
    assert found.keys() - trained.keys() >= {"discriminant", "lars"}

    words = ["--config", "export", "--workdir", str(tmp_path / "out")]
    assert main([*words, f"--config.checkpoint.path={finished}"]) == 0
    from safetensors.numpy import load_file

    tensors = load_file(tmp_path / "out" / "export" / "encoder.safetensors")
    assert any(value.size for value in tensors.values())
    card = json.loads((tmp_path / "out" / "export" / "card.json").read_text())
    assert card["method"] == "mae" and card["step"] == 8

    exported = tmp_path / "out" / "export"
    assert (exported / "decoder.safetensors").is_file()
    words = ["--config", f"evaluate:{exported}", "--workdir", str(tmp_path / "again")]
    assert main(words) == 0
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again["step"] == 8
    words = ["--config", f"export:{exported}", "--workdir", str(tmp_path / "hf")]
    assert main([*words, "--config.weights.format=huggingface"]) == 0
    second = json.loads((tmp_path / "hf" / "export" / "card.json").read_text())
    for name in ("method", "step", "scores", "data_fingerprint"):
        assert second[name] == card[name]
    assert second["config"]["data.source"] == "synthetic"
    assert again["scores"]["trained encoder"] == found
    words = ["--config", f"export:{finished}", "--workdir", str(tmp_path / "no")]
    assert main([*words, "--config.weights.channels=1"]) == 2


def test_evaluating_nothing_is_one_line(tmp_path, capsys):
    words = ["--config", "evaluate", "--workdir", str(tmp_path / "scores")]
    assert main([*words, f"--config.checkpoint.path={tmp_path / 'none'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.fault(10)
def test_a_mask_function_is_checked_before_training(tmp_path, capsys, monkeypatch):
    (tmp_path / "my_masks.py").write_text(
        "from sgmae_jax.masking import random_mask\n"
        "def wrong(keys, context, *, ratio):\n"
        "    return random_mask(keys, context, ratio=ratio / 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(arguments(tmp_path / "run", mask__fn="my_masks:wrong")) == 2
    error = capsys.readouterr().err
    assert "my_masks:wrong" in error and error.count("\n") == 1


def test_a_moving_ratio_trains_one_program_a_bucket(tmp_path):
    changes = {"mask__ratio": 0.5, "mask__ratio_end": 0.75, "mask__buckets": 3}
    assert main(arguments(tmp_path / "run", **changes)) == 0
    assert all(np.isfinite(list(losses(tmp_path / "run").values())))


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
        for name in SHIPPED
    ],
)
def test_every_shipped_config_takes_a_step(name, tmp_path):
    small = {
        "epochs": None,
        "steps": 1,
        "data.source": "synthetic",
        "data.in_memory": False,
        "data.split": "train",
        "eval.fit_split": "train",
        "eval.split": "test",
        "data.batch_size": 8,
        "optim.accumulate": 1,
        "model.width": 48,
        "model.heads": 3,
        "model.depth": 2,
        "model.decoder_width": 32,
        "model.decoder_heads": 2,
        "model.decoder_depth": 1,
        "optim.warmup_epochs": 0,
        "optim.min_lr": 0,
        "eval.fit_limit": 40,
        "eval.limit": 20,
        "eval.baselines": False,
        "log.tensorboard": False,
    }
    if name.startswith("segment_"):
        small |= {"method.head_width": 8, "data.image_size": 64}
    if name.startswith("automae_"):
        typed = [(field, str(value)) for field, value in small.items()]
        first = load_config(name.removeprefix("auto"), typed)
        name += ":" + first_stage(tmp_path / "first", first)
    words = ["--config", name, "--workdir", str(tmp_path / "run")]
    words += [f"--config.{field}={value}" for field, value in small.items()]
    assert main(words) == 0
    assert np.isfinite(losses(tmp_path / "run")[1])


@pytest.mark.parametrize("steps", [1, 99])
def test_a_profile_is_written_even_if_the_run_ends_first(steps, tmp_path, capsys):
    changes = {"profile__start": 2, "profile__steps": steps, "steps": 4}
    assert main(arguments(tmp_path / "run", **changes)) == 0
    assert "profile written" in capsys.readouterr().out
    assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))


@pytest.fixture
def spoilt_folder(tmp_path):
    """Forty small images in two classes, one of them cut in half."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(40):
        folder = tmp_path / "images" / "train" / ("odd" if index % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    victim = tmp_path / "images" / "train" / "odd" / "07.png"
    victim.write_bytes(victim.read_bytes()[:200])
    return tmp_path / "images"


@pytest.mark.parametrize(("allowed", "code"), [(0.05, 0), (0.0, 2)])
@pytest.mark.fault(11)
def test_bad_images_are_named_and_bounded(
    allowed, code, spoilt_folder, tmp_path, capsys
):
    changes = {
        "data__source": "folder",
        "data__path": spoilt_folder,
        "data__max_bad_fraction": allowed,
        "eval__split": "train",
    }
    assert main(arguments(tmp_path / "run", **changes)) == code
    captured = capsys.readouterr()
    said = captured.out if code == 0 else captured.err
    assert "07.png" in said
    if code:
        assert captured.err.count("\n") == 1
