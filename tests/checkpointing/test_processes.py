"""Two processes of one job write, damage, restore and write again together."""

import os
import socket
import subprocess
import sys

import pytest

_PROCESS = """
import pathlib, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sgmae_jax.checkpointing import Checkpointer, RestoreRefused

address, index, directory = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
shardings = {
    "w": NamedSharding(mesh, PartitionSpec("data")),
    "n": NamedSharding(mesh, PartitionSpec()),
}

def state(k):
    make = lambda k: {"w": jnp.arange(64.0).reshape(8, 8) + k, "n": k}
    return {"params": jax.jit(make, out_shardings=shardings)(jnp.float32(k))}

target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state(0)
)

def check(found, step, value):
    assert found[0] == step and found[2] == {"value": value}
    want = state(value)["params"]["w"].addressable_shards
    for got, shard in zip(found[1]["params"]["w"].addressable_shards, want):
        np.testing.assert_array_equal(got.data, shard.data)

lines = []
checkpointer = Checkpointer(directory, keep=2, log=lines.append)
for step in (1, 2, 3):
    checkpointer.save(step, state(step), {"value": step})
assert checkpointer.wait()
check(checkpointer.restore(target), 3, 3)
if index == "0":
    path = pathlib.Path(directory, "3", "state", "manifest.ocdbt")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
check(checkpointer.restore(target), 2, 2)
for value in (3, 4):
    checkpointer.save(3, state(value), {"value": value})
    assert checkpointer.wait()
check(checkpointer.restore(target), 3, 4)
assert len(lines) == (index == "0")
try:
    checkpointer.restore(target, accept=lambda meta: "no")
except RestoreRefused:
    checkpointer.close()
    print("done")
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = "--xla_force_host_platform_device_count=2"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, address, str(i), str(tmp_path)],
            env={**os.environ, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process in processes:
        out, error = process.communicate(timeout=120)
        assert process.returncode == 0 and out.endswith("done\n"), error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "3.bad"]
