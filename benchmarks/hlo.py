"""What a compiled program sends between devices, read from its text.

A collective inside a loop counts as often as the loop turns. The layers of our models
are a scan, so that most of what is sent stands in the text once and happens `depth`
times.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from typing import NamedTuple

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_DEFINED = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\S+) ")
_DOT = re.compile(
    r"= (\S+) dot\((?:\S+ )?%?([\w.\-]+), .*?lhs_contracting_dims=\{([\d,]+)\}"
)
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\((.*?)\)(?:, |$)(.*)")


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
        kind: one of `KINDS`.
        group: devices that take part together.
        times: how often a step makes it.
        result: bytes a device has afterwards, each time.
        dtype: of the first array.
        where: the operation's name in the model, as far as the compiler kept it.
    """

    kind: str
    group: int
    times: int
    result: int
    dtype: str
    where: str

    @property
    def wire(self) -> float:
        """Bytes a device sends in a step, by the usual ring."""
        share = (self.group - 1) / self.group
        parts = {
            "all-reduce": 2 * share,
            "all-gather": share,
            "reduce-scatter": self.group - 1,  # of what is left of the whole
            "all-to-all": share,
            "collective-permute": 1,
        }
        return self.times * parts[self.kind] * self.result


def collectives(text: str) -> list[Collective]:
    """All collectives of a step.

    Args:
        text: of a compiled program, `compiled.as_text()`.

    Raises:
        ValueError: a loop with a collective in it does not say how often it turns.
    """
    bodies, entry = computations(text)
    times = _times(bodies, entry)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            match = _OPERATION.search(line)
            if not match:
                continue
            if times[name] is None:
                raise ValueError(f"in a loop of unknown length: {line.strip()[:120]}")
            result, kind, _, rest = match.groups()
            got = size_of(result)
            where = re.search(r'op_name="([^"]*)"', rest)
            dtype = _SHAPE.search(result)
            found.append(
                Collective(
                    kind,
                    _group(rest),
                    times[name] or 0,
                    got,
                    dtype.group(1) if dtype else "",
                    where.group(1) if where else "",
                )
            )
    return [one for one in found if one.times and one.group > 1]


def dot_flops(text: str) -> float:
    """FLOPs of all matrix products of a step, two a multiply-add, loops counted out.

    The compiler's own `cost_analysis` counts the body of a loop once.

    Raises:
        ValueError: a loop with a product in it does not say how often it turns.
    """
    bodies, entry = computations(text)
    times = _times(bodies, entry)
    total = 0.0
    for name, lines in bodies.items():
        shapes = {one[1]: one[2] for one in map(_DEFINED.match, lines) if one}
        for line in lines:
            match = _DOT.search(line)
            if not match:
                continue
            often = times[name]
            if often is None:
                raise ValueError(f"in a loop of unknown length: {line.strip()[:120]}")
            result, left, axes = match.groups()
            dims = _dims(shapes[left])
            inner = math.prod(dims[int(axis)] for axis in axes.split(","))
            total += 2.0 * often * math.prod(_dims(result)) * inner
    return total


def _dims(type_text: str) -> list[int]:
    found = _SHAPE.search(type_text)
    return (
        [int(one) for one in filter(None, found.group(2).split(","))] if found else []
    )


def size_of(type_text: str) -> int:
    """Bytes of all arrays in a type as the program writes it, "f32[2,3]{1,0}"."""
    total = 0
    for dtype, dims in _SHAPE.findall(type_text):
        count = 1
        for dim in filter(None, dims.split(",")):
            count *= int(dim)
        total += count * _BYTES.get(dtype, 0)
    return total


def _group(rest: str) -> int:
    """Devices a group, in any of the three ways they are written.

    `mesh['a'=64,'b'=8] {'b'}`, `[64,8]<=[512]` or `{{0,1},{2,3}}`.

    Raises:
        ValueError: it is written in another.
    """
    named = re.search(r"replica_groups=mesh\[(.*?)\][^{]*\{(.*?)\}", rest)
    if named:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named.group(1)))
        devices = 1
        for axis, part in re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named.group(2)):
            devices *= int(part or sizes[axis])
        return devices
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    if iota:
        return int(iota.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if listed:
        return len(listed.group(1).split(","))
    if "source_target_pairs" in rest:
        return 2
    raise ValueError(f"no groups of devices can be read in: {rest[:120]}")


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Name -> lines of the computations of a compiled program; the entry's name."""
    bodies: dict[str, list[str]] = {}
    name = entry = ""
    # Long tuples have comments in them that number their parts.
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = _HEAD.match(line)
        if head:
            name = head.group(2)
            bodies[name] = []
            entry = name if head.group(1) else entry
        elif line.startswith("}"):
            name = ""
        elif name:
            bodies[name].append(line)
    return bodies, entry


def _times(bodies: dict[str, list[str]], entry: str) -> dict[str, int | None]:
    """How often each computation is run; None inside a loop of unknown length."""
    calls: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for name, lines in bodies.items():
        for line in lines:
            called = _CALLED.findall(line)
            for group in _BRANCHES.findall(line):
                called += [one.strip().strip("%") for one in group.split(",")]
            trips: int | None = 1
            if " while(" in line:
                known = _TRIPS.search(line)
                trips = int(known.group(1)) if known else None
            calls[name] += [(one, trips) for one in called]
    times: dict[str, int | None] = dict.fromkeys(bodies, 0)

    def run(name: str, often: int | None) -> None:
        before = times.get(name, 0)
        times[name] = None if before is None or often is None else before + often
        for one, trips in calls[name]:
            run(one, None if often is None or trips is None else often * trips)

    run(entry, 1)
    return times
