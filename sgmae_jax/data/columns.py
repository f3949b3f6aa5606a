"""What the cells of a table mean: numbers, categories, bytes, and a target.

All of it follows from the training rows and is kept with a run, as JSON: other rows are
standardised with the means of these, and have categories of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.source import Items
from sgmae_jax.data.table import TableRow

# Symbol of a cell without a value; the others count from 1.
MISSING = 0


@dataclass(frozen=True)
class Column:
    """A column that is an input.

    Attributes:
        name: of the column.
        mean: of its numbers; None where it has categories.
        std: of its numbers, above 0.
        categories: its words, in order; their symbols follow the column before's.
        first: symbol of the first category.
        missing: whether cells may be without a value.
    """

    name: str
    mean: float | None = None
    std: float = 1.0
    categories: tuple[str, ...] = ()
    first: int = 0
    missing: bool = False


@dataclass(frozen=True)
class Target:
    """The column that is to be predicted.

    Attributes:
        name: of the column.
        classes: its words, in order; empty where it is a number.
        counts: how often each class is met.
        mean: of its numbers.
        std: of its numbers, above 0.
    """

    name: str
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    mean: float = 0.0
    std: float = 1.0

    def of(self, row: TableRow) -> dict[str, Any]:
        """ "label", or "target" in standard deviations.

        Raises:
            DataError: it is not there, no number, or of no known class.
        """
        cell = row.cell(self.name)
        if not self.classes:
            return {
                "target": np.float32((number(row, self.name) - self.mean) / self.std)
            }
        word = text_of(cell)
        if word not in self.classes:
            raise DataError(
                f"{row.place(self.name)}: {word!r} is none of the training rows' "
                f"classes, {_few(self.classes)}"
            )
        return {"label": self.classes.index(word)}


@dataclass(frozen=True)
class Columns:
    """The inputs of a table, in order.

    Attributes:
        columns: of the inputs.
        blanks: words that stand for no value.
        unseen: whether a category that the training rows have not is taken as no value.
    """

    columns: tuple[Column, ...]
    blanks: tuple[str, ...] = ("",)
    unseen: bool = False
    _index: dict[str, dict[str, int]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        for column in self.columns:
            self._index[column.name] = {
                word: column.first + i for i, word in enumerate(column.categories)
            }

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(column.name for column in self.columns)

    @property
    def channels(self) -> int:
        """Numbers an input has: 1, or 0 where every column has categories."""
        return int(any(column.mean is not None for column in self.columns))

    @property
    def symbols(self) -> int:
        """How many there are; 0 where all cells are numbers."""
        words = sum(len(column.categories) for column in self.columns)
        blank = words or any(column.missing for column in self.columns)
        return words + bool(blank)

    def allowed(self) -> np.ndarray:
        """Symbols that a hidden cell may have had, bool [N, symbols]."""
        table = np.zeros((len(self.columns), self.symbols), bool)
        for row, column in zip(table, self.columns, strict=True):
            if column.categories:
                row[column.first : column.first + len(column.categories)] = True
                row[MISSING] = column.missing
        return table

    def of(self, row: TableRow) -> dict[str, Any]:
        """valid bool[N], and values f32[N,1], symbols i32[N] as far as there are.

        Raises:
            DataError: a cell is no number, no known category, or must not be empty.
        """
        values = np.zeros((len(self.columns), 1), np.float32)
        symbols = np.full(len(self.columns), -1, np.int32)
        for place, column in enumerate(self.columns):
            cell = row.cell(column.name)
            if blank(cell, self.blanks):
                if not (column.missing or (self.unseen and self.symbols)):
                    raise DataError(
                        f"{row.place(column.name)}: has no value, which no training "
                        "row of this column lacks"
                    )
                symbols[place] = MISSING
            elif column.mean is not None:
                value = number(row, column.name)
                values[place] = (value - column.mean) / column.std
            else:
                symbols[place] = self._symbol(row, column, text_of(cell))
        made: dict[str, Any] = {"valid": np.ones(len(self.columns), bool)}
        if self.channels:
            made["values"] = values
        if self.symbols:
            made["symbols"] = symbols
        return made

    def _symbol(self, row: TableRow, column: Column, word: str) -> int:
        found = self._index[column.name].get(word)
        if found is None and not self.unseen:
            raise DataError(
                f"{row.place(column.name)}: {word!r} is no category of the training "
                f"rows, {_few(column.categories)}; table.unseen = 'missing' takes it "
                "as no value"
            )
        return MISSING if found is None else found


def find_columns(
    source: Items,
    *,
    names: Sequence[str],
    blanks: Collection[str] = ("",),
    categorical: Collection[str] = (),
    unseen: bool = False,
    most: int = 256,
) -> Columns:
    """What the columns of the training rows are.

    A column has numbers where most of its cells are numbers, categories otherwise.

    Args:
        source: the training rows, of an `open_table`.
        names: of the columns that are inputs.
        blanks: words that stand for no value.
        categorical: columns whose numbers are categories.
        unseen: see `Columns`.
        most: categories a column may have.

    Raises:
        DataError: a cell does not suit its column, or a column has no value at all.
    """
    rows = [source[i] for i in range(len(source))]
    found: list[Column] = []
    first = MISSING + 1
    for name in names:
        full = [row for row in rows if not blank(row.cell(name), blanks)]
        if not full:
            raise DataError(f"{source.name}: column {name!r} has no value in any row")
        missing = len(full) < len(rows)
        like = sum(_as_number(row.cell(name)) is not None for row in full)
        if name not in categorical and 2 * like > len(full):
            mean, std = _moments(full, name, like)
            found.append(Column(name, mean=mean, std=std, missing=missing))
            continue
        words = sorted({text_of(row.cell(name)) for row in full}, key=_sortable)
        if len(words) > most:
            raise DataError(
                f"{source.name}: column {name!r} has {len(words):,} different words, "
                f"more than table.max_categories = {most}; name it in table.ignore, or "
                "raise the limit"
            )
        column = Column(name, categories=tuple(words), first=first, missing=missing)
        found.append(column)
        first += len(words)
    return Columns(tuple(found), tuple(blanks), unseen)


def find_target(source: Items, name: str, *, classes: bool) -> Target:
    """What the target of the training rows is.

    Raises:
        DataError: a cell is empty or no number, or there is one class only.
    """
    rows = [source[i] for i in range(len(source))]
    if not classes:
        mean, std = _moments(rows, name, len(rows))
        return Target(name, mean=mean, std=std)
    for row in rows:
        if blank(row.cell(name), ("",)):
            raise DataError(f"{row.place(name)}: has no label")
    words = [text_of(row.cell(name)) for row in rows]
    kinds = sorted(set(words), key=_sortable)
    if not 2 <= len(kinds) <= max(2, len(rows) // 2):
        raise DataError(
            f"{source.name}: column {name!r} has {len(kinds)} different labels in "
            f"{len(rows)} rows; for numbers set table.task = 'regression'"
        )
    return Target(name, tuple(kinds), tuple(words.count(kind) for kind in kinds))


def number(row: TableRow, name: str) -> float:
    """A cell's number.

    Raises:
        DataError: it is none, or not finite.
    """
    cell = row.cell(name)
    value = _as_number(cell)
    if value is None:
        raise DataError(f"{row.place(name)}: {text_of(cell)!r} is no number")
    if not math.isfinite(value):
        raise DataError(
            f"{row.place(name)}: {text_of(cell)!r} is not finite; if it stands for no "
            "value, name it in table.blanks"
        )
    return value


def blank(cell: Any, blanks: Collection[str]) -> bool:
    """Whether a cell has no value."""
    return cell is None or text_of(cell) in blanks


def text_of(cell: Any) -> str:
    """A cell as text, without spaces around it; whole numbers without a point."""
    if isinstance(cell, float | np.floating) and float(cell).is_integer():
        return str(int(cell))
    return "" if cell is None else str(cell).strip()


def to_json(part: Columns | Target) -> dict[str, Any]:
    """As JSON has it."""
    found = asdict(part)
    found.pop("_index", None)
    return found


def columns_from(saved: Mapping[str, Any]) -> Columns:
    """The inverse of `to_json`."""
    columns = tuple(
        Column(**{**one, "categories": tuple(one["categories"])})
        for one in saved["columns"]
    )
    return Columns(columns, tuple(saved["blanks"]), saved["unseen"])


def target_from(saved: Mapping[str, Any]) -> Target:
    """The inverse of `to_json`."""
    words = {name: tuple(saved[name]) for name in ("classes", "counts")}
    return Target(**{**saved, **words})


def check_rows(source: Items, of: Sequence[Callable[[TableRow], Any]]) -> None:
    """Reads every row once, so that a bad cell is known before training.

    Raises:
        DataError: as the functions that read.
    """
    for index in range(len(source)):
        for one in of:
            one(source[index])


def _moments(rows: list[TableRow], name: str, like: int) -> tuple[float, float]:
    numbers = []
    for row in rows:
        try:
            numbers.append(number(row, name))
        except DataError as error:
            if _as_number(row.cell(name)) is not None or like == len(rows):
                raise
            raise DataError(
                f"{error} ({like:,} of {len(rows):,} cells of this column are; name it "
                "in table.categorical to take them all as categories)"
            ) from None
    array = np.array(numbers, np.float64)
    # A column that never changes says nothing, at whatever scale.
    return float(array.mean()), float(array.std()) or 1.0


def _as_number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _sortable(word: str) -> tuple[bool, float, str]:
    value = _as_number(word)
    good = value is not None and math.isfinite(value)
    return (not good, value if good and value is not None else 0.0, word)


def _few(words: Sequence[str]) -> str:
    shown = ", ".join(map(repr, words[:8]))
    return f"{shown} …" if len(words) > 8 else shown
