"""Masks for masked autoencoders, usable alone: needs jax and numpy, nothing else."""

from sgmae_jax.masking.attention import (
    attention_mask,
    attention_scores,
    guided_by_attention,
    mask_valid,
    random_share,
)
from sgmae_jax.masking.bank import (
    Bank,
    empty_bank,
    invert,
    read_bank,
    resample,
    write_bank,
)
from sgmae_jax.masking.block import block_mask
from sgmae_jax.masking.boosted import boosted_mask, gumbel_softmax
from sgmae_jax.masking.check import check_mask_fn
from sgmae_jax.masking.exploitation import (
    Exploitation,
    exploitation_rates,
)
from sgmae_jax.masking.grid import grid_mask
from sgmae_jax.masking.guided import (
    Guidance,
    guide,
    guided_mask,
    hint_count,
    informed_mask,
)
from sgmae_jax.masking.keys import example_keys
from sgmae_jax.masking.ncut import Cut, normalised_cut, normalised_cut_dense
from sgmae_jax.masking.rectangle import rectangle_map, rectangle_maps
from sgmae_jax.masking.relations import attention_relations, cosine_relations
from sgmae_jax.masking.resolve import MaskError, load_mask_fn
from sgmae_jax.masking.scene import SceneMask, scene_mask
from sgmae_jax.masking.schedule import bucket_at, ratio_buckets
from sgmae_jax.masking.select import select
from sgmae_jax.masking.types import Context, Mask, num_keep
from sgmae_jax.masking.uniform import random_mask

__all__ = [
    "Bank",
    "Context",
    "Cut",
    "Exploitation",
    "Guidance",
    "Mask",
    "MaskError",
    "SceneMask",
    "attention_mask",
    "attention_relations",
    "attention_scores",
    "block_mask",
    "boosted_mask",
    "bucket_at",
    "check_mask_fn",
    "cosine_relations",
    "empty_bank",
    "example_keys",
    "exploitation_rates",
    "grid_mask",
    "guide",
    "guided_by_attention",
    "guided_mask",
    "gumbel_softmax",
    "hint_count",
    "informed_mask",
    "invert",
    "load_mask_fn",
    "mask_valid",
    "normalised_cut",
    "normalised_cut_dense",
    "num_keep",
    "random_mask",
    "random_share",
    "ratio_buckets",
    "read_bank",
    "rectangle_map",
    "rectangle_maps",
    "resample",
    "scene_mask",
    "select",
    "write_bank",
]
