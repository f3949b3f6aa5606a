"""The environment in which malloc asks for huge pages."""

import os
import subprocess
import sys

import pytest

from sgmae_jax import huge_pages

WISHED = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:"
    "glibc.malloc.trim_threshold=1073741824:glibc.malloc.top_pad=67108864"
)


@pytest.mark.parametrize(
    ("kernel", "tunables", "wanted"),
    [
        ("always [madvise] never\n", None, WISHED),
        ("always [madvise] never\n", "a.b=2", f"a.b=2:{WISHED}"),
        ("always [madvise] never\n", "glibc.malloc.hugetlb=0", None),
        ("always [madvise] never\n", "glibc.malloc.top_pad=0", None),
        ("[always] madvise never\n", None, None),
        ("always madvise [never]\n", None, None),
        (None, None, None),
    ],
)
def test_asked_for_only_where_the_kernel_waits_for_it(
    tmp_path, kernel, tunables, wanted
):
    file = tmp_path / "enabled"
    if kernel is not None:
        file.write_text(kernel)
    current = {"A": "1"} | ({} if tunables is None else {"GLIBC_TUNABLES": tunables})
    found = huge_pages.environment(current, file)
    if wanted is None:
        assert found is None
    else:
        assert found == {"A": "1", "GLIBC_TUNABLES": wanted}


_PROGRAM = """
import os, sys
from sgmae_jax import huge_pages

def wish(now):
    return None if "ASKED" in now else {**now, "ASKED": "1"}

huge_pages.environment = wish
print(os.getpid(), os.environ.get("ASKED"), sys.argv[1:], flush=True)
huge_pages.ask("some_program")
print("runs", flush=True)
"""


def _lines(folder, *words):
    (folder / "some_program.py").write_text(_PROGRAM)
    places = os.pathsep.join([str(folder), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_program_starts_anew_with_its_own_words(tmp_path):
    """The same process, the same words, once."""
    first, second, last = _lines(tmp_path, "-m", "some_program", "a b", "--c")
    process = first.split()[0]
    assert first == f"{process} None ['a b', '--c']"
    assert second == f"{process} 1 ['a b', '--c']"
    assert last == "runs"


def test_another_program_that_runs_the_module_is_not_started_anew(tmp_path):
    code = "import runpy; runpy.run_module('some_program', run_name='__main__')"
    first, last = _lines(tmp_path, "-c", code)
    assert " None " in first and last == "runs"
