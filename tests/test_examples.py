"""The examples run as they stand, and need of this project what they say."""

import ast
import importlib.util
import pathlib

import numpy as np

EXAMPLE = (
    pathlib.Path(__file__).resolve().parents[1] / "examples/guided_mask_plain_vit.py"
)


def test_a_plain_vit_is_guided_by_its_own_features(capsys):
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses, share = module.main(steps=60)
    assert np.isfinite([*losses[False], *losses[True]]).all()
    assert losses[False][-1] < losses[False][0]
    assert share > 0.8  # random masks hide 0.75 of anything
    assert "object" in capsys.readouterr().out


def test_of_this_project_it_imports_the_masks_alone():
    tree = ast.parse(EXAMPLE.read_text())
    names = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert names == {"jax", "jax.numpy", "numpy", "sgmae_jax.masking"}
