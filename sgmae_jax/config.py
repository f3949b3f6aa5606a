"""Configs: the fields there are, where config files are found, and validation.

A config file is Python with `get_config(arg)` and returns `default_config(method)`
with some fields changed. Nothing here touches a device: a bad value is one line.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from sgmae_jax import rules
from sgmae_jax.rules import Field
from sgmae_jax.schema import FIELDS, OPEN_SECTIONS


class ConfigError(ValueError):
    """A config that cannot run; the message is the one line a user needs."""

    exit_code = 2


def default_config(method: str = "mae") -> ml_collections.ConfigDict:
    """All fields with their defaults, those of the method named included.

    Args:
        method: a name in `sgmae_jax.methods.METHODS`.

    Returns:
        A locked config; unknown fields cannot be added by mistake.

    Raises:
        ConfigError: there is no method of that name.
    """
    config = ml_collections.ConfigDict(type_safe=False)
    for key, field in fields_of(method).items():
        *sections, last = key.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ml_collections.ConfigDict(type_safe=False)
            node = node[section]
        is_open = isinstance(field.default, dict)
        node[last] = (
            ml_collections.ConfigDict(field.default, type_safe=False)
            if is_open
            else field.default
        )
    config.method.name = method
    config.lock()
    config.mask.options.unlock()
    return config


def config_from(flat: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """The config that a run has written down, field by field.

    Args:
        flat: dotted field -> value, as in config.json or a checkpoint's meta.

    Raises:
        ConfigError: a field or a method is unknown to this version.
    """
    config = default_config(flat["method.name"])
    for name, value in flat.items():
        assign(config, name, value)
    return config


def config_of_run(task: str, run: str) -> ml_collections.ConfigDict:
    """A config for a task on a run, with that run's `eval` and `analyze` sections.

    Args:
        task: what to do with the run.
        run: its directory, or weights that were exported; empty where
            `checkpoint.path` is given later.
    """
    config = default_config()
    config.task = task
    config.checkpoint.path = run
    config.data.source = None  # the run's own
    for file in ("config.json", "card.json"):
        saved = pathlib.Path(run, file)
        if not run or not saved.is_file():
            continue
        found = json.loads(saved.read_text())
        # A card holds the config of the run that was exported.
        for name, value in (found.get("config") or found).items():
            if name.startswith(("eval.", "analyze.")):
                assign(config, name, value)
    return config


def find_config(name: str) -> pathlib.Path:
    """The file of a config given as a path or as the name of a shipped one.

    Raises:
        ConfigError: no such file and no shipped config of that name.
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path
    package = pathlib.Path(__file__).resolve().parent
    folders = [package / "configs", package.parent / "configs"]
    shipped = {
        file.stem: file
        for folder in folders
        for file in sorted(folder.glob("*.py"))
        if file.stem != "__init__"
    }
    if path.stem in shipped and path.suffix in ("", ".py"):
        return shipped[path.stem]
    known = ", ".join(sorted(shipped))
    raise ConfigError(
        f"--config {name}: no such file, nor a shipped config{near(name, shipped)}; "
        f"shipped: {known}"
    )


def shipped(name: str, method: str | None = None) -> ml_collections.ConfigDict:
    """A shipped config, or one for another method, whose own fields have defaults.

    Args:
        name: of a shipped config.
        method: a name in `sgmae_jax.methods.METHODS`; None: as it is.
    """
    config = _run_config_file(find_config(name), None)
    return config if method is None else _with_method(config, method)


def load_config(spec: str, overrides: Sequence[tuple[str, str]] = ()):
    """Reads `FILE[:arg]`, applies overrides and validates.

    Args:
        spec: path or shipped name, with an optional argument after a colon.
        overrides: pairs of a dotted field and its value as typed by the user.

    Returns:
        The resolved, locked config.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    name, _, argument = spec.partition(":")
    path = find_config(name)
    config = _run_config_file(path, argument or None)
    parsed = {key: _parse(value) for key, value in overrides}
    method = parsed.get("method.name", config.method.name)
    if method != config.method.name:
        config = _with_method(config, method)
    for key, value in parsed.items():
        assign(config, key, value)
    validate(config)
    return config


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every field and every pair of fields that must agree.

    Raises:
        ConfigError: the first thing that is wrong.
    """
    values = flatten(config)
    fields = fields_of(config.method.name)
    for key in values:
        if key not in fields:
            raise ConfigError(f"config.{key}: no such field{near(key, fields)}")
    for key, field in fields.items():
        if key not in values:
            raise ConfigError(f"config.{key}: missing; must be {field.rule(object())}")
        words = field.rule(values[key])
        if words:
            raise ConfigError(f"config.{key} = {values[key]!r}: must be {words}")
    from sgmae_jax.agreement import check_agreement

    check_agreement(config)


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Dotted field -> value; open sections stay whole."""
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for key in node:
            path = f"{prefix}{key}"
            value = node[key]
            is_section = isinstance(value, ml_collections.ConfigDict)
            if is_section and path not in OPEN_SECTIONS:
                walk(value, f"{path}.")
            else:
                flat[path] = value.to_dict() if is_section else value

    walk(config, "")
    return flat


def pair(value: Any) -> tuple[int, int]:
    """A size field as (height, width)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def grid_of(config: ml_collections.ConfigDict) -> tuple[int, int]:
    """The token grid (h, w) that image and patch size give."""
    height, width = pair(config.data.image_size)
    patch_height, patch_width = pair(config.model.patch_size)
    return height // patch_height, width // patch_width


def fields_of(method: str) -> dict[str, Field]:
    """All fields of a config for a method, its own included.

    Raises:
        ConfigError: there is no method of that name.
    """
    from sgmae_jax import methods

    if method not in methods.METHODS:
        raise ConfigError(
            f"config.method.name = {method!r}: must be one of "
            f"{', '.join(methods.METHODS)}{near(method, methods.METHODS)}"
        )
    own = methods.load(method).FIELDS
    return {**FIELDS, **{f"method.{key}": field for key, field in own.items()}}


def _with_method(old: ml_collections.ConfigDict, method: str):
    """The same config for another method, whose own fields take their defaults."""
    new = default_config(method)
    for key, value in flatten(old).items():
        if not key.startswith("method."):
            assign(new, key, value)
    return new


def assign(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    """Sets a dotted field.

    Raises:
        ConfigError: there is no such field.
    """
    *sections, last = key.split(".")
    node: Any = config
    for section in sections:
        if not isinstance(node, ml_collections.ConfigDict) or section not in node:
            raise ConfigError(f"config.{key}: no such field{near(key, FIELDS)}")
        node = node[section]
    is_open = ".".join(sections) in OPEN_SECTIONS
    if not isinstance(node, ml_collections.ConfigDict) or (
        last not in node and not is_open
    ):
        known = flatten(config)
        raise ConfigError(f"config.{key}: no such field{near(key, known)}")
    if isinstance(node[last] if last in node else None, ml_collections.ConfigDict):
        if key not in OPEN_SECTIONS:
            raise ConfigError(f"config.{key} = {value!r}: is a section, not a field")
        if rules.mapping(value):
            raise ConfigError(f"config.{key} = {value!r}: must be a mapping")
        node[last].update(value)
        return
    node[last] = value


def _parse(value: str) -> Any:
    """Numbers, tuples, None, True and False as Python writes them; else the text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    try:  # nan and inf are no Python literals, but they are numbers, and bad ones
        return float(value) if math.isnan(float(value)) or "inf" in value else value
    except ValueError:
        return value


def _run_config_file(path: pathlib.Path, argument: str | None):
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config {path}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise ConfigError(f"--config {path}: has no function get_config")
        takes_argument = bool(inspect.signature(get_config).parameters)
        if argument is not None and not takes_argument:
            raise ConfigError(f"--config {path}:{argument}: takes no argument")
        config = get_config() if argument is None else get_config(argument)
    except ConfigError:
        raise
    except Exception as error:  # a user's file may do anything
        line = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"--config {path}: {type(error).__name__}: {line[0]}"
        ) from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"--config {path}: get_config must return a ConfigDict")
    return config


def near(name: str, known: Any) -> str:
    """The closest known name in words, or nothing."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1, 0.5)
    if not close:  # a field may be right but for its section
        last = name.rsplit(".", 1)[-1]
        close = [one for one in names if one.rsplit(".", 1)[-1] == last]
    return f"; did you mean {close[0]}?" if close else ""
