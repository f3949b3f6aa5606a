"""Keeps what Orbax prints about a failed save off the console.

The same error reaches the caller of `save` or `wait` and becomes one line there.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import Any

_ORBAX = os.path.join("orbax", "checkpoint")


@functools.cache
def mute_orbax() -> None:
    """Drops its error records and its late callbacks, once for the process."""
    logging.getLogger("absl").addFilter(_is_news)
    others = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # When one of several writes fails, Orbax closes its event loop, and each
        # later result of TensorStore prints a traceback from a foreign thread.
        late = unraisable.exc_type is RuntimeError and unraisable.object is None
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            others(unraisable)

    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or _ORBAX not in record.pathname
