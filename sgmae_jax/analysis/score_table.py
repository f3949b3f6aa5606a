"""Scores as people read them: names, units, standard errors, a plain table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Behind the name of a score, the name of its standard error.
ERROR = " error"


class Kind(NamedTuple):
    """What a score is.

    Attributes:
        title: at the head of a column.
        share: of 1, shown in percent; otherwise a number in a unit of its own.
        lower_is_better: an error.
    """

    title: str
    share: bool = True
    lower_is_better: bool = False


KINDS = {
    "knn": Kind("kNN"),
    "probe": Kind("probe"),
    "lars": Kind("LARS probe"),
    "accuracy": Kind("own head"),
    "miou": Kind("mIoU"),
    "pixel_accuracy": Kind("pixel accuracy"),
    "rmse": Kind("RMSE", share=False, lower_is_better=True),
    "spearman": Kind("Spearman", share=False),
    "roc_auc": Kind("ROC-AUC"),
    "reconstruction": Kind("reconstruction", share=False, lower_is_better=True),
}
# Errors of forecasts, metres: of one future, of the best of several, of worlds.
KINDS |= {
    f"{name}{modes}": Kind(f"{name}{modes}", share=False, lower_is_better=True)
    for modes in range(1, 33)
    for name in (
        *("minADE", "minFDE", "b-minFDE"),
        *("avgMinADE", "avgMinFDE", "avgBrierMinFDE"),
    )
}
KINDS |= {
    f"{name}{modes}": Kind(f"{name}{modes}", lower_is_better=True)
    for modes in range(1, 33)
    for name in ("MR", "actorMR")
}


def kind_of(name: str) -> Kind:
    """What a score of that name is; one that is not known is a share."""
    return KINDS.get(name, Kind(name))


def kinds_of(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """The scores that any row has, in order of appearance, without the errors."""
    kinds = dict.fromkeys(kind for row in rows for kind in row)
    return [kind for kind in kinds if not kind.endswith(ERROR)]


def title_of(kind: str) -> str:
    """The name of a score at the head of a column."""
    return kind_of(kind).title


def score_text(row: Mapping[str, float], kind: str) -> str:
    """A score with its standard error, if there is one; "" if absent.

    Shares are in percent, other numbers as they are.
    """
    if kind not in row:
        return ""
    error = row.get(kind + ERROR)
    scale, digits = (100, 2) if kind_of(kind).share else (1, 4)
    value = f"{scale * row[kind]:.{digits}f}"
    return value if error is None else f"{value} ± {scale * error:.{digits}f}"


def score_table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a plain table; empty when there are no scores.

    A column is there only if a row has it.
    """
    if not scores:
        return []
    kinds = kinds_of(scores.values())
    shares = all(kind_of(kind).share for kind in kinds)
    rows = [["percent" if shares else "score", *map(title_of, kinds)]]
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
