"""The picture of pixel classes: colours that are told apart, and where they stand."""

import itertools

import numpy as np

from sgmae_jax.analysis.pictures import _GAP, _TEXT
from sgmae_jax.analysis.segments import _GREY, PALETTE, coloured, segments_sheet

# Linear RGB as protanopes and deuteranopes see it (Machado et al. 2009, severity 1).
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def lab(colours, sight):
    """CIELAB of sRGB colours as they are seen."""
    values = colours / 255
    linear = np.where(
        values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4
    )
    xyz = np.clip(linear @ sight.T, 0, 1) @ XYZ.T / XYZ.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def test_all_colours_are_told_apart():
    colours = np.vstack([PALETTE, _GREY])
    for name, sight in SIGHT.items():
        for one, other in itertools.combinations(lab(colours, sight), 2):
            assert np.linalg.norm(one - other) > 30, name


def test_each_class_has_its_colour_and_255_is_grey():
    classes = np.array([[0, 1, 11, 12, 255]])
    wanted = [PALETTE[0], PALETTE[1], PALETTE[11], PALETTE[0], _GREY]
    np.testing.assert_array_equal(coloured(classes)[0], wanted)


def test_the_sheet_shows_input_truth_and_prediction():
    images = np.full((2, 160, 160, 1), 77, np.uint8)
    true = np.full((2, 160, 160), 3, np.uint8)
    true[1] = 255
    sheet = segments_sheet(images, true, np.full((2, 160, 160), 5, np.int32))
    column, top = (sheet.shape[1] - _GAP) // 3, _TEXT + 2 * _GAP
    found = [
        [sheet[top + 80 + row * (160 + _GAP), _GAP + 80 + i * column] for i in range(3)]
        for row in (0, 1)
    ]
    grey = np.full(3, 77)
    np.testing.assert_array_equal(found[0], [grey, PALETTE[3], PALETTE[5]])
    np.testing.assert_array_equal(found[1], [grey, _GREY, PALETTE[5]])
