"""Rows of tables and texts as bytes: CSV, TSV, Parquet, NumPy, lines of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgmae_jax.config import ConfigError
from sgmae_jax.data import Items, stack
from sgmae_jax.data.byte_text import ByteText, Following
from sgmae_jax.data.columns import (
    Columns,
    Target,
    columns_from,
    find_columns,
    find_target,
    target_from,
    to_json,
)
from sgmae_jax.data.rows import Row
from sgmae_jax.data.table import open_table
from sgmae_jax.methods.base import Method, Run, Stream

UNIT = "row"
SHORT = "rows"


@dataclass(frozen=True)
class TableRows:
    """Rows of a table, or texts, as batches of one length.

    The batch: valid bool[B,N]; values f32[B,N,1] and symbols i32[B,N] as far as there
    are, see `models.sma.Inputs`; and of a target label i32[B], or target f32[B] in
    standard deviations of the training rows.

    Attributes:
        inputs: what the cells mean.
        target: what is to be predicted, or None.
        unit: see `Rows`.
    """

    inputs: Columns | ByteText
    target: Target | None = None
    unit: str = "rows"

    def plain(self, item: Any) -> Row:
        """The row itself, or of several their bytes in one."""
        if isinstance(item, list):
            assert isinstance(self.inputs, ByteText)
            return self.inputs.packed_of(item)
        row = self.inputs.of(item)
        return row if self.target is None else {**row, **self.target.of(item)}

    def train(self, item: Any, rng: np.random.Generator) -> Row:
        """As held out: rows do not vary."""
        del rng
        return self.plain(item)

    def whole(self, item: Any) -> Row:
        """As held out."""
        return self.plain(item)

    def join(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """Stacked."""
        return stack(rows)


def check(config) -> None:
    """What the fields of tables and texts must agree on.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    part = config.table
    if not config.data.path:
        raise ConfigError(
            "config.data.path = '': must name the file, or the folder with a file a "
            f"split, of data.source = {config.data.source!r}"
        )
    if len(part.delimiter) > 1:
        raise ConfigError(
            f"config.table.delimiter = {part.delimiter!r}: must be one character"
        )
    if part.packed and (config.data.source != "text" or has_target(config)):
        raise ConfigError(
            "config.table.packed = True: must go with data.source = 'text' and "
            "without a table.target, which belongs to one text"
        )
    others = {*_names(part.ignore), str(part.target)}
    both = sorted(set(_names(part.columns)) & others)
    if both:
        raise ConfigError(
            f"config.table.columns: must not hold {both[0]!r}, which is the target or "
            "ignored"
        )
    metrics = ("rmse", "spearman")
    if part.metric != "auto" and (part.metric in metrics) != _is_number(config):
        raise ConfigError(
            f"config.table.metric = {part.metric!r}: must suit table.task = "
            f"{part.task!r}"
        )


def check_mask(config) -> None:
    """Methods on rows make their own masks."""
    del config


def open_source(config, split: str, *, in_memory: bool) -> Items:
    """The rows of a split; they are in memory anyway.

    Raises:
        DataError: the file is not there, or is no table.
    """
    del in_memory
    part = config.table
    source = open_table(
        config.data.path,
        split,
        test_path=part.test_path,
        header=part.header,
        delimiter=part.delimiter,
    )
    # The shortest text is one byte and a separator.
    return Following(source, part.length // 2 + 1) if part.packed else source


def check_stream(source: Any, name: str, stream: Stream) -> None:
    """A target must be there where a stream asks for labels; `facts` finds it."""
    del source, name, stream


def facts(config, source: Any) -> dict[str, Any]:
    """Columns with their means and categories, and the target, of the training rows.

    Raises:
        DataError: a column is not there, or a cell does not suit its column.
    """
    part = config.table
    inputs: dict[str, Any]
    if config.data.source == "text":
        source.need(str(part.text), "table.text")
        inputs = {"kind": "bytes", "length": part.length}
    else:
        for field in ("columns", "ignore", "categorical"):
            for name in _names(part[field]):
                source.need(name, f"table.{field}")
        left_out = {*_names(part.ignore), str(part.target)}
        names = _names(part.columns)
        names = names or tuple(n for n in source.columns if n not in left_out)
        columns = find_columns(
            source,
            names=names,
            blanks=tuple(part.blanks),
            categorical=_names(part.categorical),
            unseen=part.unseen == "missing",
            most=part.max_categories,
        )
        inputs = {"kind": "columns", **to_json(columns)}
    found: dict[str, Any] = {"inputs": inputs, "target": None}
    classes = 0
    if has_target(config):
        name = str(part.target)
        source.need(name, "table.target")
        target = find_target(source, name, classes=not _is_number(config))
        found["target"] = to_json(target)
        classes = len(target.classes)
    return {"classes": classes, "pixel_classes": 0, "facts": found}


def make_rows(config, run: Run, stream: Stream | None) -> TableRows:
    """Rows as the training rows, or those an encoder was pre-trained on, have them.

    Raises:
        ConfigError: the encoder was pre-trained on other columns.
    """
    del stream
    given = run.frozen.get("model", {}).get("inputs")
    target = run.facts.get("target")
    return TableRows(
        inputs=_inputs(config, given or run.facts["inputs"], run.facts["inputs"]),
        target=target and target_from(target),
    )


def _inputs(config, facts: Any, own: Any) -> Columns | ByteText:
    if facts["kind"] != own["kind"]:
        raise ConfigError(
            f"config.method.encoder: must have been trained on {own['kind']}, was on "
            f"{facts['kind']}"
        )
    part = config.table
    if facts["kind"] == "bytes":
        if part.length > facts["length"]:
            raise ConfigError(
                f"config.table.length = {part.length}: must be at most that of "
                f"method.encoder, {facts['length']}"
            )
        return ByteText(str(part.text), part.length, part.overlong == "cut")
    columns, mine = columns_from(facts), columns_from(own)
    if columns.names != mine.names:
        differ = set(columns.names) ^ set(mine.names)
        raise ConfigError(
            "config.method.encoder: must have been trained on the same columns in the "
            f"same order; {sorted(differ)[:4] or 'the order'} differ"
        )
    return columns


def make_scorer(config, method: Method, run: Run, **given):
    """See sgmae_jax/domains/row_scores.py."""
    from sgmae_jax.domains.row_scores import Scorer

    return Scorer(config, method, run, **given)


def artists(config, method: Method) -> dict[str, Callable[..., np.ndarray]]:
    """See sgmae_jax/domains/row_pictures.py."""
    from sgmae_jax.domains import row_pictures

    return row_pictures.artists(config, method)


def title(config) -> str:
    """What a row is."""
    if config.data.source == "text":
        return f"{config.table.length} bytes"
    return f"target {config.table.target!r}" if has_target(config) else "no target"


def has_target(config) -> bool:
    """Whether a column is to be predicted; one may be called 0."""
    return config.table.target != ""


def _names(columns: Sequence[Any]) -> tuple[str, ...]:
    """Columns by their names; where there is no header those are numbers."""
    return tuple(map(str, columns))


def _is_number(config) -> bool:
    return config.table.task == "regression"
