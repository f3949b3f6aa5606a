"""Every example on the page about nested problems runs as it stands."""

import pathlib
import re

import pytest

import sgmae_jax.bilevel

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "bilevel.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)


@pytest.mark.parametrize("place", range(len(EXAMPLES)))
def test_each_example_runs_alone(place):
    code = compile(EXAMPLES[place], f"bilevel.md, example {place + 1}", "exec")
    exec(code, {"__name__": "example"})


def test_the_page_names_what_there_is():
    assert any("best_response" in code for code in EXAMPLES)
    said = set(re.findall(r"\w+", PAGE.read_text()))
    missing = [name for name in sgmae_jax.bilevel.__all__ if name not in said]
    assert not missing
