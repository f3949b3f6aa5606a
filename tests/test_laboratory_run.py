"""The task `laboratory`, from tiny runs, and its page in a real browser."""

import json

import pytest

from sgmae_jax.config import ConfigError, load_config
from sgmae_jax.main import main
from tests.browser import browser, laid_out
from tests.tiny import arguments

LOOK = {
    "analyze.images": 5,
    "analyze.pictures": 2,
    "analyze.layer": -1,
    "analyze.checkpoints": 2,
    "laboratory.ratios": "(0.5,0.75)",
    "laboratory.masks": 4,
    "laboratory.pairs": 1,
    "laboratory.queries": 2,
}


def look(runs, workdir, **changes):
    fields = LOOK | {name.replace("__", "."): changes[name] for name in changes}
    words = ["--config", f"laboratory:{','.join(map(str, runs))}"]
    words += ["--workdir", str(workdir)]
    return main(words + [f"--config.{name}={fields[name]}" for name in fields])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An LC-MAE with a window, and an encoder without decoder."""
    from tests.conftest import quickly

    folder = tmp_path_factory.mktemp("runs")
    kinds = {
        "lc mae": {"method__name": "lc_mae", "model__decoder_window": 1},
        "siamese": {
            "method__name": "local_siamese",
            "method__hidden": 8,
            "method__out": 4,
        },
    }
    with quickly():
        for name, changes in kinds.items():
            assert main(arguments(folder / name, steps=4, **changes)) == 0
    return [folder / name for name in kinds]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    from tests.conftest import quickly

    workdir = tmp_path_factory.mktemp("laboratory")
    with quickly():
        assert look(runs, workdir) == 0
    return workdir / "report.html"


def test_one_page_has_it_all(runs, page):
    text = page.read_text()
    for letter in "ABCDEFGH":
        assert f"<h2>{letter}. " in text
    for part in ("Masks over training", "Pictures", "Curves", "Configuration"):
        assert f"<h2>{part}</h2>" in text
    assert text.count('<details class="run"') == 2
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "<script" not in text and str(runs[0].parent) not in text


def test_the_numbers_lie_beside_it(page):
    record = json.loads((page.parent / "laboratory.json").read_text())
    assert list(record["runs"]) == ["lc mae", "siamese"]
    own = record["runs"]["lc mae"]
    assert own["window"] == 1 and list(own["over_training"]) == ["0", "2", "4"]
    share = own["found"]["variance_share"]
    assert 0 <= share["low"] <= share["mean"] <= share["high"] <= 1
    assert "found" not in record["runs"]["siamese"]
    assert len(record["cka"]) == 3
    pair = record["cka"]["lc mae and siamese"]["mean"]
    assert len(pair) == len(pair[0]) == 1 and 0 <= pair[0][0] <= 1


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_errors_or_overflow(width, page, tmp_path):
    found = laid_out(page, tmp_path, width)
    assert found["said"] == [] and found["out"] == []
    assert found["scroll"] <= found["wide"] <= width
    assert found["images"] > 10 and found["broken"] == found["unnamed"] == 0
    assert found["outside"] == 0


def test_the_check_of_the_browser_can_fail(tmp_path):
    browser()
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><html><head><title>t</title></head><body>"
        '<div style="width:900px">wide</div><img src="data:image/png;base64,AA">'
        "<script>nowhere()</script></body></html>"
    )
    found = laid_out(bad, tmp_path, 390)
    assert found["scroll"] > found["wide"] and found["out"]
    assert found["broken"] == found["unnamed"] == 1 and "nowhere" in found["said"][0]


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    assert look([tmp_path / "nothing"], tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must be a run directory" in error
    assert main(["--config", "laboratory", "--workdir", str(tmp_path / "out")]) == 2
    assert "must name runs" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"laboratory\.ratios"):
        load_config("laboratory:x", [("laboratory.ratios", "1.0")])


def test_a_window_is_exported_in_our_format_alone(runs, tmp_path, capsys):
    words = ["--config", f"export:{runs[0]}", "--workdir", str(tmp_path)]
    assert main([*words, "--config.weights.format=timm"]) == 2
    error = capsys.readouterr().err
    assert "decoder_window = 1" in error and error.count("\n") == 1
    assert main(words) == 0
    card = json.loads((tmp_path / "export" / "card.json").read_text())
    assert card["config"]["model.decoder_window"] == 1
