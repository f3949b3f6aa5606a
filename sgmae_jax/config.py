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
    for key, field in {**FIELDS, **_method_fields(method)}.items():
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
        run: its directory, or empty where `checkpoint.path` is given later.
    """
    config = default_config()
    config.task = task
    config.checkpoint.path = run
    config.data.source = None  # the run's own
    saved = pathlib.Path(run, "config.json")
    if run and saved.is_file():
        for name, value in json.loads(saved.read_text()).items():
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
        f"--config {name}: no such file, nor a shipped config{_near(name, shipped)}; "
        f"shipped: {known}"
    )


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
    fields = {**FIELDS, **_method_fields(config.method.name)}
    for key in values:
        if key not in fields:
            raise ConfigError(f"config.{key}: no such field{_near(key, fields)}")
    for key, field in fields.items():
        if key not in values:
            raise ConfigError(f"config.{key}: missing; must be {field.rule(object())}")
        words = field.rule(values[key])
        if words:
            raise ConfigError(f"config.{key} = {values[key]!r}: must be {words}")
    _check_together(config)


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


def _check_together(config: ml_collections.ConfigDict) -> None:
    """Rules that need more than one field."""

    def need(good: bool, message: str) -> None:
        if not good:
            raise ConfigError(message)

    from sgmae_jax.models.presets import PRESETS, encoder_size

    if config.task != "pretrain":
        return  # model, method and mask come from the checkpoint
    need(
        (config.steps is None) != (config.epochs is None),
        f"config.steps = {config.steps}, config.epochs = {config.epochs}: "
        "set exactly one of the two",
    )
    need(
        config.data.source is not None,
        "config.data.source = None: must be named to train",
    )
    preset = config.model.preset
    need(
        not preset or preset in PRESETS,
        f"config.model.preset = {preset!r}: must be empty or one of "
        f"{', '.join(PRESETS)}{_near(preset, PRESETS)}",
    )
    for part in ("width", "depth", "heads"):
        need(
            bool(preset) or config.model[part] is not None,
            f"config.model.{part} = None: must be set when model.preset is empty",
        )
    for axis, side, patch in zip(
        ("height", "width"),
        pair(config.data.image_size),
        pair(config.model.patch_size),
        strict=True,
    ):
        need(
            side % patch == 0,
            f"config.data.image_size = {config.data.image_size}: its {axis} must be a "
            f"multiple of model.patch_size = {config.model.patch_size}",
        )
    size = encoder_size(
        preset, config.model.width, config.model.depth, config.model.heads
    )
    decoder = config.model.decoder_width, config.model.decoder_heads
    for key, heads_key, (total, parts) in (
        ("model.width", "model.heads", (size.width, size.heads)),
        ("model.decoder_width", "model.decoder_heads", decoder),
    ):
        need(
            total % parts == 0,
            f"config.{key} = {total}: must be a multiple of {heads_key} = {parts}",
        )
        # Two axes of sines and cosines share the width.
        need(total % 4 == 0, f"config.{key} = {total}: must be a multiple of 4")
    grid = grid_of(config)
    tokens = grid[0] * grid[1]
    for key in ("ratio", "ratio_end"):
        ratio = config.mask[key]
        kept = tokens if ratio is None else int(tokens * (1 - ratio))
        need(
            ratio is None or 1 <= kept < tokens,
            f"config.mask.{key} = {ratio}: must keep and hide at least one of the "
            f"{grid[0]}x{grid[1]} = {tokens} tokens, and keeps {kept}",
        )
    for key in ("mean", "std"):
        need(
            len(config.data[key]) == config.data.channels,
            f"config.data.{key} has {len(config.data[key])} values: must be one a "
            f"channel, data.channels = {config.data.channels}",
        )
    need(
        config.data.batch_size % config.optim.accumulate == 0,
        f"config.data.batch_size = {config.data.batch_size}: must be a multiple of "
        f"optim.accumulate = {config.optim.accumulate}",
    )
    need(
        config.data.source != "folder" or bool(config.data.path),
        "config.data.path = '': must name the folder, zip or tar of data.source",
    )
    need(
        not (config.model.attention == "cudnn" and config.model.dtype == "float32"),
        "config.model.attention = 'cudnn': must go with model.dtype = 'bfloat16'",
    )
    peak = config.optim.base_lr * config.data.batch_size / 256
    need(
        config.optim.min_lr <= peak,
        f"config.optim.min_lr = {config.optim.min_lr:g}: must be at most the peak, "
        f"base_lr * batch_size / 256 = {peak:g}",
    )
    if config.epochs is not None:
        need(
            config.optim.warmup_epochs < config.epochs,
            f"config.optim.warmup_epochs = {config.optim.warmup_epochs:g}: must be "
            f"less than epochs = {config.epochs}",
        )
    from sgmae_jax import methods

    check_method = getattr(methods.load(config.method.name), "check", None)
    if check_method is not None:
        check_method(config)
    from sgmae_jax.masking import MaskError, load_mask_fn

    try:
        load_mask_fn(config.mask.fn)
    except MaskError as error:
        raise ConfigError(f"config.mask.fn = {config.mask.fn!r}: {error}") from None


def _method_fields(method: str) -> dict[str, Field]:
    from sgmae_jax import methods

    if method not in methods.METHODS:
        raise ConfigError(
            f"config.method.name = {method!r}: must be one of "
            f"{', '.join(methods.METHODS)}{_near(method, methods.METHODS)}"
        )
    fields = methods.load(method).FIELDS
    return {f"method.{key}": field for key, field in fields.items()}


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
            raise ConfigError(f"config.{key}: no such field{_near(key, FIELDS)}")
        node = node[section]
    is_open = ".".join(sections) in OPEN_SECTIONS
    if not isinstance(node, ml_collections.ConfigDict) or (
        last not in node and not is_open
    ):
        known = flatten(config)
        raise ConfigError(f"config.{key}: no such field{_near(key, known)}")
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


def _near(name: str, known: Any) -> str:
    """The closest known name in words, or nothing."""
    names = list(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if not near:  # a field may be right but for its section
        last = name.rsplit(".", 1)[-1]
        near = [one for one in names if one.rsplit(".", 1)[-1] == last]
    return f"; did you mean {near[0]}?" if near else ""
