"""Training steps lowered for meshes and accelerators that this machine has not.

Nothing of a model's size is allocated: states and batches are shapes with shardings,
the mesh is abstract, and `jax.export` stops short of the accelerator's compiler.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding

from sgmae_jax import domains, methods
from sgmae_jax.config import assign, flatten, load_config, shipped
from sgmae_jax.methods.base import Batch, Run
from sgmae_jax.training.mesh import BATCH, check_batch, placed, state_shardings
from sgmae_jax.training.state import TrainState, enter_stage, init_state
from sgmae_jax.training.step import jitted_step

IMAGES = 1_281_167
# What hands work to the host, as primitives and as calls in the lowered text.
_HOST = re.compile(r"callback|infeed|outfeed|debug_print")
_OF_CPU = re.compile(r"lapack|cpu|eigen", re.IGNORECASE)


class Case(NamedTuple):
    """A config to lower.

    Attributes:
        name: of a shipped config.
        method: taken in its place, with that method's defaults, if there is a name.
        changes: field -> value.
    """

    name: str
    method: str | None = None
    changes: tuple[tuple[str, Any], ...] = ()


def pod(data: int, fsdp: int) -> AbstractMesh:
    """A mesh as `make_mesh` makes it, without devices."""
    return AbstractMesh((data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)


class Lowering:
    """A method on a mesh, as the training loop would set it up.

    Args:
        case: which.
        mesh: see `pod`; or of devices that are there.
        folder: where a table can be written.
    """

    def __init__(self, case: Case, mesh: Mesh | AbstractMesh, folder):
        config = shipped(case.name, case.method)
        for field, value in case.changes:
            assign(config, field, value)
        self.accumulate = config.optim.accumulate
        # A batch smaller than the pod would be one item a device.
        config.data.batch_size = max(config.data.batch_size, mesh.size)
        check_batch(config.data.batch_size, self.accumulate, mesh)
        self.config, self.mesh = config, mesh
        self.item, facts = _item(config, folder)
        # Phases turn with shares of the run and with small numbers of steps: an epoch
        # of 20 steps meets each of them.
        epochs = config.epochs or 50
        self.run = Run(
            20, 20 * epochs, IMAGES, _frozen(config), **{"facts": {}, **facts}
        )
        self.method = methods.load(config.method.name).build(config, self.run)
        shapes = jax.eval_shape(
            functools.partial(init_state, self.method), jax.random.key(0)
        )
        self.shardings = state_shardings(shapes, mesh)
        self.state = placed(shapes, self.shardings)
        self.batches = {
            name: self._batch(stream, config.data.batch_size)
            for name, stream in methods.streams(config).items()
        }

    def phases(self) -> dict[Any, int]:
        """Every phase of the run, with the step at which it begins."""
        found: dict[Any, int] = {}
        # Guidance may begin by what a monitor has marked, not by a step.
        for marks in ({}, {"behind": 20, "guidance": 40}):
            for step in range(self.run.total_steps):
                found.setdefault(self.method.phase(step, marks), step)
        return found

    def programs(self) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
        """(name, jitted function, arguments) of all that training compiles."""
        method, state = self.method, self.state
        step = jitted_step(method, self.shardings, accumulate=self.accumulate)
        phases = self.phases()
        for phase in phases:
            yield f"step {phase}", step, (state, self.batches, phase)
        for stage in method.stages:
            enter = functools.partial(enter_stage, method, stage)
            yield "stage", jax.jit(enter, out_shardings=self.shardings), (state,)
        if method.monitor:
            rows = max(method.monitor.images // self.mesh.size, 1) * self.mesh.size
            key = jax.eval_shape(lambda: jax.random.key(0))
            arguments = (state.params, self._batch(None, rows), key, state.step)
            yield "monitor", jax.jit(method.monitor.measure), arguments
        if method.sweep:
            absorb = jax.jit(
                method.sweep.absorb,
                static_argnums=3,
                donate_argnums=0,
                out_shardings=self.shardings.params,
            )
            batch = self._batch(None, self.config.data.batch_size)
            last = list(phases)[-1]
            yield "sweep", absorb, (state.params, batch, state.step, last)

    def _batch(self, stream, size: int) -> Batch:
        rows = domains.of_config(self.config).make_rows(self.config, self.run, stream)
        chance = np.random.default_rng(0)
        row = rows.plain(self.item) if stream is None else rows.train(self.item, chance)
        one = {**rows.join([row]), "id": np.zeros(1, np.int32)}
        one["epoch"] = one["id"]
        sharding = NamedSharding(self.mesh, BATCH)
        return {
            name: jax.ShapeDtypeStruct(
                (size, *array.shape[1:]), array.dtype, sharding=sharding
            )
            for name, array in one.items()
        }


class Lowered(NamedTuple):
    """What came out.

    Attributes:
        exported: of `jax.export`.
        text: its module.
        calls: names of the custom calls in it.
        arguments: sharding of each argument that is used, as text.
        donated: how many of them are given up for a result.
        results: sharding of each result that has one, as text.
    """

    exported: jax.export.Exported
    text: str
    calls: frozenset[str]
    arguments: dict[str, str]
    donated: int
    results: list[str]


def lower(function, arguments: tuple[Any, ...], platforms: tuple[str, ...]) -> Lowered:
    """Lowers a jitted function for platforms.

    Raises:
        AssertionError: it needs the host, or what only a CPU has.
    """
    hosted = sorted(set(_host_primitives(function.trace(*arguments).jaxpr.jaxpr)))
    assert not hosted, f"needs the host: {hosted}"
    exported = jax.export.export(function, platforms=platforms)(*arguments)
    text = exported.mlir_module()
    calls = calls_in(text)
    wrong = sorted(name for name in calls if _HOST.search(name) or _OF_CPU.search(name))
    wrong += re.findall(r"stablehlo\.(?:infeed|outfeed|send|recv)\b", text)
    assert not wrong, f"no accelerator has {wrong}"
    head = next(line for line in text.splitlines() if "func public @main" in line)
    head, _, tail = head.partition(" -> ")
    said = re.findall(r'sdy\.sharding<@mesh, (.*?)>[^%]*?loc\("(.*?)"\)', head)
    return Lowered(
        exported,
        text,
        calls,
        {name: sharding for sharding, name in said},
        len(re.findall(r"tf\.aliasing_output|jax\.buffer_donor", head)),
        re.findall(r"sdy\.sharding<@mesh, (.*?)>", tail),
    )


def calls_in(text: str) -> frozenset[str]:
    """Names of the custom calls in a lowered module."""
    return frozenset(re.findall(r"custom_call @([\w.$]+)", text))


def _host_primitives(jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        if _HOST.search(equation.primitive.name):
            yield equation.primitive.name
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from _host_primitives(inner)


def _frozen(config) -> dict[str, Any]:
    """The first stage that AutoMAE needs: as a run of the same sizes describes it."""
    if config.method.name != "automae":
        return {}
    fields = flatten(config).items()
    return {"scorer": {k: v for k, v in fields if not k.startswith("method.")}}


def _item(config, folder) -> tuple[Any, dict[str, Any]]:
    """One made-up item of a config's data, and what `Run` keeps of all of them."""
    domain = domains.of_config(config)
    if domain.UNIT == "image":
        size = (300, 400)
        item: Any = {"image": np.zeros((*size, config.data.channels), np.uint8)}
        item |= {"label": 0, "segments": np.zeros(size, np.uint8)}
        return item, {"classes": 1000, "pixel_classes": 150}
    if domain.UNIT == "row":
        path = folder / "rows.csv"
        if config.data.source == "text":
            path.write_text(f"{config.table.text}\n" + 40 * "CCO\n")
        else:  # as HIGGS.csv: the label in front, no header
            cells = np.random.default_rng(0).normal(size=(40, 29)).round(3)
            cells[:, 0] = np.arange(40) % 2
            np.savetxt(path, cells, fmt="%.3f", delimiter=",")
        config.data.path, config.data.split = str(path), "train"
        source = domain.open_source(config, "train", in_memory=True)
        return source[0], domain.facts(config, source)
    roads = load_config("forecast_mae_roads")
    item = domains.of_config(roads).open_source(roads, "train", in_memory=False)[0]
    # The largest of the sizes that batches are padded to, unless the case names others.
    for name in ("agents", "lanes"):
        sizes = config.motion[name]
        config.motion[name] = sizes[-1:]
    return item, {}


def leaves_over_fsdp(shardings: TrainState) -> int:
    """How many leaves are divided over `fsdp`."""
    return sum("fsdp" in leaf.spec for leaf in jax.tree.leaves(shardings))


def shapes_of(tree: Any) -> list[tuple[tuple[int, ...], np.dtype]]:
    """(shape, dtype) of every leaf."""
    return [(leaf.shape, np.dtype(leaf.dtype)) for leaf in jax.tree.leaves(tree)]
