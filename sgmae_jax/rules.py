"""What a config value may be: small rules that say in words what they allow.

A rule is a callable `value -> str | None`: None when the value is allowed, else the
words that finish the sentence "config.x = value: must be ...". Rules never convert.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

Rule = Callable[[Any], str | None]


class Field(NamedTuple):
    """A config field: its default, what it may be, and what it means."""

    default: Any
    rule: Rule
    meaning: str


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def integer(low: int, high: int | None = None) -> Rule:
    """An integer in [low, high]; no upper end when `high` is None."""
    words = f"an integer >= {low}" if high is None else f"an integer, {low} to {high}"

    def rule(value: Any) -> str | None:
        good = _is_integer(value) and value >= low and (high is None or value <= high)
        return None if good else words

    return rule


def number(
    low: float, high: float = math.inf, *, low_open: bool = False, high_open=False
) -> Rule:
    """A finite number between `low` and `high`; an open end is not itself allowed."""
    words = f"a finite number {'>' if low_open else '>='} {low:g}"
    if high != math.inf:
        words += f" and {'<' if high_open else '<='} {high:g}"

    def rule(value: Any) -> str | None:
        if not _is_number(value):
            return words
        above = value > low if low_open else value >= low
        below = value < high if high_open else value <= high
        return None if above and below else words

    return rule


def layer(value: Any) -> str | None:
    """A layer, counted from 1, or from the end with negative numbers."""
    good = _is_integer(value) and value != 0
    return None if good else "an integer other than 0 (1: the first, -1: the last)"


def choice(*allowed: Any) -> Rule:
    """One of the values named."""

    def rule(value: Any) -> str | None:
        if any(value == one and type(value) is type(one) for one in allowed):
            return None
        import difflib

        words = "one of " + ", ".join(map(str, allowed))
        near = difflib.get_close_matches(str(value), [str(one) for one in allowed], 1)
        return words + (f" (did you mean {near[0]!r}?)" if near else "")

    return rule


def boolean(value: Any) -> str | None:
    """True or False, and nothing that merely looks like it."""
    return None if isinstance(value, bool) else "True or False"


def text(value: Any) -> str | None:
    """A string, possibly empty."""
    return None if isinstance(value, str) else "a string"


def path(value: Any) -> str | None:
    """A file or directory; what is above its last part stays out of what is shared."""
    return text(value) and "a path, as a string"


def name(value: Any) -> str | None:
    """A string with something in it."""
    return None if isinstance(value, str) and value else "a non-empty string"


def address(value: Any) -> str | None:
    """A host and a port."""
    import re

    good = isinstance(value, str) and re.fullmatch(r"\S+:[1-9]\d{0,4}", value)
    return None if good else "an address like host:port"


def placements(value: Any) -> str | None:
    """Pairs (regular expression, place); what a place may be says training/mesh.py."""
    import re

    words = (
        "pairs (regular expression, place), a place being 'whole', 'largest' or a "
        "tuple with None, 'data' or 'fsdp' a dimension"
    )

    def is_place(place: Any) -> bool:
        if isinstance(place, tuple | list):
            named = [axis for axis in place if axis is not None]
            known = all(axis in ("data", "fsdp") for axis in named)
            return known and len(set(named)) == len(named)
        return place in ("whole", "largest")

    if not isinstance(value, tuple | list):
        return words
    for one in value:
        if not (isinstance(one, tuple | list) and len(one) == 2):
            return words
        pattern, place = one
        if not (isinstance(pattern, str) and is_place(place)):
            return words
        try:
            re.compile(pattern)
        except re.error as error:
            return f"{words}; {pattern!r} is no regular expression: {error}"
    return None


def sha256(value: Any) -> str | None:
    """A SHA-256 as `sha256sum` prints it, or nothing."""
    import re

    good = isinstance(value, str) and re.fullmatch(r"([0-9a-fA-F]{64})?", value)
    return None if good else "64 hexadecimal digits, or empty"


def optional(rule: Rule) -> Rule:
    """None, or what `rule` allows."""

    def either(value: Any) -> str | None:
        words = None if value is None else rule(value)
        return words and f"None or {words}"

    return either


def size(value: Any) -> str | None:
    """A side in pixels, or a pair (height, width)."""
    sides = value if isinstance(value, tuple | list) else (value, value)
    if len(sides) == 2 and all(_is_integer(side) and side >= 1 for side in sides):
        return None
    return "an integer >= 1 or a pair (height, width) of them"


def interval(low: float, high: float, *, low_open: bool = False) -> Rule:
    """A pair (a, b) of numbers with low <= a <= b <= high."""
    inside = number(low, high, low_open=low_open)

    def rule(value: Any) -> str | None:
        good = isinstance(value, tuple | list) and len(value) == 2
        if good and not any(map(inside, value)) and value[0] <= value[1]:
            return None
        return f"a pair (a, b), a <= b, each {inside('')}"

    return rule


def pair_of(first: Rule, second: Rule) -> Rule:
    """A pair (a, b) of two different kinds."""

    def rule(value: Any) -> str | None:
        good = isinstance(value, tuple | list) and len(value) == 2
        if good and not first(value[0]) and not second(value[1]):
            return None
        return f"a pair (a, b), a {first('')}, b {second('')}"

    return rule


def per_channel(low: float, *, low_open: bool = False) -> Rule:
    """A sequence of numbers, one a channel."""
    inside = number(low, low_open=low_open)

    def rule(value: Any) -> str | None:
        good = isinstance(value, tuple | list) and len(value) >= 1
        if good and not any(map(inside, value)):
            return None
        return f"one number a channel, each {inside('')}"

    return rule


def mapping(value: Any) -> str | None:
    """Names with values: extra keyword arguments of a function."""
    good = hasattr(value, "items") and all(isinstance(k, str) for k in value.keys())
    return None if good else "a mapping of option names to values"


def one_or_more(rule: Rule) -> Rule:
    """One value that `rule` allows, or a tuple of some, each another."""

    def either(value: Any) -> str | None:
        several = value if isinstance(value, tuple | list) else (value,)
        distinct = len(set(map(repr, several))) == len(several)
        words = next(filter(None, map(rule, several)), None)
        if several and distinct and words is None:
            return None
        return f"{words or rule(object())}, or several different ones as a tuple"

    return either


def column(value: Any) -> str | None:
    """A column by its name, or by its number where names are numbers."""
    good = isinstance(value, str) or (_is_integer(value) and value >= 0)
    return None if good else "a column's name, or its number from 0"


def several(rule: Rule) -> Rule:
    """Any number of values that `rule` allows, as a tuple."""

    def each(value: Any) -> str | None:
        good = isinstance(value, tuple | list) and not any(map(rule, value))
        return None if good else f"a tuple, possibly empty, each {rule(object())}"

    return each


def dotted(value: Any) -> str | None:
    """A function by its path, `package.module:function`."""
    good = isinstance(value, str) and value.count(":") == 1
    parts = value.replace(":", ".").split(".") if good else []
    good = good and all(part.isidentifier() for part in parts)
    return None if good else "a path like package.module:function"


def split(value: Any) -> str | None:
    """A split, or a slice of one: train, test[:1000], train[:90%]."""
    import re

    pattern = r"[A-Za-z_][\w-]*(\[(\d+%?)?:(\d+%?)?\])?"
    good = isinstance(value, str) and re.fullmatch(pattern, value)
    return None if good else "a split such as train, test[:1000] or train[:90%]"
