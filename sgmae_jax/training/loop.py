"""Pre-training: one loop, read from top to bottom, for every method."""

from __future__ import annotations

import contextlib
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from sgmae_jax import __version__, domains, methods
from sgmae_jax.analysis.pictures import save_png
from sgmae_jax.analysis.report import write_report
from sgmae_jax.analysis.score_table import score_table
from sgmae_jax.checkpointing import Checkpointer, SaveFailed
from sgmae_jax.config import ConfigError
from sgmae_jax.data import steps_in
from sgmae_jax.domains.scoring import VALIDATION
from sgmae_jax.methods.base import Marks, Run
from sgmae_jax.processes import check_same, is_first, of_first
from sgmae_jax.training.best import Best
from sgmae_jax.training.console import Console
from sgmae_jax.training.guard import SkipBudget
from sgmae_jax.training.inputs import left_out, make_loader, stream_source
from sgmae_jax.training.mesh import (
    check_batch,
    make_mesh,
    placed,
    placer,
    put_batch,
    state_shardings,
)
from sgmae_jax.training.progress import Progress
from sgmae_jax.training.state import (
    TrainState,
    enter_stage,
    init_state,
    with_given,
)
from sgmae_jax.training.step import jitted_step
from sgmae_jax.training.stop import StopSignal
from sgmae_jax.training.watch import Watch
from sgmae_jax.training.workdir import public_config, write_json
from sgmae_jax.training.writers import MetricWriter, NoWriter

SCHEMA_VERSION = 1
_AHEAD = 2  # steps dispatched before the host waits for the device


def pretrain(config, workdir: pathlib.Path, console: Console) -> None:
    """Trains as the config says, resuming whatever the run directory holds.

    Args:
        config: validated.
        workdir: an open run directory.
        console: where progress is shown.

    Raises:
        ConfigError, DataError, RestoreRefused: exit code 2.
        NoUsableCheckpoint: exit code 3.
        NonFiniteError: exit code 4.
        SaveFailed: exit code 5.
    """
    # ---- devices, data, method ---------------------------------------------------
    mesh = make_mesh(config.mesh)
    check_batch(config.data.batch_size, config.optim.accumulate, mesh)
    domain = domains.of_config(config)
    source = domain.open_source(
        config, config.data.split, in_memory=config.data.in_memory
    )
    streams = methods.streams(config)
    sources = {
        name: stream_source(config, source, name, one) for name, one in streams.items()
    }
    steps_per_epoch = steps_in(
        sources["train"], config.data.batch_size, f"{domain.UNIT}s"
    )
    total_steps = config.steps or config.epochs * steps_per_epoch
    run = Run(
        steps_per_epoch,
        total_steps,
        examples=len(sources["train"]),
        frozen=methods.frozen_networks(config),
        **domain.facts(config, source),
    )
    if config.optim.warmup_epochs * steps_per_epoch >= total_steps:
        raise ConfigError(
            f"config.optim.warmup_epochs = {config.optim.warmup_epochs:g}: must be "
            f"less than the run, {total_steps / steps_per_epoch:.3g} epochs"
        )
    domain.check_mask(config)
    loaders = {
        name: make_loader(config, run, sources[name], one)
        for name, one in streams.items()
    }
    method = methods.load(config.method.name).build(config, run)

    # ---- state: from the newest sound checkpoint, or new ---------------------------
    key = jax.random.key(config.seed)
    begin = functools.partial(init_state, method)  # one object, so traced once
    shapes = jax.eval_shape(begin, key)
    shardings = state_shardings(shapes, mesh, config.mesh.rules)
    make_state = jax.jit(begin, out_shardings=shardings)
    target = placed(shapes, shardings)
    if is_first():
        write_json(workdir / "config.json", public_config(config))
    checkpointer = Checkpointer(
        workdir / "checkpoints",
        keep=config.checkpoint.keep,
        keep_period=config.checkpoint.keep_period,
        max_failures=config.checkpoint.max_failures,
        timeout=config.checkpoint.timeout,
        log=console.say,
    )
    data = {"batch_size": config.data.batch_size, "fingerprint": source.fingerprint()}
    check_same("data set", data)
    restored = checkpointer.restore(
        target._asdict(), accept=functools.partial(_accept, config, data)
    )
    examples = 0  # place in the order of examples
    marks: Marks = {}
    if restored is None:
        state = with_given(method, make_state(key), shardings)
    else:
        _, tree, meta = restored
        state, examples = TrainState(**tree), meta["examples"]
        marks = meta.get("marks", {})
        _say_changes(console, meta["config"], public_config(config))
    start = int(state.step)
    _say_header(
        console, config, domain, source, mesh, method, shapes, run, start, marks
    )

    # ---- everything a step needs ---------------------------------------------------
    step_fn = jitted_step(method, shardings, accumulate=config.optim.accumulate)
    enter = jax.jit(
        lambda state, index: enter_stage(method, method.stages[index], state),
        static_argnums=1,
        out_shardings=shardings,
    )
    boundaries = {stage.begin: i for i, stage in enumerate(method.stages)}
    absorb = method.sweep and jax.jit(
        method.sweep.absorb,
        static_argnums=3,
        donate_argnums=0,
        out_shardings=shardings.params,
    )
    drawing = domain.artists(config, method)
    scorer = domain.make_scorer(
        config, method, run, place=placer(mesh), say=console.say
    )
    first = examples // config.data.batch_size  # differs from `start` if sizes changed
    iterators = {
        name: loader.iterate(first // streams[name].every)
        for name, loader in loaders.items()
    }
    rows: dict[str, Any] = {}
    batches: dict[str, Any] = {}
    writer = (
        MetricWriter(workdir, start_step=start, tensorboard=config.log.tensorboard)
        if is_first()
        else NoWriter()
    )
    watch = Watch(config, run, method, mesh, sources["train"], writer, console)
    budget = SkipBudget(
        budget=config.guard.budget,
        window=config.guard.window,
        folder=workdir if is_first() else None,
    )
    progress = Progress(
        config, run, domain, method, mesh, loaders, writer, console, budget
    )
    best = Best(workdir, console.say) if config.eval.choose_best else None
    progress.begin(start)
    stop = StopSignal(late=_AHEAD)

    def meta_of(step: int) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "examples": (first + step - start) * config.data.batch_size,
            "data": data,
            "run": run._asdict(),
            "marks": dict(marks),
            "config": public_config(config),
        }

    def save(step: int) -> None:
        checkpointer.save(step, state._asdict(), meta_of(step))

    def evaluated(step: int) -> bool:
        # The last step is scored below, for good; here only to see if it is the best.
        if step == total_steps:
            return best is not None
        return _due(step, config.eval.every)

    def evaluate(step: int) -> None:
        found = of_first(scorer.online(state.params))
        writer.write(step, found)
        if best:
            best.offer(step, found[VALIDATION], state.params, meta_of(step))

    def exhausted(step: int) -> bool:
        """Whether the best score has stood for longer than the config has patience."""
        if best is None or config.eval.patience is None or best.step is None:
            return False
        return step - best.step >= config.eval.patience * config.eval.every

    def show(step: int, batch, phase) -> None:
        folder = workdir / "pictures"
        for name, artist in drawing.items():
            pixels = artist(state.params, batch, key, step, phase)
            if not is_first():
                continue
            folder.mkdir(exist_ok=True)
            save_png(folder / f"{name}_{step:08d}.png", pixels)
            writer.picture(step, name, pixels)

    def sweep(step: int, phase) -> None:
        nonlocal state
        console.say(f"step {step}: a pass over the {run.examples} training items")
        with contextlib.closing(loaders["train"].sweep()) as whole:
            for rows in whole:
                if stop.asked():
                    return
                batch = put_batch(rows, mesh)
                state = state._replace(
                    params=absorb(state.params, batch, state.step, phase)
                )

    # ---- the loop ------------------------------------------------------------------
    with stop, contextlib.closing(checkpointer):
        try:
            if start == 0:
                marks = watch.look(0, state, marks)
            elif best and evaluated(start):
                evaluate(start)  # the run may have ended between its save and this
            for step in range(start, total_steps):
                if exhausted(step):
                    save(step)
                    break
                if step in boundaries:
                    state = enter(state, boundaries[step])
                phase = method.phase(step, marks)
                if method.sweep and method.sweep.due(step, marks):
                    progress.flush(step, phase)
                    with progress.aside():
                        sweep(step, phase)
                    if stop.now:  # the sweep is not whole: it will begin anew
                        save(step)
                        break
                place = first + step - start
                for name, it in iterators.items():
                    if name not in rows or place % streams[name].every == 0:
                        rows[name] = next(it)[1]
                        batches[name] = put_batch(rows[name], mesh)
                progress.profile(step)
                state, metrics = step_fn(state, dict(batches), phase)
                done = step + 1
                stop.asked()
                progress.add(done, metrics, dict(rows), ahead=_AHEAD)
                with progress.aside():
                    marks = watch.look(done, state, marks)
                last = done == total_steps or stop.now
                saving = last or done % config.checkpoint.every == 0
                if saving or done % config.log.every == 0:
                    progress.flush(done, phase)
                if saving:
                    save(done)
                with progress.aside():
                    if _due(done, config.log.pictures) or done == total_steps:
                        show(done, batches["train"], phase)
                    if evaluated(done):
                        evaluate(done)
                if stop.now:
                    break
            if not checkpointer.wait():
                raise SaveFailed("the last checkpoint could not be saved")
        finally:
            progress.end_profile()
            for iterator in iterators.values():
                iterator.close()
            if best:
                best.close()
    step = int(state.step)
    if exhausted(step):
        console.say(
            f"ended at step {step}: nothing better on {config.eval.validation_split} "
            f"for {config.eval.patience} scores"
        )
    elif step < total_steps:
        console.say(f"stopped by a signal; step {step} is saved, run again to go on")
        writer.close()
        return

    # ---- scores and report ---------------------------------------------------------
    params = state.params
    if best:
        step, params = best.params(target.params)
        console.say(f"best on {config.eval.validation_split}: step {step}")
    scores = scorer.final(params, lambda: make_state(key).params)
    for line in score_table(scores):
        console.say(line)
    if scores:
        writer.write(int(state.step), scorer.as_metrics(scores))
    writer.close()
    if not is_first():
        return
    if scores:
        write_json(workdir / "scores.json", scores)
    console.say(f"report: {write_report(workdir)}")


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _accept(config, data: dict[str, Any], meta: dict[str, Any]) -> str | None:
    """Why a sound checkpoint must not be used with this config, or None."""
    if meta.get("schema_version") != SCHEMA_VERSION:
        return f"schema version {meta.get('schema_version')}, not {SCHEMA_VERSION}"
    if meta["config"]["method.name"] != config.method.name:
        return f"method {meta['config']['method.name']}, not {config.method.name}"
    if meta["data"] != data and not config.checkpoint.allow_data_change:
        changed = [name for name in data if meta["data"].get(name) != data[name]]
        return (
            f"its data differ ({', '.join(changed)}); "
            "set checkpoint.allow_data_change to go on with the new data"
        )
    return None


def _say_changes(console: Console, old: dict[str, Any], new: dict[str, Any]) -> None:
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            console.say(
                f"changed since the checkpoint: config.{name} "
                f"{old.get(name)!r} -> {new.get(name)!r}"
            )


def _say_header(
    console, config, domain, source, mesh, method, shapes, run, start, marks
) -> None:
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.params))
    flops = method.flops(method.phase(start, marks))
    console.say(
        f"sgmae_jax {__version__} · {config.method.name} · {count / 1e6:.2f} M "
        f"parameters · {domain.title(config)}"
        + (f" · {flops / 1e9:.3g} GFLOP per {domain.UNIT}" if flops else "")
    )
    device = mesh.devices.flat[0]
    console.say(
        f"{source.name}: {len(source)} {domain.UNIT}s, {run.steps_per_epoch} steps an "
        f"epoch, {run.total_steps} steps · {mesh.size} x {device.device_kind}"
    )
    for line in left_out(source):
        console.say(line)
    if start:
        console.say(f"resuming at step {start}")
