"""Every metric becomes a readable picture, whatever the numbers are."""

import numpy as np
from PIL import Image

from sgmae_jax.analysis.plots import write_plots
from tests.analysis.records import make_record

NAMES = {
    "agreement",
    "edge_weights",
    "exploitation",
    "feature_variance",
    "similarity_variance",
    "relation_divergence",
    "attention_distance",
    "attention_nmi",
    "mask_token_variance",
    "reconstruction",
    "spectrum",
    "cut",
    "fourier",
}


def test_one_plot_a_metric(tmp_path):
    plots = write_plots(make_record(), tmp_path)
    assert {plot.path.stem for plot in plots} == NAMES
    assert {path.stem for path in tmp_path.glob("*.png")} == NAMES
    assert len({plot.title for plot in plots}) == len(plots)
    for plot in plots:
        pixels = np.asarray(Image.open(plot.path).convert("RGB"))
        assert min(pixels.shape[:2]) > 250, plot.path.name
        assert (pixels != 255).any(-1).mean() > 0.01, "something is drawn"
        assert plot.words.endswith(".")


def test_without_objects_there_is_no_agreement(tmp_path):
    write_plots(make_record(), tmp_path)
    plots = write_plots(make_record(objects=False), tmp_path)
    assert {plot.path.stem for plot in plots} == NAMES - {"agreement"}
    assert not (tmp_path / "agreement.png").exists(), "that of the earlier analysis"


def test_any_number_of_checkpoints_and_layers(tmp_path):
    record = make_record(steps=tuple(range(0, 210, 10)), depth=24)
    record["layer"] = -1
    assert len(write_plots(record, tmp_path)) == len(NAMES)


def test_gaps_are_no_error(tmp_path):
    record = make_record(steps=(0, 10), depth=1)
    record["layer"] = 1
    for found in record["steps"].values():
        found["masks"]["guided"]["loss"] = None
    broken = record["steps"]["10"]
    for part in ("encoder", "decoder"):
        for name, rows in broken[part].items():
            broken[part][name] = np.full(np.shape(rows), None).tolist()
    broken["masks"]["random"]["loss"] = None
    broken["partition"]["eigenvalue"] = None
    broken["partition"]["spectrum"] = [None] * 16
    assert len(write_plots(record, tmp_path)) == len(NAMES)
