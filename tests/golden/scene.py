"""Names of Forecast-MAE's authors, and our trees made of their arrays."""

from __future__ import annotations

import re

import numpy as np

from tests.golden.fixtures import Fixture

BLOCK = {
    "norm1.weight": "norm1.scale",
    "norm1.bias": "norm1.bias",
    "attn.in_proj_weight": "attn.qkv.kernel",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.kernel",
    "attn.out_proj.bias": "attn.proj.bias",
    "norm2.weight": "norm2.scale",
    "norm2.bias": "norm2.bias",
    "mlp.fc1.weight": "mlp.fc1.kernel",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.kernel",
    "mlp.fc2.bias": "mlp.fc2.bias",
}
# theirs -> ours, where groups of the pattern stand for themselves
RULES = (
    (r"actor_type_embed", "encoder.kinds"),
    (r"lane_type_embed", "encoder.lane_kind"),
    (r"(lane|future|history)_mask_token", r"decoder.\1_token"),
    (r"pos_embed\.0\.(\w+)", r"encoder.pose.fc1.\1"),
    (r"pos_embed\.2\.(\w+)", r"encoder.pose.fc2.\1"),
    (r"decoder_pos_embed\.0\.(\w+)", r"decoder.pose.fc1.\1"),
    (r"decoder_pos_embed\.2\.(\w+)", r"decoder.pose.fc2.\1"),
    (r"norm\.(\w+)", r"encoder.blocks.norm.\1"),
    (r"decoder_norm\.(\w+)", r"decoder.blocks.norm.\1"),
    (r"decoder_embed\.(\w+)", r"decoder.embed.\1"),
    (r"(future|history|lane)_pred\.(\w+)", r"decoder.\1_head.\2"),
    (r"lane_embed\.first_conv\.0\.(\w+)", r"encoder.lanes.first_in.\1"),
    (r"lane_embed\.first_conv\.1\.(\w+)", r"encoder.lanes.first_norm.\1"),
    (r"lane_embed\.first_conv\.3\.(\w+)", r"encoder.lanes.first_out.\1"),
    (r"lane_embed\.second_conv\.0\.(\w+)", r"encoder.lanes.second_in.\1"),
    (r"lane_embed\.second_conv\.1\.(\w+)", r"encoder.lanes.second_norm.\1"),
    (r"lane_embed\.second_conv\.3\.(\w+)", r"encoder.lanes.second_out.\1"),
    (r"E\.embed\.proj\.(\w+)", r"E.embed.\1"),
    (r"E\.levels\.(\d)\.blocks\.(\d)\.attn\.rpb", r"E.level\1_block\2.attn.relative"),
    (
        r"E\.levels\.(\d)\.blocks\.(\d)\.attn\.(qkv|proj)\.(\w+)",
        r"E.level\1_block\2.attn.\3.\4",
    ),
    (r"E\.levels\.(\d)\.blocks\.(\d)\.(norm\d)\.(\w+)", r"E.level\1_block\2.\3.\4"),
    (
        r"E\.levels\.(\d)\.blocks\.(\d)\.mlp\.(fc\d)\.(\w+)",
        r"E.level\1_block\2.mlp.\3.\4",
    ),
    (r"E\.levels\.0\.downsample\.reduction\.(\w+)", r"E.down1.\1"),
    (r"E\.levels\.0\.downsample\.norm\.(\w+)", r"E.down_norm1.\1"),
    (r"E\.levels\.1\.downsample\.reduction\.(\w+)", r"E.down2.\1"),
    (r"E\.levels\.1\.downsample\.norm\.(\w+)", r"E.down_norm2.\1"),
    (r"E\.norm(\d)\.(\w+)", r"E.norm\1.\2"),
    (r"E\.lateral_convs\.(\d)\.(\w+)", r"E.lateral\1.\2"),
    (r"E\.fpn_conv\.(\w+)", r"E.last.\1"),
    (r"decoder\.multimodal_proj\.(\w+)", r"head.modes.\1"),
    (r"decoder\.loc\.0\.(\w+)", r"head.place1.\1"),
    (r"decoder\.loc\.2\.(\w+)", r"head.place2.\1"),
    (r"decoder\.loc\.4\.(\w+)", r"head.place3.\1"),
    (r"decoder\.pi\.0\.(\w+)", r"head.score1.\1"),
    (r"decoder\.pi\.2\.(\w+)", r"head.score2.\1"),
    (r"decoder\.pi\.4\.(\w+)", r"head.score3.\1"),
    (r"dense_predictor\.0\.(\w+)", r"head.other1.\1"),
    (r"dense_predictor\.2\.(\w+)", r"head.other2.\1"),
)
EMBEDDERS = {"hist_embed": "encoder.history", "future_embed": "future"}
STATISTICS = {
    "lane_embed.first_conv.1.running_mean": ("first", "mean"),
    "lane_embed.first_conv.1.running_var": ("first", "var"),
    "lane_embed.second_conv.1.running_mean": ("second", "mean"),
    "lane_embed.second_conv.1.running_var": ("second", "var"),
}


def place_of(name: str) -> tuple[str, int | None]:
    """Our dotted name of one of theirs, and the layer of a stacked leaf."""
    stacked = re.fullmatch(r"(blocks|decoder_blocks)\.(\d+)\.(.+)", name)
    if stacked:
        part = "encoder" if stacked[1] == "blocks" else "decoder"
        return f"{part}.blocks.blocks.{BLOCK[stacked[3]]}", int(stacked[2])
    prefix = name.split(".")[0]
    inside = EMBEDDERS.get(prefix)
    wanted = name.replace(prefix, "E", 1) if inside else name
    for pattern, ours in RULES:
        if re.fullmatch(pattern, wanted):
            found = re.sub(pattern, ours, wanted)
            found = found.replace("E.", f"{inside}.", 1) if inside else found
            scale = "norm" in found.rsplit(".", 2)[-2]
            return found.replace(".weight", ".scale" if scale else ".kernel"), None
    raise KeyError(name)


def to_ours(array: np.ndarray, name: str) -> np.ndarray:
    """[O, I] -> [I, O]; convolutions [O, I, 3] -> [3, I, O], of one point [I, O]."""
    if name.endswith("_embed") or name.endswith("_token"):
        return array.reshape(-1) if array.ndim == 3 else array
    if array.ndim == 3:
        return array[..., 0].T if array.shape[2] == 1 else array.transpose(2, 1, 0)
    return array.T if array.ndim == 2 and not name.endswith("rpb") else array


def trees(theirs: dict[str, np.ndarray]) -> tuple[dict, dict]:
    """(parameters {"encoder", "future", "decoder", "head"}, running statistics)."""
    params: dict = {}
    statistics: dict = {"first": {}, "second": {}}
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name, array in theirs.items():
        if name in STATISTICS:
            norm, moment = STATISTICS[name]
            statistics[norm][moment] = array
            continue
        where, layer = place_of(name)
        if layer is not None:
            stacks.setdefault(where, {})[layer] = to_ours(array, name)
        else:
            _put(params, where, to_ours(array, name))
    for where, layers in stacks.items():
        _put(params, where, np.stack([layers[index] for index in sorted(layers)]))
    return params, statistics


def _put(tree: dict, where: str, array: np.ndarray) -> None:
    *folders, last = where.split(".")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    assert last not in tree, where
    tree[last] = array


def batch_of(fixture: Fixture) -> dict[str, np.ndarray]:
    """Our batch of their inputs."""
    given = fixture.under("in/")
    past = given["x_positions"] - given["x_centers"][:, :, None]
    seen = ~given["x_padding_mask"]
    return {
        "agent_steps": given["x"],
        "agent_speed_change": given["x_velocity_diff"],
        "agent_past": past * seen[..., :50, None],
        "agent_future": given["y"],
        "agent_present": seen,
        "agent_center": given["x_centers"],
        "agent_heading": given["x_angles"][..., 49],
        "agent_kind": given["x_attr"][..., 2].astype(np.int32),
        "lane_points": given["lane_positions"],
        "lane_present": ~given["lane_padding_mask"],
        "lane_center": given["lane_centers"],
        "lane_heading": given["lane_angles"],
    }
