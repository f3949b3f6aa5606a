"""Pictures show what they say; the page needs nothing but itself."""

import re
import types

import jax
import numpy as np
import pytest

from sgmae_jax.analysis import pictures
from sgmae_jax.analysis.gallery import TITLES, partition_sheet, write_gallery
from sgmae_jax.analysis.samples import Samples
from sgmae_jax.analysis.series import Series
from sgmae_jax.analysis.study import Options, Shown
from sgmae_jax.models import patchify
from tests.analysis.records import make_record
from tests.analysis.sheets import cut, reduced
from tests.models.tiny import autoencoder

COUNT = 2


@pytest.fixture(scope="module")
def model():
    return autoencoder(grid=(4, 4), patch_size=(2, 2))


@pytest.fixture(scope="module")
def scene(model):
    """Images, and a perfect prediction of them under some masks."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    truth = np.asarray(patchify(np.asarray(model.normalise(images)), (2, 2)))
    tokens = np.arange(16)
    row = np.tile(tokens / 15, (COUNT, 1)).astype(np.float32)
    shown = Shown(
        relation=row,
        object=np.tile(tokens >= 8, (COUNT, 1)),
        relevance=1 - row,
        guided=np.tile(tokens >= 4, (COUNT, 1)).astype(np.float32),
        hinted=np.tile(tokens < 12, (COUNT, 1)).astype(np.float32),
        prediction=truth,
    )
    return images, shown


def columns_of(model, images, shown, marked=(5, 10)):
    """The columns of a sheet, cut out and reduced to the images' size."""
    drawn = partition_sheet(model, images, np.array(marked), shown, norm_pix=False)
    found = cut(drawn, TITLES, len(images))
    return found, {name: reduced(column, 8) for name, column in found.items()}


def test_every_column_shows_its_subject(model, scene):
    images, shown = scene
    large, small = columns_of(model, images, shown)
    np.testing.assert_array_equal(small["image"][0, :2], images[0, :2])
    hidden = pictures.token_pixels(shown.guided > 0, (4, 4), (2, 2))[..., 0]
    assert (small["mask"][hidden] == pictures._HIDDEN).all()
    np.testing.assert_array_equal(small["mask"][~hidden], images[~hidden])
    hinted = pictures.token_pixels(shown.hinted > 0, (4, 4), (2, 2))[..., 0]
    assert (small["mask with hints"][hinted] == pictures._HIDDEN).all()
    made = small["reconstruction"].astype(int)
    assert np.abs(made - images).max() <= 1
    # Dark to light along the tokens, and the other way round.
    light = small["relation map"].astype(int).sum(-1)
    assert light[0, 0, 0] < light[0, 4, 6] < light[0, 7, 6]
    light = small["relevance"].astype(int).sum(-1)
    assert light[0, 0, 0] > light[0, 4, 6] > light[0, 7, 6]
    # Orange below, where the object is, blue above.
    tinted = small["bi-partition"].astype(int)
    assert (tinted[:, 4:, :, 0] > tinted[:, 4:, :, 2]).all()
    assert (tinted[:, :4, :, 0] < tinted[:, :4, :, 2]).all()
    assert large["image"].shape == (COUNT, 160, 160, 3)


def test_the_marked_token_is_framed(model, scene):
    large, _ = columns_of(model, *scene, marked=(5, 10))
    frame = (large["relation map"] == (213, 94, 0)).all(-1)
    for image, (row, column) in enumerate(((1, 1), (2, 2))):
        y, x = np.nonzero(frame[image])
        assert (y // 40 == row).all() and (x // 40 == column).all()
        assert len(y) == 40 * 40 - 30 * 30


def test_what_is_degenerate_or_broken_is_drawn_grey_or_dark(model, scene):
    images, shown = scene
    nothing = shown._replace(
        object=np.zeros_like(shown.object),
        relevance=np.full_like(shown.relevance, 0.3),
        relation=np.full_like(shown.relation, np.nan),
        prediction=np.full_like(shown.prediction, np.nan),
    )
    _, small = columns_of(model, images, nothing)
    tinted = small["bi-partition"]
    assert (tinted == tinted[..., :1]).all()
    assert (small["relevance"] == small["relevance"][0, 0, 0]).all()


@pytest.fixture
def series(model, scene):
    images, shown = scene
    ids = np.arange(COUNT, dtype=np.int32)
    study = types.SimpleNamespace(
        marked=np.array([5, 10]), options=Options(ratio=0.75, norm_pix=False)
    )
    samples = Samples(images, ids, shown.object)
    drawn = {0: shown, 20: shown}
    masks = {step: shown.guided for step in drawn}
    return Series(
        make_record(),
        drawn,
        masks,
        samples,
        study,  # type: ignore[arg-type]
        model,
    )


def test_the_page_stands_alone(series, tmp_path):
    (tmp_path / "pictures_00000099.png").write_bytes(b"of an earlier analysis")
    page = write_gallery(series, tmp_path)
    text = page.read_text()
    assert page.name == "index.html"
    names = {path.name for path in tmp_path.glob("pictures_*.png")}
    assert names == {"pictures_00000000.png", "pictures_00000020.png"}
    assert (tmp_path / "masks.png").exists()
    assert "<h2>Masks over training</h2><figure><img" in text
    assert "<script" not in text and "http" not in text and str(tmp_path) not in text
    images = re.findall(r"<img [^>]+>", text)
    assert len(images) == len(list(tmp_path.glob("*.png")))
    for image in images:
        assert 'src="data:image/png;base64,' in image
        assert re.search(r'alt="[^"]{20,}"', image)
    assert not list(tmp_path.glob(".*"))


def test_the_page_has_numbers_of_every_step(series, tmp_path):
    text = write_gallery(series, tmp_path).read_text()
    head = re.search(r"<thead>(.+?)</thead>", text)[1]
    assert "ARI" in head and "IoU, hinted" in head
    body = re.search(r"<tbody>(.+?)</tbody>", text)[1]
    assert re.findall(r'<th scope="row">(\d+)</th>', body) == ["0", "10", "20"]
    assert body.count("<td>") == 3 * (head.count("<th>") - 1)


def test_names_are_escaped_and_gaps_are_dashes(series, tmp_path):
    series.record["source"] = "<b>&"
    series.record["steps"]["10"]["partition"]["eigenvalue"] = None
    text = write_gallery(series, tmp_path).read_text()
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text
    assert "<td>–</td>" in text


def test_without_pictures_there_are_still_numbers(series, tmp_path):
    empty = jax.tree.map(lambda x: x[:0], series.shown)
    (tmp_path / "masks.png").write_bytes(b"of an earlier analysis")
    series = series._replace(shown=empty, masks={})
    text = write_gallery(series, tmp_path).read_text()
    assert not (tmp_path / "masks.png").exists() and "<h2>Masks" not in text
    assert "<h2>Pictures" not in text and "<h2>Numbers" in text
