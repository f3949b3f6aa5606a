"""The examples run as they stand, from a shell."""

import ast
import os
import pathlib
import re
import subprocess
import sys

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"
FILE = EXAMPLES / "guided_mask_plain_vit.py"


def test_a_plain_vit_is_trained_with_guided_masks():
    environment = {**os.environ, "XLA_FLAGS": "", "PYTHONPATH": str(EXAMPLES.parent)}
    done = subprocess.run(
        [sys.executable, str(FILE)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    rows = re.findall(r"loss ([\d.]+), hidden so far (\d+) % .* (\d+) %", done.stdout)
    losses = [float(row[0]) for row in rows]
    assert len(rows) == 3 and losses[-1] < 0.6 * losses[0]
    assert [row[1] for row in rows] == ["75"] * 3
    assert int(rows[-1][2]) > 88  # random masks: 75; the rest are hints


def test_it_needs_jax_numpy_and_the_masks_alone():
    modules = set()
    for node in ast.walk(ast.parse(FILE.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    assert modules == {"jax", "jax.numpy", "numpy", "time", "sgmae_jax.masking"}
    assert "guided_mask(keys, context, ratio=RATIO, " in FILE.read_text()
