"""A wrong name is told apart by what is wrong with it."""

import pytest

from sgmae_jax.masking import MaskError, load_mask_fn, random_mask


def test_a_name_gives_the_function():
    assert load_mask_fn("sgmae_jax.masking:random_mask") is random_mask
    assert load_mask_fn("sgmae_jax.masking.uniform:random_mask") is random_mask


BAD_NAMES = [
    ("random_mask", "not of the form package.module:function"),
    ("sgmae_jax.masking.random_mask", "not of the form"),
    ("", "not of the form"),
    (":random_mask", "not of the form"),
    ("sgmae_jax.masking:", "not of the form"),
    ("sgmae_jax:masking:random_mask", "not of the form"),
    ("no.such:mask", "there is no module 'no'"),
    ("sgmae_jax.maskin:random_mask", "there is no module 'sgmae_jax.maskin'"),
    ("sgmae_jax.masking:randon_mask", "did you mean random_mask"),
    ("sgmae_jax.masking:gridmask", "did you mean grid_mask"),
    ("sgmae_jax.masking:qqq", "has no 'qqq'"),
    ("sgmae_jax.masking:__all__", "not callable, it is of type list"),
    (".masking:random_mask", "cannot be imported"),
]


@pytest.mark.parametrize("name, words", BAD_NAMES)
def test_bad_names(name, words):
    with pytest.raises(MaskError) as caught:
        load_mask_fn(name)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "source, words",
    [
        ("import missing_thing", "No module named 'missing_thing'"),
        ("def mask(:", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    ],
)
def test_a_module_that_fails_on_import_shows_why(source, words, tmp_path, monkeypatch):
    (tmp_path / "broken_masks.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "broken_masks", raising=False)
    with pytest.raises(MaskError) as caught:
        load_mask_fn("broken_masks:mask")
    assert "module broken_masks cannot be imported" in str(caught.value)
    assert words in str(caught.value) and "\n" not in str(caught.value)
