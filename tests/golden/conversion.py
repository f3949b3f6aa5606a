"""The authors' parameter names and layouts, and the way between them and our tree."""

from __future__ import annotations

import re

import numpy as np

# theirs (inside one block) -> ours; linear weights are transposed on the way.
BLOCK = {
    "norm1.weight": ("norm1", "scale"),
    "norm1.bias": ("norm1", "bias"),
    "attn.qkv.weight": ("attn", "qkv", "kernel"),
    "attn.qkv.bias": ("attn", "qkv", "bias"),
    "attn.proj.weight": ("attn", "proj", "kernel"),
    "attn.proj.bias": ("attn", "proj", "bias"),
    "norm2.weight": ("norm2", "scale"),
    "norm2.bias": ("norm2", "bias"),
    "mlp.fc1.weight": ("mlp", "fc1", "kernel"),
    "mlp.fc1.bias": ("mlp", "fc1", "bias"),
    "mlp.fc2.weight": ("mlp", "fc2", "kernel"),
    "mlp.fc2.bias": ("mlp", "fc2", "bias"),
}
REST = {
    "cls_token": ("encoder", "cls_token"),
    "pos_embed": ("encoder", "pos_embed"),
    "patch_embed.proj.weight": ("encoder", "patch_embed", "kernel"),
    "patch_embed.proj.bias": ("encoder", "patch_embed", "bias"),
    "norm.weight": ("encoder", "norm", "scale"),
    "norm.bias": ("encoder", "norm", "bias"),
    "mask_token": ("decoder", "mask_token"),
    "decoder_pos_embed": ("decoder", "pos_embed"),
    "decoder_embed.weight": ("decoder", "embed", "kernel"),
    "decoder_embed.bias": ("decoder", "embed", "bias"),
    "decoder_norm.weight": ("decoder", "norm", "scale"),
    "decoder_norm.bias": ("decoder", "norm", "bias"),
    "decoder_pred.weight": ("decoder", "pred", "kernel"),
    "decoder_pred.bias": ("decoder", "pred", "bias"),
    # dBOT predicts features.
    "decoder_predp.weight": ("decoder", "pred", "kernel"),
    "decoder_predp.bias": ("decoder", "pred", "bias"),
}
STACKS = {"blocks": "encoder", "decoder_blocks": "decoder"}


def _to_ours(array: np.ndarray) -> np.ndarray:
    """[O, I] -> [I, O]; [O, C, row, column] -> [(row, column, C), O]; [1, .., D]."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
    if array.ndim == 3:
        return array[0, 0] if array.shape[1] == 1 else array[0]
    return array.T if array.ndim == 2 else array


def _to_theirs(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_to_ours`, for a known shape of theirs."""
    if len(shape) == 4:
        out, channels, rows, columns = shape
        return array.reshape(rows, columns, channels, out).transpose(3, 2, 0, 1)
    return array.T if len(shape) == 2 else array.reshape(shape)


def _place(name: str) -> tuple[tuple[str, ...], int | None]:
    """Path in our tree, and the layer of a stacked leaf."""
    match = re.fullmatch(r"(blocks|decoder_blocks)\.(\d+)\.(.+)", name)
    if match is None:
        return REST[name], None
    stack, layer, inner = match.groups()
    return (STACKS[stack], "blocks", *BLOCK[inner]), int(layer)


def depth(theirs: dict[str, np.ndarray], stack: str) -> int:
    """Number of blocks of a stack."""
    return sum(
        re.match(rf"{stack}\.\d+\.norm1\.weight$", name) is not None for name in theirs
    )


def from_theirs(theirs: dict[str, np.ndarray]) -> dict:
    """Our parameter tree; layers stacked, position tables included where given."""
    layers: dict[tuple[str, ...], dict[int | None, np.ndarray]] = {}
    for name, array in theirs.items():
        path, layer = _place(name)
        layers.setdefault(path, {})[layer] = _to_ours(array)
    tree: dict = {}
    for path, by_layer in layers.items():
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        stacked = None not in by_layer
        node[path[-1]] = (
            np.stack([by_layer[i] for i in range(len(by_layer))])
            if stacked
            else by_layer[None]
        )
    return tree


def to_theirs(tree: dict, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our leaves under their names and in their layouts, for every name in `like`."""
    return {
        name: _to_theirs(leaf_of(tree, name), reference.shape)
        for name, reference in like.items()
    }


def leaf_of(tree: dict, name: str) -> np.ndarray:
    """What stands in our tree where their parameter of that name has its place."""
    path, layer = _place(name)
    leaf = tree
    for step in path:
        leaf = leaf[step]
    return np.asarray(leaf if layer is None else leaf[layer])
