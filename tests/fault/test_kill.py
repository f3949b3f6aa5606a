"""A process that is killed while it saves never leaves wrong weights."""

import os
import pathlib
import random
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from sgmae_jax.checkpointing import Checkpointer

_CHILD = """
import sys
import jax, jax.numpy as jnp
from sgmae_jax.checkpointing import Checkpointer

SHAPES = {str(i): (256, 256) for i in range(12)}
directory = sys.argv[1]
checkpointer = Checkpointer(directory, keep=2)
target = {"w": {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in SHAPES.items()}}
found = checkpointer.restore(target)
state = found[1] if found else {"w": {n: jnp.zeros(s) for n, s in SHAPES.items()}}
step = found[0] if found else 0
advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
print("ready", flush=True)
while True:
    step += 1
    state = advance(state)
    checkpointer.save(step, state, {"step": step})
"""


def kill_while_saving(directory, times, seed):
    rng = random.Random(seed)
    target = {
        "w": {str(i): jax.ShapeDtypeStruct((256, 256), np.float32) for i in range(12)}
    }
    last, leftovers = 0, 0
    for _ in range(times):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(directory)],
            env=dict(os.environ),
            stdout=subprocess.PIPE,
            text=True,
        )
        # Lines before it tell of leftovers that the last kill has caused.
        while child.stdout.readline() != "ready\n":
            assert child.poll() is None
        # On a busy machine the first save may take longer than any sleep below.
        while not any(p.name.isdigit() for p in pathlib.Path(directory).iterdir()):
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0.05, 0.6))
        child.kill()
        child.wait()
        leftovers += any("tmp" in p.name for p in pathlib.Path(directory).iterdir())
        heard = []
        checkpointer = Checkpointer(directory, log=heard.append)
        found = checkpointer.restore(target)
        checkpointer.close()
        assert not any(".bad" in line for line in heard), heard
        if found is None:
            assert last == 0
            continue
        step, state, meta = found
        assert step >= last and meta == {"step": step}
        for leaf in jax.tree.leaves(state):
            assert np.all(np.asarray(leaf) == step)
        last = step
    return last, leftovers


@pytest.mark.fault(1)
def test_three_kills(tmp_path):
    last, _ = kill_while_saving(tmp_path, 3, seed=0)
    assert last > 0


@pytest.mark.slow
@pytest.mark.fault(1)
def test_twenty_five_kills(tmp_path):
    # A test that never hits a save would prove nothing.
    last, leftovers = kill_while_saving(tmp_path, 25, seed=1)
    assert last > 0 and leftovers > 3
