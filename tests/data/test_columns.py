"""Cells become numbers, categories and bytes by what the training rows say."""

import json

import numpy as np
import pytest

from sgmae_jax.data import DataError
from sgmae_jax.data.byte_text import SEP, ByteText, Following, to_text
from sgmae_jax.data.columns import (
    MISSING,
    check_rows,
    columns_from,
    find_columns,
    find_target,
    target_from,
    to_json,
)
from sgmae_jax.data.table import open_table
from tests.data.tables import rows, write_csv

NAMES = ("size", "colour", "weight")


@pytest.fixture
def source(tmp_path):
    return open_table(write_csv(tmp_path / "a.csv", rows()), "train[:80%]")


def test_numbers_are_standardised_with_training_rows_alone(source, tmp_path):
    columns = find_columns(source, names=NAMES)
    made = [columns.of(source[i]) for i in range(len(source))]
    values = np.stack([row["values"][:, 0] for row in made])
    np.testing.assert_allclose(values[:, 0].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(values[:, 0].std(), 1, rtol=1e-5)
    shifted = [[str(float(row[0]) + 10), *row[1:]] for row in rows()]
    other = open_table(write_csv(tmp_path / "b.csv", shifted))
    far = np.stack([columns.of(other[i])["values"][0, 0] for i in range(40)])
    np.testing.assert_allclose(far.mean(), 10 / columns.columns[0].std, rtol=0.1)


def test_words_are_categories_and_gaps_a_state_of_their_own(source):
    columns = find_columns(source, names=NAMES)
    assert columns.columns[1].categories == ("blue", "green", "red")
    assert (columns.channels, columns.symbols) == (1, 4)
    for i in range(len(source)):
        row, made = source[i], columns.of(source[i])
        colour = 1 + ("blue", "green", "red").index(row.cell("colour"))
        weight = MISSING if row.cell("weight") == "" else -1
        assert made["symbols"].tolist() == [-1, colour, weight]
    allowed = columns.allowed()
    assert allowed.tolist() == [[False] * 4, [False, True, True, True], [False] * 4]


def test_a_table_of_numbers_has_no_symbols(source):
    columns = find_columns(source, names=("size",))
    assert columns.symbols == 0 and "symbols" not in columns.of(source[0])


def test_it_survives_json(source):
    columns = find_columns(source, names=NAMES)
    target = find_target(source, "y", classes=True)
    assert columns_from(json.loads(json.dumps(to_json(columns)))) == columns
    assert target_from(json.loads(json.dumps(to_json(target)))) == target
    again = columns_from(json.loads(json.dumps(to_json(columns))))
    for name, cell in again.of(source[3]).items():
        np.testing.assert_array_equal(cell, columns.of(source[3])[name])


def test_targets(source):
    target = find_target(source, "y", classes=True)
    assert target.classes == ("0", "1") and sum(target.counts) == len(source)
    assert target.of(source[0]) == {"label": int(source[0].cell("y"))}
    number = find_target(source, "size", classes=False)
    made = [number.of(source[i])["target"] for i in range(len(source))]
    np.testing.assert_allclose([np.mean(made), np.std(made)], [0, 1], atol=1e-5)
    with pytest.raises(DataError, match=r"32 different labels.*regression"):
        find_target(source, "size", classes=True)


def test_numbers_named_categorical_are_categories(source):
    columns = find_columns(source, names=("y",), categorical=("y",))
    assert columns.columns[0].categories == ("0", "1")


# cell (row, column) of the file, what is put there, what the error must say
BAD_CELLS = [
    ((4, 0), "abc", "a.csv, row 6, column 'size': 'abc' is no number"),
    ((4, 0), "abc", "(39 of 40 cells of this column are; name it in table.cat"),
    ((0, 0), "inf", "row 2, column 'size': 'inf' is not finite"),
    ((0, 0), "NaN", "row 2, column 'size': 'NaN' is not finite"),
    ((7, 3), "", "row 9, column 'y': has no label"),
]


@pytest.mark.parametrize(("place", "cell", "words"), BAD_CELLS)
def test_a_bad_cell_is_named_with_its_row_and_column(place, cell, words, tmp_path):
    made = rows()
    made[place[0]][place[1]] = cell
    source = open_table(write_csv(tmp_path / "a.csv", made))
    with pytest.raises(DataError) as caught:
        find_columns(source, names=NAMES)
        find_target(source, "y", classes=True)
    assert words in str(caught.value) and "\n" not in str(caught.value)


UNSEEN = [
    (1, "violet", "row 2, column 'colour': 'violet' is no category"),
    (0, "", "row 2, column 'size': has no value, which no training row"),
    (0, "x", "row 2, column 'size': 'x' is no number"),
    (3, "2", "row 2, column 'y': '2' is none of the training rows' classes"),
]


@pytest.mark.parametrize(("column", "cell", "words"), UNSEEN)
def test_what_the_training_rows_have_not(source, column, cell, words, tmp_path):
    columns = find_columns(source, names=NAMES)
    target = find_target(source, "y", classes=True)
    made = rows(3)
    made[0][column] = cell
    other = open_table(write_csv(tmp_path / "b.csv", made))
    with pytest.raises(DataError) as caught:
        check_rows(other, (columns.of, target.of))
    assert str(caught.value).startswith("b.csv, ") and words in str(caught.value)


def test_unseen_categories_may_be_taken_as_missing(source, tmp_path):
    columns = find_columns(source, names=NAMES, unseen=True)
    made = rows(3)
    made[0][1] = "violet"
    other = open_table(write_csv(tmp_path / "b.csv", made))
    assert columns.of(other[0])["symbols"][1] == MISSING


def test_columns_that_say_nothing(tmp_path):
    made = [["", f"word{i}", "7"] for i in range(20)]
    path = write_csv(tmp_path / "a.csv", made, header=("none", "many", "same"))
    source = open_table(path)
    with pytest.raises(DataError, match="column 'none' has no value in any row"):
        find_columns(source, names=("none",))
    with pytest.raises(
        DataError, match=r"'many' has 20 different words.*table\.ignore"
    ):
        find_columns(source, names=("many",), most=10)
    same = find_columns(source, names=("same",))
    assert same.of(source[0])["values"].tolist() == [[0.0]]


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "a.txt").write_text("CCO\nc1ccccc1\nN\nCC(=O)O\n")
    return open_table(str(tmp_path / "a.txt"))


def test_bytes_end_with_a_separator_and_are_padded(texts):
    row = ByteText("text", 10).of(texts[0])
    assert row["symbols"].tolist() == [*(ord(c) + 6 for c in "CCO"), SEP, *[0] * 6]
    assert row["valid"].tolist() == [True] * 4 + [False] * 6
    assert to_text(row["symbols"][:4]) == "CCO|"


def test_bytes_are_utf8(tmp_path):
    (tmp_path / "a.txt").write_text("é\n")
    row = ByteText("text", 4).of(open_table(str(tmp_path / "a.txt"))[0])
    assert row["symbols"].tolist() == [0xC3 + 6, 0xA9 + 6, SEP, 0]


def test_packed_rows_are_filled_by_the_texts_behind(texts):
    packed = Following(texts, 8)
    reader = ByteText("text", 14)
    shown = [to_text(reader.packed_of(packed[i])["symbols"]) for i in range(4)]
    assert shown[0] == "CCO|c1ccccc1|N" and shown[1].startswith("c1ccccc1|N|CC(")
    assert shown[3].startswith("CC(=O)O|") and len(packed) == 4
    assert reader.packed_of(packed[3])["valid"].sum() == 8


def test_a_longer_text_is_refused_or_cut(texts):
    words = r"a\.txt, row 2, column 'text': has 8 bytes, table\.length = 8"
    with pytest.raises(DataError, match=words):
        ByteText("text", 8).of(texts[1])
    assert to_text(ByteText("text", 8, cut=True).of(texts[1])["symbols"]) == "c1ccccc|"
    assert ByteText("text", 9).of(texts[1])["valid"].all()


def test_a_cell_without_text_is_refused(tmp_path):
    path = write_csv(tmp_path / "a.csv", [["x", "1"], ["", "2"]], header=("s", "n"))
    with pytest.raises(DataError, match="row 3, column 's': has no text"):
        ByteText("s", 8).of(open_table(path)[1])
