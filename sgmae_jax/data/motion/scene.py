"""One scene as arrays: agents and lanes around a focal agent, in its frame.

Positions are in metres, angles in radians, time in steps of 0.1 s; the present is the
last step of the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

HISTORY, FUTURE = 50, 60
STEPS = HISTORY + FUTURE
PRESENT = HISTORY - 1
HERTZ = 10.0
LANE_POINTS = 20
RADIUS = 150.0
LANE_REACH = 5.0
KINDS = ("vehicle", "pedestrian", "cyclist", "other")


class Scene(TypedDict):
    """Agents A (the focal one first) and lanes M of a scene, in its frame.

    Attributes:
        agent_steps: p_t - p_(t-1); 0 at t = 0 and where one of the two is missing.
        agent_speed_change: |v_t| - |v_(t-1)|, m/s, likewise.
        agent_past: p_t - p_present, 0 where missing.
        agent_future: likewise, after the present; 0 where missing.
        agent_present: whether the agent was seen, history and future; the future of
            things that stand still by nature is missing.
        agent_center: position at the present.
        agent_heading: at the present, in [-pi, pi).
        agent_kind: index into `KINDS`.
        agent_scored: whether a forecast of it counts.
        agent_track: its index in the tracks that the scene was made of.
        lane_points: centre lines; 0 where missing.
        lane_present: which points are within the radius.
        lane_center: mean of the two middle points.
        lane_heading: direction from the one to the other.
        origin: of the frame, in the map's.
        rotation: heading of the frame in the map.
    """

    agent_steps: Float32[np.ndarray, "A 50 2"]
    agent_speed_change: Float32[np.ndarray, "A 50"]
    agent_past: Float32[np.ndarray, "A 50 2"]
    agent_future: Float32[np.ndarray, "A 60 2"]
    agent_present: Bool[np.ndarray, "A 110"]
    agent_center: Float32[np.ndarray, "A 2"]
    agent_heading: Float32[np.ndarray, " A"]
    agent_kind: Int32[np.ndarray, " A"]
    agent_scored: Bool[np.ndarray, " A"]
    agent_track: Int32[np.ndarray, " A"]
    lane_points: Float32[np.ndarray, "M 20 2"]
    lane_present: Bool[np.ndarray, "M 20"]
    lane_center: Float32[np.ndarray, "M 2"]
    lane_heading: Float32[np.ndarray, " M"]
    origin: Float[np.ndarray, "2"]
    rotation: Float[np.ndarray, ""]


class BadScene(ValueError):
    """A scene that cannot be used; the message says why."""


@dataclass(frozen=True)
class Tracks:
    """What moved, over 110 steps, in the frame of the map.

    Attributes:
        position: NaN where missing.
        heading: likewise.
        velocity: likewise, m/s.
        valid: where it was seen.
        kind: index into `KINDS`.
        still: stands still by nature, as background does.
        scored: whether a forecast of it counts.
        focal: index of the focal one.
        viewer: index of the one whose frame it is, and whose view; the focal one, or
            the recording vehicle.
    """

    position: Float[np.ndarray, "A 110 2"]
    heading: Float[np.ndarray, "A 110"]
    velocity: Float[np.ndarray, "A 110 2"]
    valid: Bool[np.ndarray, "A 110"]
    kind: Int[np.ndarray, " A"]
    still: Bool[np.ndarray, " A"]
    scored: Bool[np.ndarray, " A"]
    focal: int
    viewer: int


def wrapped(angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def resampled(
    line: Float[np.ndarray, "P d"], count: int
) -> Float[np.ndarray, "count d"]:
    """Points of a line, evenly spaced along its length, both ends included.

    Args:
        line: at least one point.
        count: of points, at least 2.

    Reference: `interp_arc` of argoverse/av2-api.
    """
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    places = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(places, along, axis) for axis in line.T], axis=1)


def make_scene(
    tracks: Tracks,
    lanes: Float[np.ndarray, "M 20 2"],
    *,
    radius: float = RADIUS,
    reach: float = LANE_REACH,
    keep_scored: bool = False,
) -> Scene:
    """Features of one scene.

    Agents that are seen at the present and no further than `radius` from the viewer
    stay, those further than `reach` from every lane point left out; the focal agent
    always stays and is the first.

    Args:
        tracks: in the frame of the map.
        lanes: centre lines near the viewer, likewise.
        radius: metres; lane points are cut to the square of that half side.
        reach: metres.
        keep_scored: scored agents stay wherever they are.

    Raises:
        BadScene: the viewer or the focal agent is not seen at the present, or no lane
            is near.

    Reference: jchengai/forecast-mae, av2_extractor.py.
    """
    valid = tracks.valid
    for index, who in ((tracks.focal, "focal agent"), (tracks.viewer, "viewer")):
        if not valid[index, PRESENT]:
            raise BadScene(f"the {who} is not seen at step {PRESENT}")
    origin = tracks.position[tracks.viewer, PRESENT].astype(np.float64)
    rotation = float(tracks.heading[tracks.viewer, PRESENT])
    turn = np.array(
        [
            [np.cos(rotation), -np.sin(rotation)],
            [np.sin(rotation), np.cos(rotation)],
        ]
    )
    position = np.where(valid[..., None], (tracks.position - origin) @ turn, 0.0)

    points = (lanes - origin) @ turn
    inside = (np.abs(points) <= radius).all(-1)
    near = inside.any(1)
    if not near.any():
        raise BadScene(f"no lane within {radius:g} m")
    points, inside = points[near], inside[near]
    middle = LANE_POINTS // 2
    ahead = points[:, middle] - points[:, middle - 1]

    away = np.linalg.norm(position[:, PRESENT], axis=1)
    stays = valid[:, PRESENT] & (away <= radius)
    seen = points[inside]
    for index in np.flatnonzero(stays).tolist():
        distance = np.linalg.norm(seen - position[index, PRESENT], axis=1)
        stays[index] = distance.min() < reach
    if keep_scored:
        stays |= tracks.scored & valid[:, PRESENT]
    stays[tracks.focal] = True
    others = np.flatnonzero(stays)
    chosen = np.concatenate([[tracks.focal], others[others != tracks.focal]])

    valid, position = valid[chosen], position[chosen]
    known = valid.copy()
    known[tracks.still[chosen], HISTORY:] = False
    center = position[:, PRESENT]
    both = valid[:, 1:HISTORY] & valid[:, : HISTORY - 1]
    steps = np.zeros((len(chosen), HISTORY, 2))
    steps[:, 1:] = np.diff(position[:, :HISTORY], axis=1) * both[..., None]
    velocity = np.where(valid[..., None], tracks.velocity[chosen], 0.0)
    speed = np.linalg.norm(velocity[:, :HISTORY], axis=-1)
    change = np.zeros((len(chosen), HISTORY))
    change[:, 1:] = np.diff(speed, axis=1) * both
    relative = (position - center[:, None]) * known[..., None]
    return {
        "agent_steps": steps.astype(np.float32),
        "agent_speed_change": change.astype(np.float32),
        "agent_past": relative[:, :HISTORY].astype(np.float32),
        "agent_future": relative[:, HISTORY:].astype(np.float32),
        "agent_present": known,
        "agent_center": center.astype(np.float32),
        "agent_heading": wrapped(tracks.heading[chosen, PRESENT] - rotation).astype(
            np.float32
        ),
        "agent_kind": tracks.kind[chosen].astype(np.int32),
        "agent_scored": tracks.scored[chosen],
        "agent_track": chosen.astype(np.int32),
        "lane_points": (points * inside[..., None]).astype(np.float32),
        "lane_present": inside,
        "lane_center": points[:, middle - 1 : middle + 1].mean(1).astype(np.float32),
        "lane_heading": np.arctan2(ahead[:, 1], ahead[:, 0]).astype(np.float32),
        "origin": origin,
        "rotation": np.array(rotation),
    }
