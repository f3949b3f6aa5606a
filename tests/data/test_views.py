"""End to end: a map kept in a bank is cropped and mirrored as the image is.

The map is a function of the pixels, the mean of each token, so that what should be
read is known: the same function of the augmented image.
"""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import pytest

from sgmae_jax.data import ImageRows, InMemory, Loader, Synthetic, SyntheticConfig
from sgmae_jax.masking import empty_bank, read_bank, resample, write_bank

GRID, PATCH, COUNT = (8, 8), 4, 256
# Plain surfaces: a texture of seven periods is too fine for eight tokens.
PLAIN = SyntheticConfig(
    train_length=COUNT, contrast=(0.0, 0.0), noise=0.0, brightness=(0.3, 0.7)
)
write = jax.jit(write_bank)


@cache
def loader() -> Loader:
    return Loader(
        InMemory(Synthetic(image_size=(32, 32), config=PLAIN)),
        ImageRows((GRID[0] * PATCH, GRID[1] * PATCH)),
        batch_size=64,
        seed=0,
    )


def score(images):
    """Mean of the first channel of each token, 0 to 255, f32[B, N]."""
    tokens = images[..., 0].reshape(-1, GRID[0], PATCH, GRID[1], PATCH)
    return tokens.astype(np.float32).mean((2, 4)).reshape(len(images), -1)


@cache
def epoch(number):
    """All augmented examples of an epoch, in order of id."""
    steps = range(loader().steps_per_epoch)
    parts = [loader().batch_at(number * len(steps) + step) for step in steps]
    joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(joined["id"])
    return {key: rows[order] for key, rows in joined.items()}


@cache
def bank_of_whole_images():
    bank = empty_bank(COUNT, GRID)
    for batch in loader().sweep():
        bank = write(bank, batch["id"], score(batch["image"]), batch["view"], 0)
    return bank


def error(seen, expected):
    """Root mean square of each image's error, in its standard deviations: the mean."""
    off = np.sqrt(((np.asarray(seen) - expected) ** 2).mean(1))
    return off.mean() / expected.std(1).mean()


def not_at_all(view):
    return np.broadcast_to(np.float32([0, 1]), view.shape)


def cropped_only(view):
    low = np.minimum(view[..., 0], view.sum(-1))
    return np.stack((low, np.abs(view[..., 1])), -1)


def mirrored_only(view):
    sign = np.sign(view[..., 1])
    return np.stack(((1 - sign) / 2, sign), -1)


def from_the_corner(view):
    """Of the right size, but always the top left."""
    size = np.abs(view[..., 1])
    return np.stack((np.zeros_like(size), size), -1)


def axes_exchanged(view):
    return view[:, ::-1]


def half_a_token_off(view):
    """Corners taken for centres."""
    return view + np.stack((view[..., 1] / 16, 0 * view[..., 1]), -1)


def test_a_map_follows_its_image():
    """A token that an outline crosses is off by what interpolation costs, 0.27."""
    batch = epoch(0)
    expected = score(batch["image"])
    seen, known = read_bank(bank_of_whole_images(), batch["id"], batch["view"])
    assert known.all()
    assert error(seen, expected) < 0.35
    # Some crops lie within one surface.
    pairs = [pair for pair in zip(seen, expected, strict=True) if pair[1].std() > 5]
    assert len(pairs) > 0.8 * COUNT
    assert np.median([np.corrcoef(*pair)[0, 1] for pair in pairs]) > 0.95


@pytest.mark.parametrize(
    ("wrong", "at_least"),
    [
        (not_at_all, 0.9),
        (cropped_only, 0.5),
        (mirrored_only, 0.8),
        (from_the_corner, 0.9),
        (axes_exchanged, 0.8),
        (half_a_token_off, 0.45),
    ],
)
def test_the_error_would_show_a_wrong_crop(wrong, at_least):
    batch = epoch(0)
    view = wrong(batch["view"]).astype(np.float32)
    seen, _ = read_bank(bank_of_whole_images(), batch["id"], view)
    assert error(seen, score(batch["image"])) > at_least


def test_within_one_surface_the_map_is_exact():
    """Where the tokens around are equal, only the rounding of the pixels is left."""
    batch = epoch(0)
    bank = bank_of_whole_images()
    stored = np.asarray(bank.relevance, np.float32)
    padded = np.pad(stored, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    spread = around.max((3, 4)) - around.min((3, 4))
    plain = np.asarray(resample(spread, batch["view"])).reshape(COUNT, -1) < 1e-3
    assert plain.sum() > 500
    seen, _ = read_bank(bank, batch["id"], batch["view"])
    assert np.abs(seen - score(batch["image"]))[plain].max() <= 1


def test_from_one_view_to_another():
    """Written from the crops of one epoch, read by those of the next."""
    first, second = epoch(0), epoch(1)
    scores = score(first["image"])
    bank = write(empty_bank(COUNT, GRID), first["id"], scores, first["view"], 3)
    seen, known = read_bank(bank, second["id"], second["view"])
    assert known.all()
    expected = score(second["image"])
    assert 1.5 * error(seen, expected) < error(scores, expected)
    # A second view of the same example adds the parts that the first one lacks.
    third = epoch(2)
    both = write(bank, third["id"], score(third["image"]), third["view"], 4)
    again, _ = read_bank(both, second["id"], second["view"])
    assert error(again, expected) < 0.8 * error(seen, expected)


def test_two_crops_meet_at_the_same_points():
    """Tokens of the second, read where those of the first lie, hold what they do."""
    from sgmae_jax.models.points import (
        centres,
        from_source,
        inside,
        sample_tokens,
        to_source,
    )

    pairs = Loader(
        InMemory(Synthetic(image_size=(32, 32), config=PLAIN)),
        ImageRows((GRID[0] * PATCH, GRID[1] * PATCH), pairs=True),
        batch_size=64,
        seed=0,
    )
    batch, alone = pairs.batch_at(0), loader().batch_at(0)
    assert (batch["image"] == alone["image"]).all()
    assert (batch["other_image"] != batch["image"]).any()

    def apart(view):
        points = from_source(to_source(centres(GRID), batch["view"]), view)
        tokens = score(batch["other_image"])[..., None]
        there = np.asarray(sample_tokens(tokens, points, GRID)[0])[..., 0]
        counted = np.asarray(inside(points))
        assert counted.mean() > 0.2
        return np.abs(there - score(batch["image"]))[counted].mean()

    right, wrong = apart(batch["other_view"]), apart(batch["other_view"][::-1])
    assert right < 6 < 3 * right < wrong
