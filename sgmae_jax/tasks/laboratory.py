"""One page of everything that one or several runs can be asked."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sgmae_jax.analysis.bootstrap import Interval
from sgmae_jax.analysis.comparison import read_result, score_table_html
from sgmae_jax.analysis.findings import findings
from sgmae_jax.analysis.gallery import gallery_body
from sgmae_jax.analysis.laboratory import Laboratory, Look
from sgmae_jax.analysis.page import section, text, write_page
from sgmae_jax.analysis.report import report_body
from sgmae_jax.analysis.samples import Samples, load_samples
from sgmae_jax.analysis.series import parts_of, spread
from sgmae_jax.analysis.similarity import layer_cka
from sgmae_jax.checkpointing import restore_series, saved_steps
from sgmae_jax.config import ConfigError, pair
from sgmae_jax.evaluation.protocols import several
from sgmae_jax.methods.image import make_autoencoder
from sgmae_jax.tasks.analyze import Opened, open_run, study
from sgmae_jax.training.console import Console
from sgmae_jax.training.workdir import write_json

SCHEMA = 1
_BOTH = {"encoder", "decoder"}


def laboratory(config, workdir: pathlib.Path, console: Console) -> None:
    """Writes `report.html` and `laboratory.json` about the runs of a config."""
    paths = _named(config.laboratory.runs)
    runs: dict[str, dict[str, Any]] = {}
    folds, tokens, samples = [], {}, {}
    for name, path in paths.items():
        console.say(f"{name}: {path.name}")
        wish = config.copy_and_resolve_references()
        wish.checkpoint.path = str(path)
        run = open_run(wish, path, console)
        parts = parts_of(run.config, run.method)
        if "encoder" not in parts:
            raise ConfigError(
                f"config.laboratory.runs: {run.config.method.name} of {path.name!r} "
                "must keep an encoder of images in params['model'], as its config "
                "describes it, to be looked at"
            )
        shown, body = _samples(run, console), ""
        if parts == _BOTH and run.config.model.decoder_depth:
            pictures = workdir / "laboratory" / name
            pictures.mkdir(parents=True, exist_ok=True)
            inside = gallery_body(study(run, console), pictures)
            body = section("Clusters, attention and own masks", inside)
        bench = _bench(run, shown)
        runs[name] = _facts(run, bench.look) | _measured(run, bench, parts, console)
        result = _scores(path, console)
        runs[name]["scores"] = _own(result)
        samples[name], tokens[name] = shown, bench.tokens(run.params["model"])
        if len(paths) == 1 or name == next(iter(paths)):
            start = f"untrained {name}"
            samples[start], tokens[start] = (
                shown,
                bench.tokens(run.untrained()["model"]),
            )
        title, report = report_body(path)
        label = text(f"{name}: {title}" if title else name)
        is_open = " open" if len(paths) == 1 else ""
        folds.append(
            f'<details class="run"{is_open}><summary>{label}</summary>{report}{body}'
            "</details>"
        )
    cka = _similar(tokens, samples, console)
    write_json(
        workdir / "laboratory.json", {"schema": SCHEMA, "runs": runs, "cka": cka}
    )
    results = [found for path in paths.values() if (found := _scores(path, None))]
    body = (
        _intro(runs)
        + findings(runs, cka)
        + (section("H. Downstream", score_table_html(results)) if results else "")
        + "<section><h2>Runs</h2>"
        + "".join(folds)
        + "</section>"
    )
    title = f"Laboratory · {', '.join(paths)}"
    console.say(f"laboratory: {write_page(workdir / 'report.html', title, body)}")


def _named(runs: Any) -> dict[str, pathlib.Path]:
    """Directories by their names; two of one name get a number."""
    paths = [pathlib.Path(run) for run in several(runs) if run]
    if not paths:
        raise ConfigError("config.laboratory.runs = '': must name runs to look at")
    found: dict[str, pathlib.Path] = {}
    for path in paths:
        if not (path / "checkpoints").is_dir():
            raise ConfigError(
                f"config.laboratory.runs: {str(path)!r} must be a run directory, one "
                "that holds checkpoints/"
            )
        name, count = path.resolve().name, 2
        while name in found:
            name, count = f"{path.resolve().name} ({count})", count + 1
        found[name] = path
    return found


def _samples(run: Opened, console: Console) -> Samples:
    config = run.config
    return load_samples(
        run.source,
        count=config.analyze.images,
        image_size=pair(config.data.image_size),
        crop=config.eval.crop,
        patch_size=pair(config.model.patch_size),
        log=console.say,
    )


def _bench(run: Opened, samples: Samples) -> Laboratory:
    config, part = run.config, run.config.laboratory
    look = Look(
        ratio=config.mask.ratio,
        norm_pix=run.method.norm_pix,
        seed=config.seed,
        masks=part.masks,
        pairs=part.pairs,
    )
    return Laboratory(
        make_autoencoder(config),
        samples,
        look,
        ratios=tuple(several(part.ratios)),
        queries=part.queries,
    )


def _facts(run: Opened, look: Look) -> dict[str, Any]:
    """What a run was, as far as tables name it."""
    config = run.config
    usual = config.mask.ratio
    own = [config.method.get(name) for name in ("ratio", "other_ratio")]
    ratios = [usual if ratio is None else ratio for ratio in own]
    return {
        "method": config.method.name,
        "step": run.step,
        "source": run.source.name,
        "split": config.eval.split,
        "images": min(config.analyze.images, len(run.source)),
        "grid": list(make_autoencoder(config).grid),
        "window": config.model.decoder_window,
        "ratios": sorted(set(ratios)),
        "look": {"ratio": look.ratio, "masks": look.masks, "pairs": look.pairs},
    }


def _measured(
    run: Opened, bench: Laboratory, parts: set[str], console: Console
) -> dict[str, Any]:
    """Analyses A to E of the newest checkpoint, and A of those before."""
    if parts != _BOTH:
        console.say(f"{run.config.method.name} has no decoder: similarity alone")
        return {}
    shapes = jax.eval_shape(run.method.init, jax.random.key(0))
    there = [step for step in saved_steps(run.folder) if 0 < step < run.step]
    chosen = spread(there, max(run.config.analyze.checkpoints - 1, 1))
    over = {0: bench.glance(run.untrained()["model"])}
    for step, params in restore_series(
        run.folder, shapes, set(chosen), log=console.say
    ):
        console.say(f"invariance at step {step}")
        over[step] = bench.glance(params["model"])
    console.say(f"analyses at step {run.step}")
    found = bench.measure(run.params["model"])
    over[run.step] = found
    names = ("encoder", "decoder", "error", "variance", "bias", "variance_share")
    return {
        "over_training": {
            str(step): {name: numbers[name] for name in names}
            for step, numbers in over.items()
        },
        "found": found,
    }


def _scores(path: pathlib.Path, console: Console | None) -> Any:
    """What a run scored, or None where it was not scored."""
    try:
        return read_result(path)
    except ValueError as error:
        if console:
            console.say(f"no scores: {error}")
        return None


def _own(result: Any) -> Mapping[str, float]:
    """The scores of a run's first trained features."""
    if result is None:
        return {}
    own = [row for name, row in result.scores.items() if name.startswith("trained ")]
    return own[0] if own else {}


def _similar(
    tokens: Mapping[str, np.ndarray],
    samples: Mapping[str, Samples],
    console: Console,
) -> dict[str, Interval]:
    """CKA of all pairs that were shown the same images."""
    found: dict[str, Interval] = {}
    names = list(tokens)
    for place, one in enumerate(names):
        for two in names[place + 1 :]:
            same = np.array_equal(samples[one].images, samples[two].images)
            if not same or tokens[one].shape[1:3] != tokens[two].shape[1:3]:
                console.say(f"no similarity of {one} and {two}: other images or grid")
                continue
            found[f"{one} and {two}"] = layer_cka(tokens[one], tokens[two], draws=100)
    return found


def _intro(runs: Mapping[str, Mapping[str, Any]]) -> str:
    first = next(iter(runs.values()))
    facts = {
        "runs": str(len(runs)),
        "images": f"{first['images']} of {first['split']}",
        "source": first["source"],
        "tokens": " × ".join(map(str, first["grid"])),
    }
    tiles = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
        for name, value in facts.items()
    )
    return (
        f'<dl class="facts">{tiles}</dl><p>Brackets hold 95 % bootstrap intervals over '
        "images: how far other images would move a number. They say nothing of other "
        "seeds.</p>"
    )
