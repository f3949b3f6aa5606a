"""Every example on the page about masks runs as it stands."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
EXAMPLES = re.findall(r"```python\n(.*?)```", (DOCS / "masking.md").read_text(), re.S)


@pytest.mark.parametrize("place", range(len(EXAMPLES)))
def test_each_example_runs_alone(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = compile(EXAMPLES[place], f"masking.md, example {place + 1}", "exec")
    exec(code, {"__name__": "example"})
    for picture in tmp_path.glob("*.png"):
        assert picture.stat().st_size < 150_000


def test_the_page_shows_what_it_says():
    kinds = ("pmap", "shard_map", "check_mask_fn", "take_along_axis", "savefig")
    assert all(any(kind in code for code in EXAMPLES) for kind in kinds)
    assert (DOCS / "images" / "masks.png").stat().st_size < 150_000
