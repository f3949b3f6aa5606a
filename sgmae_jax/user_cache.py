"""Where the program keeps what can be made again."""

from __future__ import annotations

import os
import pathlib


def user_cache() -> pathlib.Path:
    """The user's cache folder for this program: in $XDG_CACHE_HOME, or ~/.cache.

    Raises:
        RuntimeError: there is no home.
    """
    usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(usual).expanduser() / "sgmae_jax"
