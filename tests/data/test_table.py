"""Tables from every kind of file, and what is wrong with one in a line."""

import gzip

import numpy as np
import pytest

from sgmae_jax.data import DataError
from sgmae_jax.data.table import open_table
from tests.data.tables import HEADER, rows, write_csv


def cells(source, column):
    return [source[i].cell(column) for i in range(len(source))]


def test_csv_and_tsv_hold_the_same(tmp_path):
    made = rows()
    one = open_table(write_csv(tmp_path / "a.csv", made))
    two = open_table(write_csv(tmp_path / "a.tsv", made, delimiter="\t"))
    semicolons = write_csv(tmp_path / "b.csv", made, delimiter=";")
    three = open_table(semicolons, delimiter=";")
    for name, column in zip(HEADER, zip(*made, strict=True), strict=True):
        for source in (one, two, three):
            assert cells(source, name) == list(column)
    assert len(one) == 40 and one[0].place("y") == "a.csv, row 2, column 'y'"
    assert one.fingerprint() != three.fingerprint()


def test_no_header_numbers_the_columns(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows(), header=None)
    source = open_table(path, header=False)
    assert list(source.columns) == ["0", "1", "2", "3"]
    assert source[0].place() == "a.csv, row 1"


def test_quoted_cells_empty_lines_marks_and_gzip(tmp_path):
    text = '\ufeffname,n\n"a, b",1\n\n"two\nlines",2\nlast,3\n'
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    source = open_table(str(path))
    assert cells(source, "name") == ["a, b", "two\nlines", "last"]
    assert source[2].place() == "a.csv.gz, row 6"


def test_parquet_keeps_numbers_and_what_is_missing(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {"n": [1.5, 2.5], "k": [1, None], "w": ["a", None], "b": [True, False]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    source = open_table(str(tmp_path / "a.parquet"))
    assert cells(source, "n") == [1.5, 2.5]
    assert cells(source, "k") == [1, None] and cells(source, "w") == ["a", None]
    assert cells(source, "b") == ["True", "False"]
    assert source[1].place("w") == "a.parquet, row 2, column 'w'"


def test_numpy_arrays_are_columns(tmp_path):
    matrix = np.arange(6.0).reshape(3, 2)
    np.save(tmp_path / "a.npy", matrix)
    np.savez(tmp_path / "a.npz", x=matrix, y=np.array(["p", "q", "p"]))
    fields = np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f4")])
    np.save(tmp_path / "s.npy", fields)
    assert cells(open_table(str(tmp_path / "a.npy")), "1") == [1, 3, 5]
    named = open_table(str(tmp_path / "a.npz"))
    assert list(named.columns) == ["x0", "x1", "y"] and cells(named, "y")[1] == "q"
    assert cells(open_table(str(tmp_path / "s.npy")), "b") == [2.5, 4.5]


def test_text_files_have_a_row_a_line(tmp_path):
    (tmp_path / "a.txt").write_text("CCO\n\nc1ccccc1\n")
    source = open_table(str(tmp_path / "a.txt"))
    assert cells(source, "text") == ["CCO", "c1ccccc1"]
    assert source[1].place() == "a.txt, row 3"


def test_splits_are_parts_files_or_a_second_path(tmp_path):
    write_csv(tmp_path / "train.csv", rows(30))
    write_csv(tmp_path / "test.csv", rows(10, seed=1))
    folder, file = str(tmp_path), str(tmp_path / "train.csv")
    assert len(open_table(folder, "train")) == 30
    assert len(open_table(folder, "test")) == 10
    assert len(open_table(file, "test", test_path=str(tmp_path / "test.csv"))) == 10
    first, rest = open_table(file, "train[:80%]"), open_table(file, "train[80%:]")
    places = [part[i].place() for part in (first, rest) for i in range(len(part))]
    assert (len(first), len(rest)) == (24, 6) and len(set(places)) == 30
    assert first[0].place() == open_table(file, "train[:90%]")[0].place()


def test_a_file_that_changes_is_read_again(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows(4))
    assert open_table(path) is open_table(path)
    before = open_table(path).fingerprint()
    write_csv(tmp_path / "a.csv", rows(5))
    assert len(open_table(path)) == 5 and open_table(path).fingerprint() != before


BAD = {
    "empty": ("a.csv", "", "a.csv: is empty"),
    "header alone": ("a.csv", "x,y\n", "a.csv: is empty, it has no rows"),
    "short row": ("a.csv", "x,y\n1,2\n3\n", "a.csv, row 3: has 1 cells, the header"),
    "long row": ("a.csv", "x,y\n1,2,3\n", "a.csv, row 2: has 3 cells"),
    "twice": ("a.csv", "x,x\n1,2\n", "two columns are called 'x'"),
    "nameless": ("a.csv", "x,\n1,2\n", "row 1: column 2 has no name"),
    "quote": ("a.csv", 'x,y\n1,"2\n', "a.csv, row 2: unexpected end"),
    "no text": ("a.csv", b"x,y\n1,\xff\xfe\n", "a.csv, row 2: is no UTF-8 text"),
    "no gzip": ("a.csv.gz", b"\x1f\x8bnonsense", "a.csv.gz: cannot be unpacked"),
    "no parquet": ("a.parquet", b"nonsense", "cannot be read as Parquet"),
    "no numpy": ("a.npy", b"nonsense", "cannot be read as NumPy"),
    "unknown": ("a.xlsx", b"PK", "a.xlsx: is none of .csv, .tsv"),
    "blank lines": ("a.txt", "\n\n", "a.txt: is empty, it has no rows"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line_that_says_where(case, tmp_path):
    name, content, words = BAD[case]
    raw = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError) as caught:
        open_table(str(tmp_path / name))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_arrays_that_make_no_table(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), y=np.zeros(4))
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "c.npy", np.zeros(2, complex))
    np.save(tmp_path / "d.npy", np.array([{}], object), allow_pickle=True)
    for name, words in (
        ("a.npz", "different lengths"),
        ("b.npy", "3 axes"),
        ("c.npy", "complex"),
        ("d.npy", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            open_table(str(tmp_path / name))


def test_what_is_not_there(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows(4))
    for given, split, words in (
        ("", "train", "must name a table"),
        (str(tmp_path / "no.csv"), "train", "does not exist"),
        (path, "test", "table.test_path"),
        (path, "train[", "neither a name nor a part"),
        (str(tmp_path), "train", "must have one file train.csv"),
    ):
        with pytest.raises(DataError, match=words.replace("[", r"\[")):
            open_table(given, split)
    with pytest.raises(DataError, match=r"no column 'sise' .*did you mean 'size'"):
        open_table(path).need("sise", "table.target")
