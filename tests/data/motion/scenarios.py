"""Argoverse 2 scenarios made up for tests."""

from __future__ import annotations

import json
import pathlib

import numpy as np

STEPS = 110
START = 3.0e17  # nanoseconds


def table(**changes):
    """Columns of a scenario: a focal vehicle, a pedestrian, the recording vehicle."""
    rows = []
    agents = [
        ("11", "vehicle", 3, (0.0, 0.0), 3.0),
        ("12", "pedestrian", 2, (4.0, 1.0), 1.0),
        ("13", "static", 1, (6.0, 1.0), 0.0),
        ("AV", "vehicle", 1, (-9.0, 0.0), 3.0),
    ]
    for name, kind, category, place, speed in agents:
        for step in range(STEPS):
            rows.append(
                {
                    "observed": step < 50,
                    "track_id": name,
                    "object_type": kind,
                    "object_category": category,
                    "timestep": step,
                    "position_x": 1000 + place[0] + speed * step / 10,
                    "position_y": 500 + place[1],
                    "heading": 0.0,
                    "velocity_x": speed,
                    "velocity_y": 0.0,
                    "scenario_id": "s",
                    "start_timestamp": START,
                    "end_timestamp": START + 10.9e9,
                    "num_timestamps": STEPS,
                    "focal_track_id": "11",
                    "city": "nowhere",
                }
            )
    rows = [{**row, **changes} for row in rows]
    return rows


def archive(lanes=3):
    """A map of straight segments along the way of the vehicles."""
    segments = {}
    for index in range(lanes):
        xs = np.linspace(980 + 20 * index, 1000 + 20 * index, 5)
        segments[str(index)] = {
            f"{side}_lane_boundary": [
                {"x": float(x), "y": 500 + width, "z": 20.0} for x in xs
            ]
            for side, width in (("left", 2.0), ("right", -2.0))
        }
    return {"lane_segments": segments, "drivable_areas": {}}


def write(folder: pathlib.Path, rows=None, lanes=None) -> pathlib.Path:
    """Writes a scenario's two files; returns its folder."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    made = pyarrow.Table.from_pylist(table() if rows is None else rows)
    pyarrow.parquet.write_table(made, folder / f"scenario_{folder.name}.parquet")
    text = json.dumps(archive() if lanes is None else lanes)
    (folder / f"log_map_archive_{folder.name}.json").write_text(text)
    return folder
