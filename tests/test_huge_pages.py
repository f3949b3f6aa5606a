"""The environment in which malloc asks for huge pages."""

import os
import subprocess
import sys

import pytest

from sgmae_jax import huge_pages


@pytest.mark.parametrize(
    ("kernel", "tunables", "wanted"),
    [
        ("always [madvise] never\n", None, "glibc.malloc.hugetlb=1"),
        ("always [madvise] never\n", "a.b=2", "a.b=2:glibc.malloc.hugetlb=1"),
        ("always [madvise] never\n", "glibc.malloc.hugetlb=0", None),
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


def test_the_program_starts_anew_with_its_own_words(tmp_path):
    """The same process, the same words, once."""
    code = (
        "import os, sys; from sgmae_jax import huge_pages\n"
        "def wish(now, kernel=None): return None if 'X' in now else {**now, 'X': '1'}\n"
        "huge_pages.environment = wish\n"
        "print(os.getpid(), os.environ.get('X'), sys.argv[1:], flush=True)\n"
        "huge_pages.ask()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "a b", "--c"],
        env={name: value for name, value in os.environ.items() if name != "X"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    process = first.split()[0]
    assert first == f"{process} None ['a b', '--c']"
    assert second == f"{process} 1 ['a b', '--c']"
