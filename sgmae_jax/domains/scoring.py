"""What the scorers of all domains share."""

from __future__ import annotations

from collections.abc import Callable

from sgmae_jax.config import ConfigError, flatten
from sgmae_jax.data import Items, bounds, parse_split

# What a run that keeps its best step logs of the validation split; the higher the
# better, so an error counts negative.
VALIDATION = "eval/validation"


def check_apart(
    config, first: str, second: str, opened: Callable[[str], Items]
) -> None:
    """Two splits of a config must not share items.

    Args:
        config: with a data source that is there.
        first: dotted name of a field that holds a split.
        second: of another one.
        opened: split -> its items.

    Raises:
        ConfigError: they do.
    """
    splits = [flatten(config)[field] for field in (first, second)]
    names = [parse_split(split) for split in splits]
    if names[0] is None or names[1] is None or names[0][0] != names[1][0]:
        return
    length = len(opened(names[0][0]))
    (low, high), (other_low, other_high) = (
        bounds(*name[1:], length) for name in names if name
    )
    if max(low, other_low) < min(high, other_high):
        raise ConfigError(
            f"config.{first} = {splits[0]!r}: must share no item with "
            f"{second} = {splits[1]!r}"
        )
