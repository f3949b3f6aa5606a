import numpy as np
import pytest
from PIL import Image

from sgmae_jax.analysis import pictures
from sgmae_jax.analysis.pictures import reconstruction_sheet, save_png
from sgmae_jax.models import normalise_patches, patchify

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def scene(*, height=8, width=12, channels=3, patch=(4, 3), count=2, norm_pix=False):
    """Images, a half-hidden mask, and the prediction of a perfect model."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    # Blocks of one level: pixels of the enlarged sheet are easy to find again.
    mean, std = np.resize(MEAN, channels), np.resize(STD, channels)
    truth = patchify((images / 255 - mean) / std, patch).astype(np.float32)
    if norm_pix:
        truth = np.asarray(normalise_patches(truth)[0])
    hidden = (np.arange(truth.shape[1]) % 2 == 0).astype(np.float32)
    options = dict(patch_size=patch, mean=mean, std=std, norm_pix=norm_pix)
    return images, np.tile(hidden, (count, 1)), truth, options


def cells(sheet, images):
    """The four columns, cut out of the sheet and reduced to the images' size."""
    count, height, width, _ = images.shape
    factor = max(1, -(-160 // max(height, width)))
    column = (sheet.shape[1] - pictures._GAP) // 4
    top = pictures._TEXT + 2 * pictures._GAP
    found = []
    for index in range(4):
        left = pictures._GAP + index * column
        left += (column - pictures._GAP - width * factor) // 2
        rows = []
        for row in range(count):
            y = top + row * (height * factor + pictures._GAP)
            cut = sheet[y : y + height * factor, left : left + width * factor]
            small = cut[::factor, ::factor]
            large = small.repeat(factor, 0).repeat(factor, 1)
            np.testing.assert_array_equal(large, cut)
            rows.append(small)
        found.append(np.stack(rows))
    return found


@pytest.mark.parametrize("norm_pix", [False, True])
def test_a_perfect_prediction_gives_the_image_back(norm_pix):
    images, hidden, pred, options = scene(norm_pix=norm_pix)
    sheet = reconstruction_sheet(images, hidden, pred, **options)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    shown, masked, made, pasted = cells(sheet, images)
    np.testing.assert_array_equal(shown, images)
    assert np.abs(made.astype(int) - images).max() <= 1
    assert np.abs(pasted.astype(int) - images).max() <= 1
    covered = (masked == pictures._HIDDEN).all(-1)
    grid = hidden.reshape(2, 2, 4).repeat(4, 1).repeat(3, 2) > 0
    assert covered[grid].all()
    np.testing.assert_array_equal(masked[~grid], images[~grid])


def test_visible_patches_are_pasted_and_hidden_ones_are_not():
    images, hidden, pred, options = scene()
    sheet = reconstruction_sheet(images, hidden, np.full_like(pred, 1e3), **options)
    _, _, made, pasted = cells(sheet, images)
    grid = hidden.reshape(2, 2, 4).repeat(4, 1).repeat(3, 2) > 0
    assert (made == 255).all() and (pasted[grid] == 255).all()
    np.testing.assert_array_equal(pasted[~grid], images[~grid])


def test_norm_pix_uses_the_true_mean_of_each_patch():
    images, hidden, pred, options = scene(norm_pix=True)
    sheet = reconstruction_sheet(images, hidden, np.zeros_like(pred), **options)
    made = cells(sheet, images)[2]
    mean, std = np.array(MEAN), np.array(STD)
    normed = patchify((images / 255 - mean) / std, (4, 3))
    level = normed.mean(-1)[0, 0] * std + mean
    np.testing.assert_allclose(made[0, 0, 0], 255 * level.clip(0, 1), atol=1)


@pytest.mark.parametrize(
    ("channels", "shown"),
    [(1, (0, 0, 0)), (2, (0, 0, 0)), (3, (0, 1, 2)), (5, (0, 1, 2))],
)
def test_any_number_of_channels(channels, shown):
    images, hidden, pred, options = scene(channels=channels)
    first = cells(reconstruction_sheet(images, hidden, pred, **options), images)[0]
    np.testing.assert_array_equal(first, images[..., list(shown)])


@pytest.mark.parametrize(
    ("height", "width", "patch"),
    [(4, 40, (4, 4)), (40, 4, (4, 4)), (224, 224, (16, 16))],
)
def test_any_shape_is_readable(height, width, patch):
    images, hidden, pred, options = scene(
        height=height, width=width, patch=patch, count=1
    )
    sheet = reconstruction_sheet(images, hidden, pred, **options)
    np.testing.assert_array_equal(cells(sheet, images)[0], images)
    assert 300 < sheet.shape[1] < 1200


def test_the_caption_says_which():
    images, hidden, pred, options = scene(norm_pix=False)
    raw = reconstruction_sheet(images, hidden, pred, **options)
    options["norm_pix"] = True
    normed = reconstruction_sheet(images, hidden, pred, **options)
    assert "true mean" in pictures._NORMALISED and "true" not in pictures._RAW
    bottom = -20
    assert not np.array_equal(raw[bottom:], normed[normed.shape[0] + bottom :])
    for sheet in (raw, normed):
        assert (sheet[bottom:] < 100).any() and (
            sheet[: pictures._TEXT + 5] < 100
        ).any()


def test_nan_is_drawn_without_a_warning():
    images, hidden, pred, options = scene()
    made = cells(
        reconstruction_sheet(images, hidden, np.full_like(pred, np.nan), **options),
        images,
    )[2]
    assert (made == 0).all()


def test_save_png(tmp_path):
    images, hidden, pred, options = scene()
    sheet = reconstruction_sheet(images, hidden, pred, **options)
    save_png(tmp_path / "a.png", sheet)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), sheet)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_shapes_that_do_not_fit_are_named():
    images, hidden, pred, options = scene()
    with pytest.raises(ValueError, match=r"need hidden \(2, 8\) and pred \(2, 8, 36\)"):
        reconstruction_sheet(images, hidden[:, 1:], pred, **options)
    with pytest.raises(ValueError, match=r"got \(2, 8\) and \(2, 8, 35\)"):
        reconstruction_sheet(images, hidden, pred[..., 1:], **options)
