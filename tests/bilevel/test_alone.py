"""The package stands alone: jax, optax and jaxtyping, nothing of this project."""

import ast
import pathlib
import sys

import sgmae_jax.bilevel

FOLDER = pathlib.Path(sgmae_jax.bilevel.__file__).parent


def test_its_files_import_jax_optax_and_themselves():
    allowed = {"jax", "jaxtyping", "optax", "sgmae_jax", *sys.stdlib_module_names}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.split(".")[0] in allowed, (file.name, name)
                if name.startswith("sgmae_jax"):
                    assert name.startswith("sgmae_jax.bilevel"), (file.name, name)
