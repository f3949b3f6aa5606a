"""One in a hundred of 1000 files cannot be used; others are odd and can."""

import io

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.data import ImageRows, Loader, TooManyBad, open_source
from tests.data.test_images import BAD, JPEG, ODD

# The unusable ones: empty, text, cut short, a bomb, damaged, without a range.
SPOILT = dict(list(BAD.items())[:10])


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """1000 files, 1 % of them bad, and the pixels that the odd ones stand for."""
    folder = tmp_path_factory.mktemp("thousand")
    rng = np.random.default_rng(0)
    for number in range(1000):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        (folder / f"{number:04}.png").write_bytes(buffer.getvalue())
    wanted = {}
    for number, (data, expected) in enumerate(ODD.values()):
        # All of them by the name of a PNG: what counts is what is inside.
        (folder / f"{20 * number + 3:04}.png").write_bytes(data)
        wanted[20 * number + 3] = expected
    bad = {}
    for number, (data, reason) in enumerate(SPOILT.values()):
        (folder / f"{20 * number + 7:04}.png").write_bytes(data)
        bad[20 * number + 7] = reason
    (folder / "0999.png").write_bytes(JPEG)
    return folder, wanted, bad


@pytest.mark.fault(11)
def test_odd_files_equal_their_reference(thousand):
    folder, wanted, _ = thousand
    source = open_source("folder", path=str(folder))
    assert len(source) == 1000 and len(wanted) > 20
    for number, expected in wanted.items():
        found = source[number]["image"].astype(float)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1
    assert source[999]["image"].shape == (128, 128, 3)


@pytest.mark.fault(11)
def test_bad_files_are_counted_named_and_replaced_by_the_next(thousand):
    folder, _, bad = thousand
    source = open_source("folder", path=str(folder))
    made = Loader(
        source, ImageRows((8, 8)), batch_size=250, seed=0, max_bad_fraction=0.01
    )
    batches = [made.batch_at(step) for step in range(4)]
    found = sorted(int(index) for batch in batches for index in batch["id"])
    swap = {number: number + 1 for number in bad}
    assert found == sorted(swap.get(number, number) for number in range(1000))
    assert made.bad.count == 10
    for number, reason in bad.items():
        named = [line for line in made.bad.names if f"{number:04}.png" in line]
        assert len(named) == 1 and reason in named[0]


@pytest.mark.fault(11)
def test_a_run_stops_over_the_limit(thousand):
    source = open_source("folder", path=str(thousand[0]))
    made = Loader(
        source, ImageRows((8, 8)), batch_size=250, seed=0, max_bad_fraction=0.009
    )
    with pytest.raises(TooManyBad, match=r"10 of 1000 .*\.png"):
        for step in range(4):
            made.batch_at(step)
