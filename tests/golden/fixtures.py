"""Fixture files: where they are, what is in them, how closely to match them."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(
    os.environ.get("SGMAE_GOLDEN") or REPOSITORY.parent / "shared" / "golden"
)


class Fixture:
    """Arrays of one file by key, and the constants of the run that made them."""

    def __init__(self, path: pathlib.Path):
        with np.load(path, allow_pickle=False) as file:
            self.arrays = dict(file)
        text = self.arrays.pop("meta.json").tobytes().decode()
        self.meta = json.loads(text)

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose key starts with the prefix, which their new key lacks."""
        return {
            key.removeprefix(prefix): array
            for key, array in self.arrays.items()
            if key.startswith(prefix)
        }


def files(folder: str, needs: str) -> list:
    """Test parameters: every file of a folder that has a key starting with `needs`.

    Where there is none, one parameter that skips and says why.
    """
    found = []
    for path in sorted((FOLDER / folder).glob("*.npz")):
        with np.load(path, allow_pickle=False) as file:
            if any(key.startswith(needs) for key in file.files):
                found.append(pytest.param(path, id=path.stem))
    reason = f"no fixture with {needs} in {folder}/ below $SGMAE_GOLDEN"
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


def assert_output(ours, theirs, *, tolerance=2e-5):
    """Within a share of the largest absolute value."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(
        ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max()
    )


def assert_gradients(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]):
    """Within 1e-4 of the largest value of a tensor plus 1e-7; key biases are zero."""
    assert ours.keys() == theirs.keys()
    for name, reference in theirs.items():
        atol = np.full(reference.shape, 1e-4 * np.abs(reference).max() + 1e-7)
        if name.endswith("attn.qkv.bias"):
            third = len(reference) // 3
            atol[third : 2 * third] = 1e-6
        worst = np.max(np.abs(ours[name] - reference) / atol)
        assert worst <= 1, f"{name}: off by {worst:.2f} times the tolerance"
