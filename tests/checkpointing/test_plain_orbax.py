"""The code shown in docs/checkpoints.md reads a step without this package."""

import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sgmae_jax.checkpointing import Checkpointer
from tests.checkpointing.states import make_state

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "checkpoints.md"
EXAMPLE = '"/data/runs/quickstart/checkpoints/1000/state"'


def test_the_documented_lines_restore_the_parameters(tmp_path):
    state = make_state(2)
    # Written on eight devices, read where there is one.
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    kernels = state["params"]["encoder"], state["params"]["decoder"]
    for layer in kernels:
        layer["kernel"] = jax.device_put(layer["kernel"], rows)
    checkpointer = Checkpointer(tmp_path / "checkpoints")
    checkpointer.save(2, state, {})
    assert checkpointer.wait()
    checkpointer.close()

    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert "sgmae" not in code and EXAMPLE in code
    code = code.replace(EXAMPLE, repr(str(tmp_path / "checkpoints" / "2" / "state")))
    packages = [sysconfig.get_paths()[name] for name in ("purelib", "platlib")]
    program = f"""
import sys
sys.path += {packages!r}
sys.modules["sgmae_jax"] = None  # importing it is an error from here on
{code}
assert jax.device_count() == 1 and "sgmae_jax.checkpointing" not in sys.modules
np.savez(
    {str(tmp_path / "out.npz")!r},
    kernel=params["encoder"]["kernel"],
    bias=np.asarray(params["encoder"]["bias"], np.float32),
    decoder=params["decoder"]["kernel"],
)
"""
    # -I: no working directory, no PYTHONPATH; -S: no site, no .pth files.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        env={name: v for name, v in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    params = make_state(2)["params"]
    np.testing.assert_array_equal(out["kernel"], params["encoder"]["kernel"])
    np.testing.assert_array_equal(
        out["bias"], np.asarray(params["encoder"]["bias"], np.float32)
    )
    np.testing.assert_array_equal(out["decoder"], params["decoder"]["kernel"])
