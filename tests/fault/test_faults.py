"""Every fault of the list has a test."""

import ast
import pathlib

import pytest

from tests.fault.faults import PASS

TESTS = pathlib.Path(__file__).parents[1]


def marked():
    """The numbers in `pytest.mark.fault(number)` of all files."""
    found = set()
    for file in TESTS.rglob("test_*.py"):
        text = file.read_text()
        if "mark.fault(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                "mark.fault"
            ):
                found.add(ast.literal_eval(node.args[0]))
    return found


@pytest.mark.parametrize("number", PASS)
def test_every_fault_has_a_test(number):
    assert number in marked()


def test_no_mark_is_without_a_line():
    assert marked() <= PASS.keys()
