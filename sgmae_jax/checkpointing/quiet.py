"""Keeps what Orbax prints about slow and failed saves off the console.

The same error reaches `save` or `wait` and becomes one line there.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import warnings
from typing import Any

_ORBAX = os.path.join("orbax", "checkpoint")


@functools.cache
def mute_orbax() -> None:
    """Drops its warnings, error records and late callbacks, once for the process."""
    logging.getLogger("absl").addFilter(_is_news)
    logging.getLogger("asyncio").addFilter(_is_not_left_behind)
    # After a failed write it leaves others unstarted.
    warnings.filterwarnings(
        "ignore", r"coroutine '.*async_serialize.*' was never awaited", RuntimeWarning
    )
    others = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # When one of several writes fails, Orbax closes its event loop, and each
        # later result of TensorStore prints a traceback from a foreign thread.
        late = unraisable.exc_type is RuntimeError and unraisable.object is None
        if not (late and str(unraisable.exc_value) == "Event loop is closed"):
            others(unraisable)

    sys.unraisablehook = hook


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING or _ORBAX not in record.pathname


def _is_not_left_behind(record: logging.LogRecord) -> bool:
    text = logging.Formatter().format(record)  # with the traceback
    signs = (_ORBAX, "tensorstore", "os_error_code")
    return "never retrieved" not in text or not any(sign in text for sign in signs)
