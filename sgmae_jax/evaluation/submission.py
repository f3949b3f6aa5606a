"""The submission file of the Argoverse 2 motion-forecasting benchmark.

A row a scenario, track and future: scenario_id, track_id, probability,
predicted_trajectory_x and _y, metres in the frame of the city.

Reference: argoverse/av2-api, motion_forecasting/eval/submission.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

COLUMNS = (
    *("scenario_id", "track_id", "probability"),
    *("predicted_trajectory_x", "predicted_trajectory_y"),
)


def rows_of(
    scenario: str,
    tracks: Sequence[str],
    places: Float[np.ndarray, "K A 60 2"],
    logits: Float[np.ndarray, " K"],
    *,
    origin: Float[np.ndarray, "2"],
    rotation: float,
) -> list[dict[str, Any]]:
    """The rows of one scenario.

    Args:
        scenario: its id.
        tracks: ids of the A agents.
        places: their futures, in the frame of the scene.
        logits: of the futures; their probabilities add up to 1.
        origin: of the scene's frame in the city's, metres.
        rotation: of the scene's frame in the city's, radians.
    """
    turn = np.array(
        [
            [np.cos(rotation), np.sin(rotation)],
            [-np.sin(rotation), np.cos(rotation)],
        ]
    )
    city = places.astype(np.float64) @ turn + origin
    shares = np.exp(logits.astype(np.float64) - logits.max())
    shares /= shares.sum()
    return [
        {
            "scenario_id": scenario,
            "track_id": track,
            "probability": float(share),
            "predicted_trajectory_x": city[mode, agent, :, 0].tolist(),
            "predicted_trajectory_y": city[mode, agent, :, 1].tolist(),
        }
        for agent, track in enumerate(tracks)
        for mode, share in enumerate(shares)
    ]


def write_submission(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes the file; a reader sees the old one or the new, never a half."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(list(rows)).select(COLUMNS)
    partial = path.with_name(f".{path.name}.partial")
    pyarrow.parquet.write_table(table, partial)
    os.replace(partial, path)
