"""Tables from files: CSV, TSV, Parquet, NumPy, and text as a table of one column.

Cells stay as the file has them; what they mean is for data/columns.py to say.
"""

from __future__ import annotations

import csv
import difflib
import functools
import gzip
import hashlib
import io
import pathlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sgmae_jax.data.errors import DataError
from sgmae_jax.data.opening import parse_split, slice_source
from sgmae_jax.data.source import Items, digest

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
TEXT = (".txt", ".text", ".smi")
SUFFIXES = (*DELIMITERS, *TEXT, ".parquet", ".npy", ".npz")
# The column of a file that is text alone.
TEXT_COLUMN = "text"


class TableRow(NamedTuple):
    """One row of a table, not copied out of it."""

    table: Table
    at: int

    def cell(self, column: str) -> Any:
        """What stands in a column: text, a number, or None where nothing does."""
        return self.table.columns[column][self.at]

    def place(self, column: str = "") -> str:
        """Where this is, for messages."""
        where = f"{self.table.name}, row {self.table.number(self.at)}"
        return f"{where}, column {column!r}" if column else where


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    Attributes:
        name: of the file.
        columns: by name, in the file's order: arrays of objects, or of numbers.
        lines: in which line of the file each row stands, from 1; None where files have
            no lines: rows then count from 1.
        content: a digest of the file.
    """

    name: str
    columns: dict[str, np.ndarray]
    lines: Sequence[int] | None
    content: str

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> TableRow:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        return TableRow(self, index)

    def fingerprint(self) -> str:
        """Of the file's content."""
        return digest((self.name, len(self), self.content))

    def number(self, index: int) -> int:
        """A row's number in messages."""
        return index + 1 if self.lines is None else self.lines[index]

    def need(self, column: str, field: str) -> None:
        """A column must be there.

        Raises:
            DataError: it is not; the closest name is suggested.
        """
        if column in self.columns:
            return
        near = difflib.get_close_matches(column, self.columns, 1)
        few = ", ".join(map(repr, list(self.columns)[:12]))
        more = " …" if len(self.columns) > 12 else ""
        raise DataError(
            f"{self.name}: has no column {column!r} ({field})"
            + (f"; did you mean {near[0]!r}?" if near else "")
            + f" Its columns: {few}{more}"
        )


def open_table(
    path: str,
    split: str = "train",
    *,
    test_path: str = "",
    header: bool = True,
    delimiter: str = "",
) -> Items:
    """The rows of a split.

    Args:
        path: a file, which is the split "train"; or a folder with a file a split, such
            as train.csv.
        split: a split's name, or a part such as "train[:90%]", along a fixed shuffled
            order.
        test_path: the file of the split "test", where `path` is a file.
        header: whether the first line names the columns; they are "0", "1", … if not.
        delimiter: of cells; empty: by the suffix.

    Raises:
        DataError: the file is not there, or is no table; one line says what and where.
    """
    parsed = parse_split(split)
    if parsed is None:
        raise DataError(
            f"split {split!r} is neither a name nor a part such as 'train[:90%]'"
        )
    name, first, last = parsed
    file = _file_of(path, test_path, name)
    facts = file.stat()
    table = _read(file, facts.st_mtime_ns, facts.st_size, header, delimiter)
    return table if split == name else slice_source(table, first, last, name=split)


def _file_of(path: str, test_path: str, split: str) -> pathlib.Path:
    if not path:
        raise DataError("data.path = '': must name a table, or a folder of tables")
    place = pathlib.Path(path)
    if place.is_dir():
        found = [
            file
            for file in sorted(place.iterdir())
            if _suffix(file) in SUFFIXES and file.name.split(".")[0] == split
        ]
        if len(found) != 1:
            names = ", ".join(sorted(file.name for file in place.iterdir())[:8])
            raise DataError(
                f"split {split!r}: {place.name}/ must have one file {split}.csv, .tsv, "
                f".parquet, .npy, .npz or .txt, has {len(found)} (there: {names})"
            )
        return found[0]
    if split == "test" and test_path:
        place = pathlib.Path(test_path)
    elif split != "train":
        raise DataError(
            f"split {split!r}: a file is the split train and no other; give a part "
            "such as train[90%:], or table.test_path, the file of the split test"
        )
    if not place.is_file():
        raise DataError(f"path {str(place)!r} does not exist")
    return place


def _suffix(file: pathlib.Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return pathlib.PurePath(name).suffix


@functools.lru_cache(maxsize=4)
def _read(
    file: pathlib.Path, changed: int, size: int, header: bool, delimiter: str
) -> Table:
    """A file's table, read once as long as the file does not change."""
    del changed
    if not size:
        raise DataError(f"{file.name}: is empty")
    suffix = _suffix(file)
    if suffix not in SUFFIXES:
        raise DataError(f"{file.name}: is none of {', '.join(SUFFIXES)}")
    content = file.read_bytes()
    mark = hashlib.blake2b(content, digest_size=16).hexdigest()
    lines: Sequence[int] | None = None
    if suffix in DELIMITERS or suffix in TEXT:
        text = _text(file.name, content)
        if suffix in TEXT:
            columns, lines = _from_lines(text)
        else:
            columns, lines = _from_csv(
                file.name, text, header, delimiter or DELIMITERS[suffix]
            )
    else:
        read = _from_parquet if suffix == ".parquet" else _from_numpy
        columns = read(file.name, content)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{file.name}: is empty, it has no rows")
    return Table(file.name, columns, lines, mark)


def _text(name: str, content: bytes) -> str:
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError) as error:
        raise DataError(f"{name}: cannot be unpacked: {error}") from None
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{name}, row {line}: is no UTF-8 text") from None


def _from_lines(text: str) -> tuple[dict[str, np.ndarray], list[int]]:
    numbered = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line]
    cells = np.array([line for _, line in numbered], object)
    return {TEXT_COLUMN: cells}, [n for n, _ in numbered]


def _from_csv(
    name: str, text: str, header: bool, delimiter: str
) -> tuple[dict[str, np.ndarray], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    names: list[str] = []
    try:
        for row in reader:
            if not row:  # an empty line
                continue
            if not names:
                names = row if header else [str(i) for i in range(len(row))]
                _check_names(name, names)
                if header:
                    continue
            if len(row) != len(names):
                raise DataError(
                    f"{name}, row {reader.line_num}: has {len(row)} cells, "
                    f"{'the header' if header else 'the first row'} has {len(names)}"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{name}, row {reader.line_num}: {error}") from None
    columns = zip(*rows, strict=True) if rows else [() for _ in names]
    arrays = [np.array(column, object) for column in columns]
    return dict(zip(names, arrays, strict=True)), lines


def _check_names(name: str, names: list[str]) -> None:
    for place, one in enumerate(names):
        if not one.strip():
            raise DataError(f"{name}, row 1: column {place + 1} has no name")
        if one in names[:place]:
            raise DataError(f"{name}, row 1: two columns are called {one!r}")


def _from_parquet(name: str, content: bytes) -> dict[str, np.ndarray]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        line = str(error).splitlines()[0]
        raise DataError(f"{name}: cannot be read as Parquet: {line}") from None
    _check_names(name, table.column_names)
    return {
        one: _column(name, one, column.to_pylist())
        if column.null_count or not _is_number(column.type)
        else column.to_numpy()
        for one, column in zip(table.column_names, table.columns, strict=True)
    }


def _is_number(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)


def _column(name: str, column: str, cells: list[Any]) -> np.ndarray:
    """Cells of a Parquet column as text, numbers and None."""
    for row, cell in enumerate(cells):
        if isinstance(cell, bool):
            cells[row] = str(cell)
        elif cell is not None and not isinstance(cell, str | int | float):
            raise DataError(
                f"{name}, row {row + 1}, column {column!r}: holds "
                f"{type(cell).__name__}, neither text nor a number"
            )
    array = np.empty(len(cells), object)
    array[:] = cells
    return array


def _from_numpy(name: str, content: bytes) -> dict[str, np.ndarray]:
    """One matrix, a structured array, or arrays by name."""
    try:
        loaded = np.load(io.BytesIO(content), allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        line = str(error).splitlines()[0]
        raise DataError(f"{name}: cannot be read as NumPy arrays: {line}") from None
    columns: dict[str, np.ndarray] = {}
    for key, array in arrays.items():
        if array.dtype.names:
            columns |= {field: array[field] for field in array.dtype.names}
        elif array.ndim == 1:
            columns[key or "0"] = array
        elif array.ndim == 2:
            columns |= {f"{key}{i}": array[:, i] for i in range(array.shape[1])}
        else:
            raise DataError(
                f"{name}: array {key!r} has {array.ndim} axes, a table has 1 or 2"
            )
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise DataError(f"{name}: its arrays have different lengths: {sorted(lengths)}")
    for key, column in columns.items():
        if column.dtype.kind not in "biufU":
            raise DataError(
                f"{name}, column {key!r}: holds {column.dtype}, neither text nor "
                "numbers"
            )
        if column.dtype.kind in "bU":
            columns[key] = column.astype(str).astype(object)
    return columns
