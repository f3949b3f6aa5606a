"""Text as rows of bytes: one text a row, or as many as fit.

Symbols are those of the authors: padding 0, five more special ones, then 256 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.source import Items
from sgmae_jax.data.table import TableRow

PAD, SEP, FIRST_BYTE = 0, 5, 6
SYMBOLS = FIRST_BYTE + 256


@dataclass(frozen=True)
class ByteText:
    """A column of text as rows of `length` symbols.

    Attributes:
        column: that holds the text.
        length: N, symbols of a row; a separator behind each text is one of them.
        cut: whether the end of a longer text is left out; otherwise it is refused.
    """

    column: str
    length: int
    cut: bool = False

    def of(self, row: TableRow) -> dict[str, Any]:
        """valid bool[N], symbols i32[N] of one text.

        Raises:
            DataError: the text is empty, or too long.
        """
        return self._filled(self._bytes(row))

    def packed_of(self, rows: Iterable[TableRow]) -> dict[str, Any]:
        """Likewise, of the first text and those behind it until the row is full."""
        parts: list[np.ndarray] = []
        for row in rows:
            parts.append(self._bytes(row))
            if sum(map(len, parts)) >= self.length:
                break
        return self._filled(np.concatenate(parts)[: self.length])

    def _bytes(self, row: TableRow) -> np.ndarray:
        cell = row.cell(self.column)
        raw = str("" if cell is None else cell).encode("utf-8")
        if not raw:
            raise DataError(f"{row.place(self.column)}: has no text")
        if len(raw) >= self.length and not self.cut:
            raise DataError(
                f"{row.place(self.column)}: has {len(raw)} bytes, table.length = "
                f"{self.length} holds {self.length - 1} and a separator; raise it, or "
                "set table.overlong = 'cut'"
            )
        found = np.frombuffer(raw[: self.length - 1], np.uint8).astype(np.int32)
        return np.append(found + FIRST_BYTE, np.int32(SEP))

    def _filled(self, symbols: np.ndarray) -> dict[str, Any]:
        padded = np.full(self.length, PAD, np.int32)
        padded[: len(symbols)] = symbols
        return {"valid": np.arange(self.length) < len(symbols), "symbols": padded}


class Following:
    """A source whose item i is a list of the rows from i on, as many as are needed.

    Args:
        source: of rows.
        count: rows of an item, at most.
    """

    def __init__(self, source: Items, count: int):
        self.name = source.name
        self._source, self._count = source, count

    def __getattr__(self, name: str) -> Any:
        if name == "_source":
            raise AttributeError(name)
        return getattr(self._source, name)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> list[TableRow]:
        last = min(index + self._count, len(self._source))
        return [self._source[i] for i in range(index, last)]

    def fingerprint(self) -> str:
        return self._source.fingerprint()


def to_text(symbols: np.ndarray, unknown: str = "·") -> str:
    """Symbols as characters: "|" between texts, `unknown` for no printable byte."""
    found = []
    for symbol in symbols:
        byte = int(symbol) - FIRST_BYTE
        printable = 32 <= byte < 127
        found.append("|" if symbol == SEP else chr(byte) if printable else unknown)
    return "".join(found)
