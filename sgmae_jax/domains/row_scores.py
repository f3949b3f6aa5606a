"""Scores of rows: of answers against the target, or of reconstructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgmae_jax import domains
from sgmae_jax.config import ConfigError
from sgmae_jax.data import Items, plain_batches, slice_source
from sgmae_jax.data.columns import check_rows, target_from
from sgmae_jax.domains.scoring import VALIDATION, check_apart
from sgmae_jax.evaluation import answers
from sgmae_jax.methods.base import Method, Params, Run
from sgmae_jax.processes import fetch

Scores = dict[str, dict[str, float]]
LOWER_IS_BETTER = ("rmse", "reconstruction")


class Scorer:
    """Holds what a method answers of rows against what is known of them.

    A method answers with {"answer": f32[B,K]}, the target's numbers (K = 1, in the
    units of the file) or logits of its classes; or, while it is pre-trained, with
    {"total", "inputs"}, f32[B] each, of errors of reconstruction. All rows that will be
    scored are read once, so that a bad cell is known before training.

    Args:
        config: of the run; its `data`, `table` and `eval` sections are read.
        method: that answers.
        run: that the method was built for.
        place: puts a batch on the devices.
        say: told what was found.

    Raises:
        ConfigError: splits that share rows.
        DataError: a split is not there, or a cell is bad.
    """

    def __init__(
        self,
        config,
        method: Method,
        run: Run,
        *,
        place: Callable[[dict[str, np.ndarray]], dict[str, Any]],
        say: Callable[[str], None],
    ):
        self._config, self._place, self._say = config, place, say
        self._answer = method.answer and jax.jit(method.answer)
        domain = domains.of_config(config)
        target = run.facts.get("target")
        self._target = target and target_from(target)
        self._rows = domain.make_rows(config, run, None)
        part = config.eval

        def opened(split: str) -> Items:
            return domain.open_source(config, split, in_memory=False)

        wanted = {"test": part.split}
        if part.validation_split is not None:
            check_apart(config, "eval.validation_split", "eval.split", opened)
            wanted["validation"] = part.validation_split
        if config.task == "pretrain":
            wanted["train"] = config.data.split
            for field in ("eval.split", "eval.validation_split"):
                if field == "eval.split" or part.validation_split is not None:
                    check_apart(config, "data.split", field, opened)
        self._sources = {name: opened(split) for name, split in wanted.items()}
        for source in self._sources.values():
            check_rows(source, (self._rows.plain,))
        if part.choose_best and self._answer is None:
            raise ConfigError(
                "config.eval.choose_best = True: must be left to methods that answer, "
                f"{config.method.name} does not"
            )

    def online(self, params: Params) -> dict[str, float]:
        """Scores of the validation rows, or where there are none of the test rows."""
        if self._config.eval.choose_best:
            found = self._score(params, self._sources["validation"])
            kind = self._main(found)
            sign = -1 if kind in LOWER_IS_BETTER else 1
            self._say(f"validation: {kind} {found[kind]:.4f}")
            return {VALIDATION: sign * found[kind]}
        source = self._sources.get("validation", self._sources["test"])
        found = self._score(params, source)
        line = ", ".join(f"{kind} {value:.4f}" for kind, value in found.items())
        self._say(f"scores: {line}")
        return {f"eval/{kind}": value for kind, value in found.items()}

    def final(self, params: Params, untrained: Callable[[], Params]) -> Scores:
        """Scores of the test rows, beside those of simple answers."""
        scores: Scores = {}
        test = self._sources["test"]
        if self._config.eval.baselines:
            if self._target is not None:
                scores["constant"] = self._constant(test)
            fresh = untrained()
            scores["untrained"] = self._score(fresh, test)
            del fresh
        scores["trained"] = self._score(params, test)
        return {name: row for name, row in scores.items() if row}

    def as_metrics(self, scores: Scores) -> dict[str, float]:
        """Flat names for the log."""
        return {f"eval/{kind}": value for kind, value in scores["trained"].items()}

    def _score(self, params: Params, source: Items) -> dict[str, float]:
        if self._answer is None:
            return {}
        found: dict[str, list[np.ndarray]] = {}
        part = self._config.eval
        if len(source) > part.limit:
            source = slice_source(source, "", str(part.limit), name="limit")
        for batch, count in plain_batches(source, self._rows, part.batch_size):
            answered = fetch(dict(self._answer(params, self._place(batch))))
            for name in ("target", "label"):
                if name in batch:
                    answered[name] = batch[name]
            for name, rows in answered.items():
                found.setdefault(name, []).append(rows[:count])
        joined = {name: np.concatenate(rows) for name, rows in found.items()}
        if "total" in joined:
            total = joined["total"].sum(dtype=np.float64)
            return {"reconstruction": float(total / max(joined["inputs"].sum(), 1))}
        return self._compare(joined)

    def _compare(self, found: dict[str, np.ndarray]) -> dict[str, float]:
        assert self._target is not None
        answer = found["answer"]
        if not self._target.classes:
            truth = found["target"].astype(np.float64) * self._target.std
            truth = truth + self._target.mean
            return {
                "rmse": answers.rmse(answer[:, 0], truth),
                "spearman": answers.spearman(answer[:, 0], truth),
            }
        label = found["label"]
        scores = {"accuracy": answers.accuracy(answer, label)}
        if len(self._target.classes) == 2:
            auc = answers.roc_auc(answer[:, 1] - answer[:, 0], label)
            return {"roc_auc": auc, **scores}
        return scores

    def _main(self, found: dict[str, float]) -> str:
        """The score that choices go by."""
        wished = self._config.table.metric
        return wished if wished in found else next(iter(found))

    def _constant(self, source: Items) -> dict[str, float]:
        """Of the training rows' mean, or their most frequent class."""
        target = self._target
        assert target is not None
        truth = [target.of(source[i]) for i in range(len(source))]
        if not target.classes:
            off = np.array([one["target"] for one in truth]) * target.std
            return {"rmse": answers.rmse(np.zeros(len(off)), off)}
        labels = np.array([one["label"] for one in truth])
        return {"accuracy": float((labels == np.argmax(target.counts)).mean())}
