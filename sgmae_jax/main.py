"""`python -m sgmae_jax.main --config FILE[:arg] --workdir DIR [--config.x=y ...]`"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from sgmae_jax import huge_pages

# A disk that is full, over its quota, or mounted anew for reading only.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WORTH_KEEPING = 0.05  # seconds of compilation
_USAGE = """\
python -m sgmae_jax.main --config FILE[:arg] [--workdir DIR] [--config.FIELD=VALUE ...]

Trains, evaluates, analyzes, exports or imports masked autoencoders, as a config says.

  --config FILE[:arg]      a Python file, or the name of a shipped config (quickstart)
  --workdir DIR            run directory; default runs/<config>
  --config.FIELD=VALUE     overrides any field, e.g. --config.data.batch_size=128
  --help                   this text

Exit codes: 0 done, or stopped by SIGTERM with everything saved; 2 the config, the
data or the command line is wrong; 3 checkpoints are there but none can be used;
4 too many steps were void; 5 checkpoints or other files of the run could not be
written; 6 other processes of the job have failed or did not come.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(words)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            code = 5
        if code is None:
            raise
        print(f"error: {error}", file=sys.stderr)
        return code


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, exit_on_error=False
    )
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config")
    parser.add_argument("--workdir")
    try:
        options, rest = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        from sgmae_jax.config import ConfigError

        raise ConfigError(str(error)) from None
    if options.help:
        print(_USAGE, end="")
        return 0
    from sgmae_jax.config import ConfigError, find_config, load_config

    if not options.config:
        raise ConfigError("--config: must name a file or a shipped config; see --help")
    config = load_config(options.config, _overrides(rest))
    stem = find_config(options.config.partition(":")[0]).stem

    from sgmae_jax import processes

    processes.start(config.distributed)
    _check_start(config)

    import jax

    from sgmae_jax.tasks import SHARED, TASKS
    from sgmae_jax.training.console import Console
    from sgmae_jax.training.workdir import open_workdir

    if jax.process_count() > 1 and config.task not in SHARED:
        raise ConfigError(
            f"config.task = {config.task!r}: must be run by one process, here are "
            f"{jax.process_count()}"
        )
    workdir = pathlib.Path(options.workdir or f"runs/{stem}")
    locks: list[TextIO] = []
    processes.on_first(lambda: locks.append(open_workdir(workdir)))
    _keep_compiled()
    console = Console(process=jax.process_index())
    try:
        TASKS[config.task](config, workdir, console)
    finally:
        console.close()
        for lock in locks:
            lock.close()
    return 0


def _keep_compiled() -> None:
    """Another start need not compile its programs again, unless JAX is told otherwise.

    They are the user's, not the run's: a run directory that is handed on must not hold
    what would be executed. Nor may the processes of a job share a folder.
    """
    import jax

    from sgmae_jax.user_cache import user_cache

    told = getattr(jax.config, "jax_compilation_cache_dir", None)
    if jax.process_count() > 1 or told is not None:
        return
    # No home, or one that cannot be written: everything is compiled, as without.
    with contextlib.suppress(OSError, RuntimeError):
        folder = user_cache() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # JAX's own limit of a second leaves out a dozen programs of every start.
        limit = "jax_persistent_cache_min_compile_time_secs"
        if limit.upper() not in os.environ:
            jax.config.update(limit, _WORTH_KEEPING)


def _check_start(config) -> None:
    """All processes of a job run the same program on the same config."""
    import jax

    import sgmae_jax
    from sgmae_jax import processes
    from sgmae_jax.training.workdir import public_config

    if jax.process_count() == 1:
        return
    processes.check_same("config", public_config(config))
    versions = {"sgmae_jax": sgmae_jax.__version__, "jax": jax.__version__}
    code = {"code": processes.code_digest()}
    processes.check_same("program", {**versions, **code})


def _overrides(words: list[str]) -> list[tuple[str, str]]:
    """`--config.x=y` and `--config.x y` as pairs."""
    from sgmae_jax.config import ConfigError

    pairs, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            raise ConfigError(f"{word}: is no option; see --help")
        field, given, value = word.removeprefix("--config.").partition("=")
        if not given:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{word}: must be followed by a value")
            value = rest.pop(0)
        pairs.append((field, value))
    return pairs


def program() -> NoReturn:
    """Runs `main` and ends the process; after an error at once.

    Neither a thread that reads from a disk that hangs nor the other processes of the
    job, who wait for this one, may hold it back.
    """
    try:
        code = main()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)
    sys.exit(0)


if __name__ == "__main__":
    huge_pages.ask("sgmae_jax.main")
    program()
