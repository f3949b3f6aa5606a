"""Import, export, evaluation and fine-tuning from weights, as a user starts them."""

import json
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgmae_jax.config import ConfigError, config_of_run, default_config
from sgmae_jax.main import main
from sgmae_jax.methods.frozen import frozen_config, frozen_model, read_frozen
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.weights import read_weights
from sgmae_jax.weights.tensors import read_tensors
from tests.methods.cases import build, tiny_config
from tests.weights.networks import assert_same, config_of, export, random_parts
from tests.weights.test_pickled import Reduced
from tests.weights.torchfiles import archive, torch_file

QUICK = {
    "data.source": "synthetic",
    "eval.fit_limit": 40,
    "eval.limit": 20,
    "eval.batch_size": 32,
    "eval.baselines": False,
}
HEADS = {"weights.heads": 3, "weights.decoder_heads": 2}
PICKLE = {**HEADS, "weights.allow_pickle": True}


def run(task, path, workdir, fields=None):
    words = ["--config", f"{task}:{path}", "--workdir", str(workdir)]
    named = (fields or {}).items()
    return main(words + [f"--config.{name}={value}" for name, value in named])


@pytest.fixture
def parts():
    return random_parts(config_of())


@pytest.fixture
def authors(parts, tmp_path):
    """An official checkpoint: encoder and decoder in a .pth."""
    export(config_of(), parts, tmp_path / "as_timm", "timm")
    tensors = dict(read_tensors(tmp_path / "as_timm").arrays)
    tensors["head.weight"] = np.zeros((10, 24), np.float32)
    path = tmp_path / "mae.pth"
    path.write_bytes(torch_file({"model": tensors}))
    return path


def test_import_writes_an_export_of_ours(authors, parts, tmp_path, capsys):
    assert run("import", authors, tmp_path / "out", PICKLE) == 0
    told = capsys.readouterr().out
    for words in (
        "mae.pth: names of timm; width 24, 2 blocks",
        "head.weight",
        "sha256",
    ):
        assert words in told
    folder = tmp_path / "out" / "import"
    found = read_weights(folder)
    assert_same(found.parts, parts)
    card = json.loads((folder / "card.json").read_text())
    assert card["weights"]["left_out"] == ["head.weight"]
    assert card["weights"]["file"] == "mae.pth"
    assert str(tmp_path) not in json.dumps(card)


def test_import_for_other_images(authors, tmp_path, capsys):
    fields = PICKLE | {"weights.image_size": 48, "weights.channels": 1}
    assert run("import", authors, tmp_path / "out", fields) == 0
    assert "left out: head.weight, the decoder" in capsys.readouterr().out
    found = read_weights(tmp_path / "out" / "import")
    assert found.fields["data.image_size"] == 48 and "decoder" not in found.parts
    assert found.fields["model.positions"] == "learned"


def evaluated(path, workdir, **fields):
    assert run("evaluate", path, workdir, QUICK | fields) == 0
    return json.loads((workdir / "evaluation.json").read_text())["scores"]


def test_scores_are_the_same_from_whatever_holds_the_weights(authors, tmp_path):
    scores = evaluated(authors, tmp_path / "a", **PICKLE)
    assert run("import", authors, tmp_path / "b", PICKLE) == 0
    imported = tmp_path / "b" / "import"
    assert evaluated(imported, tmp_path / "b") == scores
    for form in ("timm", "huggingface"):
        out = tmp_path / form
        assert run("export", imported, out, {"weights.format": form}) == 0
        # What they are written to, they are read from: no field says a size.
        assert evaluated(out / "export", out) == scores
        weights = read_weights(out / "export")
        assert_same(weights.parts, read_weights(imported).parts)


def test_an_export_is_scored_as_its_run_was(parts, tmp_path):
    config = config_of(eval__pool="cls", eval__neighbours=3, data__source="folder")
    for form in ("ours", "timm", "huggingface"):
        folder = export(config, parts, tmp_path / form, form)
        again = config_of_run("evaluate", str(folder))
        assert again.eval.pool == "cls" and again.eval.neighbours == 3


def test_another_format_replaces_the_files_of_the_first(parts, tmp_path):
    written = {}
    for form in ("ours", "timm", "huggingface", "ours"):
        (tmp_path / "mine.txt").touch()
        export(config_of(), parts, tmp_path, form)
        assert_same(read_weights(tmp_path).parts, parts)
        names = {*os.listdir(tmp_path)} - {"mine.txt", "card.json"}
        assert written.setdefault(form, names) == names
    assert written["ours"] == {"encoder.safetensors", "decoder.safetensors"}
    assert written["timm"] == {"model.safetensors", "decoder.safetensors"} | {
        "config.json"
    }


def test_fine_tuning_begins_from_a_foreign_file(authors, parts, tmp_path):
    config = default_config("finetune")
    config.data.image_size, config.model.patch_size = 32, 8
    config.method.encoder = str(authors)
    with pytest.raises(ConfigError, match=r"method\.encoder.*allow_pickle"):
        frozen_config(config, "method.encoder")
    config.weights.update({"allow_pickle": True, "heads": 3, "decoder_heads": 2})
    model = frozen_model(frozen_config(config, "method.encoder"))
    assert_same(read_frozen(config, "method.encoder", model), parts["encoder"])


@pytest.mark.parametrize(
    "name", ["mae", "self_guided", "rc_mae", "cl_mae", "mlo_mae", "supervised_mae"]
)
def test_methods_that_predict_pixels_have_a_decoder_to_export(name):
    config = tiny_config(name)
    method = build(config, classes=3)
    params = jax.eval_shape(method.init, jax.random.key(0))
    model = make_autoencoder(config)
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    found = {"encoder": method.encoder(params), "decoder": method.decoder(params)}
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, wanted)


@pytest.mark.parametrize("name", ["dbot", "finetune"])
def test_others_have_none(name):
    assert build(tiny_config(name), classes=3).decoder is None


def hostile_pickle():
    return archive({"data.pkl": pickle.dumps({"model": {"w": Reduced()}}, 2)})


BAD = {
    "reduce": (hostile_pickle, PICKLE, "posix.system is not allowed"),
    "no flag": (hostile_pickle, HEADS, "config.weights.allow_pickle=True"),
    "zip slip": (
        lambda: archive({"data.pkl": b"", "../../evil": b""}),
        PICKLE,
        "a member has the name",
    ),
    "header": (lambda: b"\xff\xff\0\0\0\0\0\0{}", {}, "damaged safetensors"),
    "cut": (lambda: torch_file({"w": np.ones(4, "f4")})[:-30], PICKLE, "damaged"),
    "hash": (hostile_pickle, PICKLE | {"weights.sha256": "ab" * 32}, "its SHA-256 is"),
    "bad hash": (hostile_pickle, {"weights.sha256": "xyz"}, "64 hexadecimal digits"),
}


@pytest.mark.parametrize("task", ["import", "export", "evaluate"])
@pytest.mark.parametrize("name", BAD)
def test_hostile_and_damaged_files_are_one_line(
    name, task, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    content, fields, words = BAD[name]
    (tmp_path / "w.pth").write_bytes(content())
    assert run(task, "w.pth", tmp_path / "out", fields) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert {*os.listdir(tmp_path)} <= {"w.pth", "out"}


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("analyze", "must be a run directory, weights have no checkpoints"),
        ("evaluate", "config.data.source = None: must be named"),
    ],
)
def test_what_weights_cannot_do_is_one_line(task, words, authors, tmp_path, capsys):
    assert run(task, authors, tmp_path / "out", PICKLE) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("path", ["", "nowhere", "."])
def test_import_needs_weights(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("import", path, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "must be a file or folder of weights" in error and error.count("\n") == 1
