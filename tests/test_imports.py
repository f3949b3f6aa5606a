"""Imports point downwards only, and cheap things stay cheap."""

import ast
import pathlib
import subprocess
import sys
import time

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "sgmae_jax"
# A module may import, at its top, only from lower ranks and from its own package.
RANKS = {
    "rules": 0,
    "sources": 0,
    "processes": 0,
    "huge_pages": 0,
    "user_cache": 0,
    "masking": 0,
    "schema": 1,
    "config": 2,
    "agreement": 3,
    "models": 3,
    "bilevel": 3,
    "optimizer": 3,
    "data": 3,
    "checkpointing": 3,
    "weights": 4,
    "methods": 5,
    "evaluation": 6,
    "analysis": 6,
    "domains": 7,
    "training": 8,
    "tasks": 9,
    "main": 10,
}
FILES = sorted(
    file
    for file in PACKAGE.rglob("*.py")
    if file.parent != PACKAGE or file.stem[0] != "_"
)


def part_of(file: pathlib.Path) -> str:
    """The rank's name of a file: its sub-package or its own name."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def top_imports(file: pathlib.Path) -> set[str]:
    """Parts of sgmae_jax that a file imports when it is imported."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            pieces = name.split(".")
            if pieces[0] == "sgmae_jax" and pieces[1] in RANKS:
                found.add(pieces[1])
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_downwards(file):
    own = part_of(file)
    if own == "configs":
        pytest.skip("a shipped config, not a part of the package")
    upwards = {
        part for part in top_imports(file) if part != own and RANKS[part] >= RANKS[own]
    }
    assert not upwards, f"{file.name} imports {upwards} from above"


def test_every_part_has_a_rank():
    parts = {part_of(file) for file in FILES} - {"configs"}
    assert parts <= RANKS.keys()


def test_masking_needs_jax_and_numpy_only():
    code = "import sys, sgmae_jax.masking; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = "flax optax orbax grain tensorflow matplotlib chex ml_collections jaxtyping"
    assert not set(heavy.split()) & {name.split(".")[0] for name in loaded}


def test_help_is_quick_and_imports_nothing_heavy():
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sgmae_jax.main", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.perf_counter() - began < 1.5
    assert "--config" in done.stdout
    assert "jax._src" not in done.stderr


def test_every_package_is_listed_in_the_metadata():
    import configparser

    parser = configparser.ConfigParser()
    parser.read(PACKAGE.parent / "setup.cfg")
    listed = set(parser["options"]["packages"].split())
    there = {
        "sgmae_jax." + ".".join(init.parent.relative_to(PACKAGE).parts)
        for init in PACKAGE.rglob("__init__.py")
        if init.parent != PACKAGE
    }
    assert listed == there | {"sgmae_jax", "sgmae_jax.configs"}
