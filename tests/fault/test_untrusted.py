"""Code that a file names is not run; secrets and places are in no file of ours."""

import gzip
import json
import os
import pathlib
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
import tensorstore
from PIL import Image

from sgmae_jax.config import config_of_run
from sgmae_jax.main import main
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from tests.tiny import arguments, environment

HARMLESS = """
from sgmae_jax.masking import random_mask

def mask(keys, context, *, ratio):
    return random_mask(keys, context, ratio=ratio)
"""
HARMFUL = "import pathlib\npathlib.Path('executed').touch()\n" + HARMLESS


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose config names a module beside it."""
    place = tmp_path_factory.mktemp("foreign")
    (place / "foreign_masks.py").write_text(HARMLESS)
    named = {"mask__fn": "foreign_masks:mask"}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        assert main(arguments(place / "run", steps=2, eval__limit=1, **named)) == 0
    return place / "run"


@pytest.fixture
def foreign(trained, tmp_path, monkeypatch):
    """That run, where the module of this name does harm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "foreign_masks.py").write_text(HARMFUL)
    sys.modules.pop("foreign_masks", None)
    return trained


def words_of(task, run, folder):
    words = ["--config", f"{task}:{run}", "--workdir", str(folder)]
    small = ["eval.limit=20", "eval.fit_limit=40", "analyze.images=2"]
    return words + [f"--config.{field}" for field in [*small, "analyze.layer=-1"]]


@pytest.mark.fault(21)
def test_code_that_a_checkpoint_names_is_not_run(foreign, tmp_path, capsys):
    for task in ("evaluate", "export", "analyze"):
        assert main(words_of(task, foreign, tmp_path / task)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "add --config.mask.fn=foreign_masks:mask" in error
    laboratory = ["--config", "laboratory", "--workdir", str(tmp_path / "laboratory")]
    assert main([*laboratory, f"--config.laboratory.runs=('{foreign}',)"]) == 2
    assert "foreign_masks:mask" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
    assert "foreign_masks" not in sys.modules


@pytest.mark.fault(21)
def test_code_that_the_user_names_again_is_run(foreign, tmp_path):
    words = words_of("evaluate", foreign, tmp_path / "scores")
    assert main([*words, "--config.mask.fn=foreign_masks:mask"]) == 0
    assert (tmp_path / "executed").exists()


@pytest.mark.fault(21)
def test_a_frozen_network_brings_no_code_with_it(foreign, tmp_path):
    config = config_of_run("evaluate", str(foreign))
    own = json.loads((foreign / "config.json").read_text())
    config.data.image_size = own["data.image_size"]
    config.model.patch_size = own["model.patch_size"]
    model = frozen_model(frozen_config(config, "checkpoint.path"))
    assert read_frozen(config, "checkpoint.path", model)
    assert not (tmp_path / "executed").exists()


SECRETS = {
    "HF_TOKEN": "hf_sesame0one",
    "AWS_SECRET_ACCESS_KEY": "sesame0two",
    "WANDB_API_KEY": "sesame0three",
    "SSH_AUTH_SOCK": "/run/sesame0four/agent",
}


@pytest.fixture(scope="module")
def handed_on(tmp_path_factory):
    """A run with everything that writes, under a path and with secrets to look for."""
    place = tmp_path_factory.mktemp("around") / "sesame0path"
    rng = np.random.default_rng(0)
    for index in range(40):
        for split in ("train", "test"):
            folder = place / "images" / split / ("odd" if index % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02}.png")
    (place / "images" / "train" / "odd" / "07.png").write_bytes(b"no image")
    changes = {
        "data__source": "folder",
        "data__path": place / "images",
        "data__max_bad_fraction": 0.1,
        "log__tensorboard": True,
        "log__pictures": 4,
        "profile__start": 2,
        "eval__every": 4,
    }
    done = subprocess.run(
        [sys.executable, "-m", "sgmae_jax.main", *arguments(place / "run", **changes)],
        env=environment() | SECRETS,
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "run"


def contents(file):
    """The bytes of a file, and what is packed inside."""
    raw = file.read_bytes()
    yield raw
    if raw[:2] == b"\x1f\x8b":
        yield gzip.decompress(raw)
    if file.name == "manifest.ocdbt":
        spec = {"driver": "ocdbt", "base": f"file://{file.parent}/"}
        store = tensorstore.KvStore.open(spec).result()
        for name in store.list().result():
            yield name + store.read(name).result().value


def test_no_secret_and_no_place_is_in_a_run_directory(handed_on):
    seen, packed, found = set(), 0, []
    for file in handed_on.rglob("*"):
        for count, raw in enumerate(contents(file) if file.is_file() else ()):
            for line in re.findall(rb".{0,80}sesame0.{0,40}", raw):
                found.append((str(file.relative_to(handed_on)), line))
            seen.add(file.suffix)
            packed += count > 0
    assert not found
    assert {".jsonl", ".json", ".html", ".png", ".pb", ".gz", ".ocdbt"} <= seen
    assert any("tfevents" in file.name for file in handed_on.rglob("*"))
    assert packed > 3


def test_nobody_else_may_read_a_run_directory(handed_on):
    assert not stat.S_IMODE(handed_on.stat().st_mode) & 0o007
    saved = handed_on / "checkpoints"
    for path in [saved, *saved.rglob("*")]:
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o007, path


def test_an_evaluation_and_an_export_hold_no_place_either(handed_on, tmp_path):
    for task in ("evaluate", "export"):
        words = words_of(task, handed_on, tmp_path / task)
        place = handed_on.parent / "images"
        code = main(
            [*words, "--config.data.source=folder", f"--config.data.path={place}"]
        )
        assert code == 0
        for file in pathlib.Path(tmp_path / task).rglob("*"):
            if file.is_file():
                assert b"sesame0" not in file.read_bytes(), os.fspath(file)
