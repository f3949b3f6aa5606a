"""What others call our parameters, and how they lay them out.

Three lists for two ways of naming: that of timm, which the authors' own files have too
(their decoder is not in timm), and that of Hugging Face's ViT and ViTMAE.

Reference: facebookresearch/mae models_mae.py; timm vision_transformer.py; transformers
modeling_vit.py and modeling_vit_mae.py (the names on the hub, which version 5 still
writes, though it calls its modules otherwise).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from flax import traverse_util

from sgmae_jax.weights.errors import WeightsError, some

Naming = Literal["timm", "huggingface"]
Part = str  # "encoder" or "decoder"
Arrays = dict[str, np.ndarray]

# Our leaves, with their shapes there. D width, E the encoder's, M of the MLP, P values
# of a patch, R and S its rows and columns, C channels, T tokens with the class token.
_BLOCK = {
    "norm1.scale": "D",
    "norm1.bias": "D",
    "attn.qkv.kernel": "3D D",
    "attn.qkv.bias": "3D",
    "attn.proj.kernel": "D D",
    "attn.proj.bias": "D",
    "norm2.scale": "D",
    "norm2.bias": "D",
    "mlp.fc1.kernel": "M D",
    "mlp.fc1.bias": "M",
    "mlp.fc2.kernel": "D M",
    "mlp.fc2.bias": "D",
}
_SHAPES = {
    "encoder": {
        "patch_embed.kernel": "D C R S",
        "patch_embed.bias": "D",
        "cls_token": "1 1 D",
        "pos_embed": "1 T D",
        **{f"blocks.{leaf}": shape for leaf, shape in _BLOCK.items()},
        "norm.scale": "D",
        "norm.bias": "D",
    },
    "decoder": {
        "embed.kernel": "D E",
        "embed.bias": "D",
        "mask_token": "1 1 D",
        "pos_embed": "1 T D",
        **{f"blocks.{leaf}": shape for leaf, shape in _BLOCK.items()},
        "norm.scale": "D",
        "norm.bias": "D",
        "pred.kernel": "P D",
        "pred.bias": "P",
    },
}
# (naming, part) -> our modules and tokens, by theirs. Several: queries, keys, values.
_OF_BLOCKS: dict[Naming, dict[str, tuple[str, ...]]] = {
    "timm": {
        name: (name,)
        for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    },
    "huggingface": {
        "norm1": ("layernorm_before",),
        "attn.qkv": tuple(
            f"attention.attention.{name}" for name in ("query", "key", "value")
        ),
        "attn.proj": ("attention.output.dense",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("intermediate.dense",),
        "mlp.fc2": ("output.dense",),
    },
}
_STACKS: dict[tuple[Naming, Part], str] = {
    ("timm", "encoder"): "blocks",
    ("timm", "decoder"): "decoder_blocks",
    ("huggingface", "encoder"): "vit.encoder.layer",
    ("huggingface", "decoder"): "decoder.decoder_layers",
}
_REST: dict[tuple[Naming, Part], dict[str, str]] = {
    ("timm", "encoder"): {
        "patch_embed": "patch_embed.proj",
        "cls_token": "cls_token",
        "pos_embed": "pos_embed",
        "norm": "norm",
    },
    ("timm", "decoder"): {
        "embed": "decoder_embed",
        "mask_token": "mask_token",
        "pos_embed": "decoder_pos_embed",
        "norm": "decoder_norm",
        "pred": "decoder_pred",
    },
    ("huggingface", "encoder"): {
        "patch_embed": "vit.embeddings.patch_embeddings.projection",
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "norm": "vit.layernorm",
    },
    ("huggingface", "decoder"): {
        "embed": "decoder.decoder_embed",
        "mask_token": "decoder.mask_token",
        "pos_embed": "decoder.decoder_pos_embed",
        "norm": "decoder.decoder_norm",
        "pred": "decoder.decoder_pred",
    },
}
_SUFFIXES = {"kernel": ".weight", "scale": ".weight", "bias": ".bias"}
# Hugging Face's other spellings: a bare ViTModel's, and version 5's modules.
_SPELLINGS = (
    (r"^(?=(embeddings|encoder|layers|layernorm|pooler)\.)", "vit."),
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)


class Leaf(NamedTuple):
    """A leaf of ours, or a layer of it, as others have it.

    Attributes:
        path: in our tree of the part.
        layer: of a stacked leaf, else None.
        names: theirs; three for queries, keys and values apart.
        shape: theirs, all names taken together along the first axis.
    """

    path: str
    layer: int | None
    names: tuple[str, ...]
    shape: tuple[int, ...]


class Sizes(NamedTuple):
    """What shapes are made of.

    Attributes:
        depth: blocks.
        letters: a number for each letter of the lists above.
    """

    depth: int
    letters: Mapping[str, int]


def leaves(naming: Naming, part: Part, sizes: Sizes) -> Iterator[Leaf]:
    """All leaves of a part in the order of our lists, layer by layer.

    Args:
        naming: theirs.
        part: encoder or decoder.
        sizes: of that part.
    """

    def shape(text: str) -> tuple[int, ...]:
        def side(word: str) -> int:
            if word == "1":
                return 1
            return sizes.letters[word[-1]] * (3 if word[0] == "3" else 1)

        return tuple(side(word) for word in text.split())

    for path, text in _SHAPES[part].items():
        in_blocks = path.startswith("blocks.")
        module, _, kind = path.removeprefix("blocks.").rpartition(".")
        suffix = _SUFFIXES.get(kind, "")
        owner = module if suffix else kind
        if not in_blocks:
            name = _REST[naming, part][owner] + suffix
            yield Leaf(path, None, (name,), shape(text))
            continue
        for layer in range(sizes.depth):
            stem = f"{_STACKS[naming, part]}.{layer}"
            names = tuple(
                f"{stem}.{name}{suffix}" for name in _OF_BLOCKS[naming][owner]
            )
            yield Leaf(path, layer, names, shape(text))


def one_spelling(arrays: Mapping[str, np.ndarray]) -> tuple[Naming, Arrays]:
    """Whose names these are, and the arrays under the names of our lists.

    Raises:
        WeightsError: nobody's that are known here, or two of one name.
    """
    if "patch_embed.kernel" in arrays:
        raise WeightsError("an export of ours: name its folder, which has the card")
    if any(name.startswith(("patch_embed.", "blocks.")) for name in arrays):
        return "timm", dict(arrays)
    found: Arrays = {}
    for name, array in arrays.items():
        for pattern, spelling in _SPELLINGS:
            name = re.sub(pattern, spelling, name)
        if name in found:
            raise WeightsError(f"{name} is there in two spellings")
        found[name] = array
    if not any(name.startswith("vit.embeddings.") for name in found):
        raise WeightsError(
            "neither the names of MAE or timm nor those of Hugging Face: has "
            f"{some(sorted(arrays))}"
        )
    return "huggingface", found


def depth_of(naming: Naming, part: Part, names: Mapping[str, Any]) -> int:
    """Blocks of a part: the highest number in a name, plus 1; 0: there is none."""
    pattern = re.compile(rf"{re.escape(_STACKS[naming, part])}\.(\d{{1,4}})\.")
    found = (pattern.match(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def to_ours(arrays: Mapping[str, np.ndarray], wanted: list[Leaf]) -> dict[str, Any]:
    """Our tree of a part.

    Args:
        arrays: theirs, of the shapes that `wanted` says.
        wanted: all leaves of the part.
    """
    flat: dict[str, Any] = {}
    for leaf in wanted:
        theirs = np.concatenate([arrays[name] for name in leaf.names])
        ours = _layout_of_ours(theirs)
        if leaf.layer is None:
            flat[leaf.path] = np.ascontiguousarray(ours)
        else:
            flat.setdefault(leaf.path, []).append(ours)
    stacked = {
        path: np.stack(value) if isinstance(value, list) else value
        for path, value in flat.items()
    }
    return traverse_util.unflatten_dict(stacked, sep=".")


def to_theirs(tree: Mapping[str, Any], wanted: list[Leaf]) -> Arrays:
    """The arrays of a part under their names; the inverse of `to_ours`.

    Args:
        tree: ours, positions included.
        wanted: all leaves of the part.
    """
    flat = traverse_util.flatten_dict(dict(tree), sep=".")
    arrays: Arrays = {}
    for leaf in wanted:
        ours = np.asarray(flat[leaf.path])
        theirs = _layout_of_theirs(
            ours if leaf.layer is None else ours[leaf.layer], leaf.shape
        )
        pieces = np.split(theirs, len(leaf.names))
        arrays |= dict(zip(leaf.names, map(np.ascontiguousarray, pieces), strict=True))
    return arrays


def _layout_of_ours(array: np.ndarray) -> np.ndarray:
    """Linear [O, I] -> [I, O]; patches [O, C, R, S] -> [(R, S, C), O]; tokens [D]."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0).reshape(-1, len(array))
    if array.ndim == 3:
        return array[0, 0] if array.shape[1] == 1 else array[0]
    return array.T


def _layout_of_theirs(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4:
        out, channels, rows, columns = shape
        return array.reshape(rows, columns, channels, out).transpose(3, 2, 0, 1)
    return array.T if len(shape) == 2 else array.reshape(shape)
