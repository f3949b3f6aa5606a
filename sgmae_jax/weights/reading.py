"""Weights by their path, whoever wrote them, for the images that are wished for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sgmae_jax.config import pair
from sgmae_jax.models.presets import encoder_size
from sgmae_jax.weights.errors import WeightsError
from sgmae_jax.weights.export import (
    CARD,
    CONFIG,
    PREPROCESSOR,
    TENSORS,
    check_file,
    load_card,
    load_decoder,
    load_encoder,
)
from sgmae_jax.weights.fit import (
    fit_channels,
    fit_positions,
    fit_statistics,
    with_positions,
    without_fixed_positions,
)
from sgmae_jax.weights.foreign import agreed, single, translate
from sgmae_jax.weights.names import Part
from sgmae_jax.weights.said import described
from sgmae_jax.weights.tensors import INDEX, PICKLED, WEIGHTS, read_tensors


class Weights(NamedTuple):
    """What `read_weights` returns.

    Attributes:
        fields: of the config: those that make the network, by dotted name; of an
            export of ours, its data too.
        parts: "encoder" and, where there is one, "decoder": our trees, float32.
        form: whose file it is: "ours", "timm" (and the authors') or "huggingface".
        files: name of each file of tensors, and its SHA-256.
        left_out: names of what was not taken.
        card: of an export of ours, in whatever format, else None.
    """

    fields: dict[str, Any]
    parts: dict[Part, dict[str, Any]]
    form: str
    files: dict[str, str]
    left_out: tuple[str, ...]
    card: dict[str, Any] | None


def is_weights(path: str | os.PathLike) -> bool:
    """Whether there is something that `read_weights` would look into."""
    path = Path(path)
    known = (CARD, WEIGHTS, INDEX, PICKLED)
    return path.is_file() or any((path / name).is_file() for name in known)


def wishes(config) -> dict[str, Any]:
    """The keyword arguments of `read_weights` that a config's section has."""
    options = config.weights.to_dict()
    del options["format"]
    return options


def read_weights(
    path: str | os.PathLike,
    *,
    allow_pickle: bool = False,
    sha256: str = "",
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    heads: int | None = None,
    decoder_heads: int | None = None,
) -> Weights:
    """An exported folder, or a file or folder of others. Nothing in it is executed.

    Args:
        path: a folder that `export` or `import` wrote, one of Hugging Face or timm, or
            a single file of either or of the authors; of a single file, nothing that
            lies beside it is read.
        allow_pickle: PyTorch files too.
        sha256: what the file of tensors must have, in hexadecimal; empty: anything.
        image_size: pixels; other positions are interpolated. None: as in the file.
        channels: of the images; None: as in the file.
        heads: of the encoder, where the file does not say.
        decoder_heads: of the decoder, likewise.

    Raises:
        WeightsError: it cannot be taken; one line with the path and the reason.
    """
    path = Path(path)
    try:
        card = load_card(path) if (path / CARD).is_file() else None
        if card is not None and TENSORS in card["sha256"]:
            found = _ours(path, card, sha256, heads, decoder_heads)
        else:
            tensors = read_tensors(path, allow_pickle=allow_pickle, sha256=sha256)
            if card is not None:
                for name, digest in tensors.files.items():
                    check_file(card, name, digest)
            said = described(_note(path, CONFIG, card), _note(path, PREPROCESSOR, card))
            taken = translate(
                tensors.arrays, said, heads=heads, decoder_heads=decoder_heads
            )
            found = Weights(
                _fields_of(card, "data.") | taken.fields,
                taken.parts,
                taken.naming,
                tensors.files,
                taken.left_out,
                card,
            )
        return _fitted(found, image_size, channels)
    except WeightsError as error:
        words = str(error)
        told = words if words.startswith(str(path)) else f"{path}: {words}"
        raise WeightsError(told) from None
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None


def _ours(
    folder: Path,
    card: dict[str, Any],
    sha256: str,
    heads: int | None,
    decoder_heads: int | None,
) -> Weights:
    files = {
        name: digest
        for name, digest in card["sha256"].items()
        if name.endswith(".safetensors")
    }
    if sha256 and files[TENSORS] != sha256.lower():
        raise WeightsError(f"the SHA-256 of {TENSORS} is {files[TENSORS]}")
    parts: dict[Part, dict[str, Any]] = {"encoder": load_encoder(folder)[0]}
    decoder = load_decoder(folder)
    if decoder is not None:
        parts["decoder"] = decoder
    fields = _fields_of(card, "data.", "model.", "method.norm_pix")
    try:
        part = {name.removeprefix("model."): fields[name] for name in fields}
        size = encoder_size(part["preset"], part["width"], part["depth"], part["heads"])
        agreed("heads", size.heads, heads)
        agreed("decoder_heads", part["decoder_heads"], decoder_heads)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{CARD} does not say what its model is: {error!r}"
        ) from None
    return Weights(fields, parts, "ours", files, (), card)


def _fields_of(card: Mapping[str, Any] | None, *prefixes: str) -> dict[str, Any]:
    """Fields of the config that a card holds; none without a card."""
    fields = (card or {}).get("config", {})
    if not isinstance(fields, dict):
        raise WeightsError(f"{CARD} holds no config")
    return {name: fields[name] for name in fields if name.startswith(prefixes)}


def _note(path: Path, name: str, card: Mapping[str, Any] | None) -> dict[str, Any]:
    """A JSON file of a folder; empty where there is none, or for a single file."""
    if not path.is_dir() or not (path / name).is_file():
        return {}
    payload = (path / name).read_bytes()
    if card is not None:
        check_file(card, name, hashlib.sha256(payload).hexdigest())
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{name}: damaged: {error}") from None
    if not isinstance(content, dict):
        raise WeightsError(f"{name}: must be a JSON object")
    return content


def _fitted(
    found: Weights,
    image_size: int | tuple[int, int] | None,
    channels: int | None,
) -> Weights:
    """For other images, if wished; a position table is a parameter where it must be."""
    fields, parts, left_out = dict(found.fields), dict(found.parts), found.left_out
    try:
        patch = pair(fields["model.patch_size"])
        own = pair(fields["data.image_size"])
        wished = own if image_size is None else pair(image_size)
        grid, wanted = (
            (size[0] // patch[0], size[1] // patch[1]) for size in (own, wished)
        )
        if wished[0] % patch[0] or wished[1] % patch[1]:
            raise WeightsError(
                f"config.weights.image_size = {image_size} is no whole number of its "
                f"patches of {patch}; patch_embed.kernel is for no others"
            )
        fields["data.image_size"] = single(wished)
        parts = {
            part: fit_positions(with_positions(tree, grid), grid, wanted)
            for part, tree in parts.items()
        }
        had = fields["data.channels"]
        if channels is not None and channels != had:
            embed = dict(parts["encoder"]["patch_embed"])
            embed["kernel"] = fit_channels(embed["kernel"], had, channels)
            parts["encoder"] = {**parts["encoder"], "patch_embed": embed}
            fields["data.channels"] = channels
            for name in ("data.mean", "data.std"):
                fields[name] = fit_statistics(fields[name], channels)
            # What it predicts are patches of the old channels.
            if parts.pop("decoder", None) is not None:
                left_out = (*left_out, "the decoder")
        parts, fields["model.positions"] = without_fixed_positions(parts, wanted)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WeightsError(f"its parts do not fit its config: {error!r}") from None
    return found._replace(fields=fields, parts=parts, left_out=left_out)
