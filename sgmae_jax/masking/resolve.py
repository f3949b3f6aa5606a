"""A mask function by its name, as a config gives it."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sgmae_jax.masking.types import MaskFn


class MaskError(ValueError):
    """A mask function that cannot be found or used; the message is one line."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def load_mask_fn(name: str) -> MaskFn:
    """Import a mask function.

    Args:
        name: "package.module:function".

    Returns:
        The function, not yet checked (see `check_mask_fn`).

    Raises:
        MaskError: which part of the name is wrong.
    """
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute) or ":" in attribute:
        raise MaskError(f"{name!r} is not of the form package.module:function")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise MaskError(_import_problem(module_name, error)) from error
    try:
        function = getattr(module, attribute)
    except AttributeError:
        names = [n for n in dir(module) if not n.startswith("_")]
        raise MaskError(
            f"module {module_name} has no {attribute!r}{_closest(attribute, names)}"
        ) from None
    if not callable(function):
        kind = type(function).__name__
        raise MaskError(f"{name} is not callable, it is of type {kind}")
    return function


def match_call(fn: MaskFn, options: Mapping[str, Any]) -> None:
    """Match `fn(keys, context, ratio=..., **options)` with the signature.

    Raises:
        MaskError: an unknown option, one that is missing, or no place for the rest.
    """
    name = name_of(fn)
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # some built-in callables have none
        return
    parameters = list(signature.parameters.values())
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in parameters if p.kind in by_name]
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        if "ratio" not in known:
            raise MaskError(f"{name} does not take the keyword 'ratio'")
        for option in options:
            if option not in known:
                own = [p.name for p in parameters[2:] if p.name != "ratio"]
                raise MaskError(
                    f"{name} has no option {option!r}{_closest(option, own)} "
                    f"(its options: {', '.join(own) or 'none'})"
                )
    if "ratio" in options:
        raise MaskError(f"{name}: 'ratio' is passed by itself, not among the options")
    try:
        signature.bind("keys", "context", ratio=0.5, **options)
    except TypeError as error:
        raise MaskError(
            f"{name}(keys, context, ratio=...) cannot be called: {error}"
        ) from None


def name_of(fn: Any) -> str:
    """A function as a config names it."""
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    return f"{module}:{name}" if module and name else repr(fn)


def _closest(word: str, names: list[str]) -> str:
    """The end of a message: names near a wrong one, or nothing."""
    near = difflib.get_close_matches(word, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _import_problem(module_name: str, error: Exception) -> str:
    """Tell a module that is not there from one that fails while it is imported."""
    missing = getattr(error, "name", None)
    own = isinstance(error, ModuleNotFoundError) and missing is not None
    if own and f"{module_name}.".startswith(f"{missing}."):
        return f"there is no module {missing!r} (looking for {module_name})"
    return f"module {module_name} cannot be imported: {type(error).__name__}: {error}"
