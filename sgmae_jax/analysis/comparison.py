"""Runs side by side: one table of their scores, as Markdown and as a page."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sgmae_jax.analysis.page import score_cell, scrolling, section, text, write_page
from sgmae_jax.analysis.score_table import (
    ERROR,
    kind_of,
    kinds_of,
    score_text,
    title_of,
)

Row = dict[str, float]
# Fields that say where and how a run went, not what it was.
_ASIDE = re.compile(
    r"seed|task|(log|checkpoint|guard|profile|mesh|analyze|compare|laboratory|weights)\..*"
    r"|eval\.(baselines|batch_size|every)"
)
_SCORED = "eval."
# Baselines of every run: shown once, and by their own name.
_OWN = "trained "


class Result(NamedTuple):
    """What a run, an evaluation or an exported folder says of itself.

    Attributes:
        name: of its directory.
        step: of the parameters that were scored; None where it is not said.
        config: dotted field -> value.
        scores: features -> scores.
    """

    name: str
    step: int | None
    config: Mapping[str, Any]
    scores: Mapping[str, Row]


class Line(NamedTuple):
    """A row of the table: runs that differ in nothing but their seed.

    Attributes:
        label: what the runs are.
        runs: their names.
        features: which of their features.
        scores: means, and with two runs or more their standard errors.
    """

    label: str
    runs: tuple[str, ...]
    features: str
    scores: Row


def read_result(path: Path) -> Result:
    """Reads the latest evaluation in a directory, else the scores of its run or card.

    Args:
        path: of a run, of an evaluation, or of an exported folder.

    Raises:
        ValueError: there are no scores, or they are damaged; one line.
    """
    try:
        if (path / "evaluation.json").is_file():
            found = _json(path / "evaluation.json")
            config = found.get("config") or _json(path / "config.json")
            scores, step = found["scores"], found["step"]
        elif (path / "scores.json").is_file():
            config, scores, step = (
                _json(path / "config.json"),
                _json(path / "scores.json"),
                None,
            )
        elif (path / "card.json").is_file():
            card = _json(path / "card.json")
            config, scores, step = card["config"], card["scores"], card["step"]
        else:
            raise ValueError("has no evaluation.json, scores.json or card.json")
        rows = {
            str(name): {kind: float(row[kind]) for kind in row}
            for name, row in scores.items()
        }
        if not rows:
            raise ValueError("holds no scores")
        return Result(path.resolve().name, step, dict(config), rows)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{str(path)!r}: {error}") from None


def compare(results: Sequence[Result]) -> tuple[list[Line], list[str]]:
    """The rows of the table, and notes on what makes rows not comparable.

    Runs count as repetitions of one another when their configs differ in the seed
    alone. A number at the end of a path (mae_0, mae_1) counts as a seed, too.
    """
    facts = [_facts(result) for result in results]
    differing = _differing(facts)
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(facts):
        groups.setdefault(_key([one.get(name) for name in differing]), []).append(index)
    lines: list[Line] = []
    baselines: dict[str, Line] = {}
    for members in groups.values():
        label = _label(facts[members[0]], facts)
        runs = tuple(results[index].name for index in members)
        names = dict.fromkeys(name for i in members for name in results[i].scores)
        for name in names:
            rows = [
                results[i].scores[name] for i in members if name in results[i].scores
            ]
            if name.startswith(_OWN):
                own = name.removeprefix(_OWN)
                lines.append(Line(label, runs, own, _means(rows)))
            else:
                baselines.setdefault(name, Line(name, (), "", _means(rows)))
    scored = [name for name in differing if name.startswith(_SCORED)]
    notes = [
        f"{name} differs: "
        + ", ".join(sorted({_shown(one[name]) for one in facts if name in one}))
        for name in scored
    ]
    return [*lines, *baselines.values()], notes


def markdown(lines: Sequence[Line], notes: Iterable[str] = ()) -> str:
    """The table in Markdown, the best of every column in bold."""
    kinds = kinds_of(line.scores for line in lines)
    best = _best(lines, kinds)
    head = ["run", "runs", "features", *map(title_of, kinds)]
    rows = [head, ["---"] * len(head)]
    for line in lines:
        cells = [score_text(line.scores, kind) or "–" for kind in kinds]
        cells = [
            f"**{cell}**" if cell != "–" and line.scores[kind] == best[kind] else cell
            for cell, kind in zip(cells, kinds, strict=True)
        ]
        rows.append([line.label, _count(line), line.features, *cells])
    table = "\n".join(f"| {' | '.join(map(_plain, row))} |" for row in rows)
    return "\n".join([table, "", *(f"* {note}" for note in notes)]).rstrip() + "\n"


def write_comparison(results: Sequence[Result], folder: Path) -> tuple[str, Path]:
    """Writes comparison.md and comparison.html; returns the Markdown and the page."""
    table = markdown(*compare(results))
    (folder / "comparison.md").write_text(table, encoding="utf-8")
    content = score_table_html(results)
    title = f"{len(results)} runs compared"
    return table, write_page(folder / "comparison.html", title, content)


def score_table_html(results: Sequence[Result]) -> str:
    """The table as HTML, and what makes rows not comparable."""
    lines, notes = compare(results)
    kinds = kinds_of(line.scores for line in lines)
    best = _best(lines, kinds)
    heads = "".join(f"<th>{text(title_of(kind))}</th>" for kind in kinds)
    body = ""
    for line in lines:
        cells = ""
        for kind in kinds:
            value = line.scores.get(kind)
            wins = value is not None and value == best[kind]
            cells += score_cell(
                value,
                score_text(line.scores, kind),
                best=wins,
                share=kind_of(kind).share,
            )
        runs = ", ".join(line.runs)
        body += (
            f'<tr><th scope="row">{text(line.label)}</th><td>{text(runs) or "–"}</td>'
            f"<td>{text(line.features)}</td>{cells}</tr>"
        )
    unit = "Percent" if all(kind_of(kind).share for kind in kinds) else "Scores"
    content = f"<p>{unit}; of several runs the mean and its standard error.</p>"
    content += scrolling(
        "Scores",
        '<table class="scores"><thead><tr><th>run</th><th>directories</th>'
        f"<th>features</th>{heads}</tr></thead><tbody>{body}</tbody></table>",
    )
    if notes:
        items = "".join(f"<li>{text(note)}</li>" for note in notes)
        content += section("Not scored alike", f"<ul>{items}</ul>")
    return content


def _facts(result: Result) -> dict[str, Any]:
    """What a run was, by field; paths without the seed at their end."""
    return {
        name: re.sub(r"_\d+$", "", value) if isinstance(value, str) else value
        for name, value in result.config.items()
        if not _ASIDE.fullmatch(name)
    }


def _differing(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({name for one in facts for name in one})
    # A field that a run of another version has not is no difference.
    return [
        name
        for name in names
        if len({_key(one[name]) for one in facts if name in one}) > 1
    ]


def _label(own: Mapping[str, Any], facts: Sequence[Mapping[str, Any]]) -> str:
    """The method, what it began with, and what sets it apart from its like."""
    method = own.get("method.name")
    name = str(method or "run")
    if "method.encoder" in own:
        name += f" of {own['method.encoder'] or 'a random start'}"
    like = [one for one in facts if one.get("method.name") == method]
    told = [
        f"{field.rpartition('.')[2]} {_shown(own[field])}"
        for field in _differing(like)
        if own.get(field) is not None
        and field != "method.encoder"
        and not field.startswith(_SCORED)
    ]
    return ", ".join([name, *told])


def _means(rows: Sequence[Row]) -> Row:
    """Mean of every score, and the standard error over two or more runs."""
    if len(rows) == 1:
        return rows[0]
    found = {}
    for kind in kinds_of(rows):
        values = [row[kind] for row in rows if kind in row]
        found[kind] = statistics.fmean(values)
        if len(values) > 1:
            found[kind + ERROR] = statistics.stdev(values) / math.sqrt(len(values))
    return found


def _best(lines: Sequence[Line], kinds: Iterable[str]) -> dict[str, float | None]:
    """The best score of every kind, if there is more than one to choose from."""
    found = {
        kind: [line.scores[kind] for line in lines if kind in line.scores]
        for kind in kinds
    }
    return {
        kind: (min if kind_of(kind).lower_is_better else max)(of)
        if len(of) > 1
        else None
        for kind, of in found.items()
    }


def _count(line: Line) -> str:
    return str(len(line.runs)) if line.runs else "–"


def _plain(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
