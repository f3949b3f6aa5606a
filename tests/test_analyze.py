"""The task `analyze`, from tiny runs: what it leaves, what it passes over, refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.analysis import pictures, study
from sgmae_jax.analysis.series import Final, read_series, study_run
from sgmae_jax.config import ConfigError, load_config
from sgmae_jax.data import Synthetic
from sgmae_jax.main import main
from sgmae_jax.tasks import series_of_run
from tests.analysis.sheets import cut
from tests.tiny import arguments
from tests.training.toys import KEY, toy

SMALL = {"layer": -1, "images": 6, "pictures": 2}


def train(workdir, **changes):
    changes = {"checkpoint__keep": 2, "checkpoint__keep_period": 4} | changes
    assert main(arguments(workdir, **changes)) == 0
    return workdir


def analyze(run, workdir, **changes):
    fields = {f"analyze.{name}": value for name, value in SMALL.items()}
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    words = ["--config", f"analyze:{run}", "--workdir", str(workdir)]
    return main(words + [f"--config.{name}={fields[name]}" for name in fields])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Steps 4, 8, 10 and 12 of twelve."""
    return train(tmp_path_factory.mktemp("run") / "run", steps=12)


@pytest.fixture(scope="module")
def analyzed(run, tmp_path_factory):
    """That run, analyzed once; what was compiled and said is kept."""
    workdir = tmp_path_factory.mktemp("out") / "out"
    made = []
    with pytest.MonkeyPatch.context() as patch:
        start = study.Study.__init__

        def remember(self, *args, **options):
            made.append(self)
            start(self, *args, **options)

        patch.setattr(study.Study, "__init__", remember)
        before = sorted(path.name for path in (run / "checkpoints").iterdir())
        assert analyze(run, workdir) == 0
        assert before == sorted(path.name for path in (run / "checkpoints").iterdir())
    return workdir, made


def test_it_leaves_numbers_plots_and_a_page(analyzed):
    workdir, _ = analyzed
    folder = workdir / "analysis"
    record = json.loads((folder / "analysis.json").read_text())
    assert record["method"] == "mae" and record["images"] == 6
    assert record["mask_ratio"] == 0.75 and record["grid"] == [4, 4]
    names = {path.name for path in folder.glob("pictures_*.png")}
    assert names == {f"pictures_{step:08d}.png" for step in (0, 4, 10, 12)}
    assert len(list(folder.glob("*.png"))) == 13 + 4 + 1
    page = (folder / "index.html").read_text()
    assert "<h2>Masks over training</h2>" in page
    assert page.count("<img ") == 18 and str(workdir) not in page


def test_its_own_masks_are_drawn_over_training(analyzed):
    """Those of a plain MAE are random, so they never change."""
    folder = analyzed[0] / "analysis"
    titles = ("image", 0, 4, 10, 12)
    drawn = np.asarray(Image.open(folder / "masks.png"))
    columns = cut(drawn, titles, SMALL["pictures"])
    bare = columns["image"]
    hidden = (columns[0] == pictures._HIDDEN).all(-1)
    assert hidden.mean() == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(columns[0][~hidden], bare[~hidden])
    for step in titles[2:]:
        np.testing.assert_array_equal(columns[step], columns[0])


def test_the_series_goes_from_untrained_to_the_last(analyzed):
    series = read_series(analyzed[0])
    assert list(series) == [0, 4, 8, 10, 12]
    for found in series.values():
        assert np.isfinite(found["partition"]["ari"])
        assert found["masks"]["random"] | {"loss": 0} == (
            series[0]["masks"]["random"] | {"loss": 0}
        ), "the same random masks"
        rates = np.asarray(found["decoder"]["exploitation_cumulated"])
        np.testing.assert_allclose(rates.sum(1), 1, rtol=1e-5)
    apart = [found["encoder"]["relation_divergence"][0] for found in series.values()]
    assert apart[0] > apart[-1] == pytest.approx(0, abs=1e-7)
    losses = [found["masks"]["random"]["loss"] for found in series.values()]
    assert losses[-1] < losses[0]


def test_one_compilation_for_all_checkpoints(analyzed):
    assert [made.compilations for made in analyzed[1]] == [1]


def test_other_code_gets_the_series_of_a_run_as_a_dict(run, analyzed):
    found = series_of_run(run, checkpoints=2, **SMALL)
    assert list(found) == [0, 4, 12]
    whole = read_series(analyzed[0])
    for step in found:
        for name, value in found[step]["partition"].items():
            np.testing.assert_allclose(value, whole[step]["partition"][name], atol=1e-5)
    assert not (run / "analysis").exists()


def test_a_damaged_checkpoint_is_passed_over_and_named(run, tmp_path, capsys):
    harmed = tmp_path / "run"
    shutil.copytree(run, harmed)
    victim = harmed / "checkpoints" / "8" / "state" / "manifest.ocdbt"
    victim.write_bytes(victim.read_bytes()[:-1])
    assert analyze(harmed, harmed, analyze__pictures=0) == 0
    said = capsys.readouterr().out
    assert "checkpoint 8: file state/manifest.ocdbt" in said and "passed over" in said
    assert list(read_series(harmed)) == [0, 4, 10, 12]
    assert (harmed / "checkpoints" / "8").is_dir()
    assert not (harmed / "analysis" / "masks.png").exists()


def test_unlabelled_images_without_objects(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    for index in range(20):
        place = folder / ("train" if index < 16 else "test") / f"{index:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(place)
    (folder / "test" / "17.png").write_bytes(b"not an image")
    run = train(tmp_path / "run", data__source="folder", data__path=folder, steps=2)
    changes = {"data__path": folder, "analyze__part": "decoder"}
    changes |= {"analyze__relation": "attention", "analyze__side": "size"}
    assert analyze(run, run, **changes) == 0
    series = read_series(run)
    assert list(series) == [0, 2]
    assert "ari" not in series[2]["partition"]
    assert series[2]["masks"]["guided"].keys() == {"loss"}
    record = json.loads((run / "analysis" / "analysis.json").read_text())
    assert record["images"] == 3 and record["source"] == "images"
    assert not (run / "analysis" / "agreement.png").exists()


REFUSED = [
    ({"analyze__layer": -2}, "config.analyze.layer = -2: layers count from 1 to 1"),
    ({"eval__split": "val"}, "val"),
    ({"analyze__part": "both"}, "one of encoder, decoder"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_cannot_be_done_is_one_line(changes, words, run, tmp_path, capsys):
    assert analyze(run, tmp_path / "out", **changes) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_run_without_checkpoints_is_one_line(tmp_path, capsys):
    assert analyze(tmp_path, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "must be a run directory" in error and error.count("\n") == 1


@pytest.mark.parametrize("start", [{"student": 0.0}, {"model": 0.0}])
def test_a_method_without_an_autoencoder_is_refused(start, tmp_path):
    method = toy(init=start)
    params = method.init(KEY)
    config = load_config("quickstart")
    with pytest.raises(ConfigError, match=r"in params\['model'\] to be analyzed"):
        study_run(
            tmp_path, config, method, Final(1, params, {}), lambda: params, Synthetic()
        )
