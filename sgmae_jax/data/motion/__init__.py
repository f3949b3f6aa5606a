"""Scenes of traffic: agents and lanes, from files or made up."""

from sgmae_jax.data.motion.argoverse2 import Argoverse2, read_scenario
from sgmae_jax.data.motion.roads import RoadConfig, Roads
from sgmae_jax.data.motion.rows import SceneRows
from sgmae_jax.data.motion.scene import (
    FUTURE,
    HISTORY,
    KINDS,
    LANE_POINTS,
    PRESENT,
    STEPS,
    BadScene,
    Scene,
    Tracks,
    make_scene,
)
from sgmae_jax.data.motion.scene_files import SceneFiles

__all__ = [
    "FUTURE",
    "HISTORY",
    "KINDS",
    "LANE_POINTS",
    "PRESENT",
    "STEPS",
    "Argoverse2",
    "BadScene",
    "RoadConfig",
    "Roads",
    "Scene",
    "SceneFiles",
    "SceneRows",
    "Tracks",
    "make_scene",
    "read_scenario",
]
