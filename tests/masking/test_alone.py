"""The package needs jax and numpy, nothing else that this project uses."""

import ast
import pathlib
import subprocess
import sys

import sgmae_jax.masking

FOLDER = pathlib.Path(sgmae_jax.masking.__file__).parent
HEAVY = {
    "chex",
    "etils",
    "flax",
    "grain",
    "jaxtyping",
    "matplotlib",
    "ml_collections",
    "optax",
    "orbax",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
}
CODE = """
import sys
import jax, jax.numpy, numpy
before = set(sys.modules)
import sgmae_jax.masking as masking
masking.check_mask_fn(masking.random_mask, grid=(2, 2), ratio=0.5)
print(*(set(sys.modules) - before))
"""


def test_importing_and_using_it_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "sgmae_jax" in loaded
    assert not loaded & HEAVY


def test_its_files_import_jax_numpy_the_library_and_themselves():
    allowed = {"jax", "numpy", "sgmae_jax", *sys.stdlib_module_names}
    for file in FOLDER.glob("*.py"):
        tree = ast.parse(file.read_text())
        typing_only = [
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for child in ast.walk(node)
        ]
        for node in ast.walk(tree):
            if node in typing_only:
                continue
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert name.split(".")[0] in allowed, (file.name, name)
                if name.startswith("sgmae_jax"):
                    assert name.startswith("sgmae_jax.masking"), (file.name, name)
