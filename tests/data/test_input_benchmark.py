"""The crops that benchmarks.input times are those of plain Pillow."""

from __future__ import annotations

import pytest

from benchmarks.input import difference, link_images, smooth_photographs, timed
from benchmarks.input_loaders import BATCH, Ours


@pytest.mark.parametrize("kept", [False, True])
def test_our_crops_are_those_of_plain_pillow(tmp_path, kept):
    made, root = tmp_path / "made", tmp_path / "linked"
    made.mkdir()
    smooth_photographs(made, 4)
    link_images(made, root, BATCH)
    options = {"cache": str(tmp_path / "kept")} if kept else {"pictures": True}
    ours = Ours(root, **options)
    assert difference(ours, root) == 0
    for workers in (1, 2):
        wall, _, images = timed(ours, workers)
        assert wall > 0 and images == BATCH
