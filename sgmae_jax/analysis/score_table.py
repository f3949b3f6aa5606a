"""Scores as people read them: names, percents, standard errors, a plain table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Behind the name of a score, the name of its standard error.
ERROR = " error"
TITLES = {
    "knn": "kNN",
    "probe": "probe",
    "lars": "LARS probe",
    "accuracy": "own head",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}


def kinds_of(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The scores that any row has, in order of appearance, without the errors."""
    kinds = dict.fromkeys(kind for row in rows for kind in row)
    return [kind for kind in kinds if not kind.endswith(ERROR)]


def title_of(kind: str) -> str:
    """The name of a score at the head of a column."""
    return TITLES.get(kind, kind)


def score_text(row: Mapping[str, float], kind: str) -> str:
    """A score in percent, with its standard error if there is one; "" if absent."""
    if kind not in row:
        return ""
    error = row.get(kind + ERROR)
    value = f"{100 * row[kind]:.2f}"
    return value if error is None else f"{value} ± {100 * error:.2f}"


def score_table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a plain table, in percent; empty when there are no scores.

    A column is there only if a row has it.
    """
    if not scores:
        return []
    kinds = kinds_of(scores.values())
    rows = [["percent", *map(title_of, kinds)]]
    for name, row in scores.items():
        rows.append([name, *(score_text(row, kind) for kind in kinds)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{name:{widths[0]}}"
        + "".join(
            f"   {cell:>{max(width, 8)}}"
            for cell, width in zip(cells, widths[1:], strict=True)
        )
        for name, *cells in rows
    ]
