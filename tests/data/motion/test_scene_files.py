"""Whole scenes as arrays: windows, splits, and what is wrong with a file."""

import numpy as np
import pytest

from sgmae_jax.data import DataError
from sgmae_jax.data.motion import SceneFiles

STEPS = 125  # four windows


def scene(**changes):
    seconds = np.arange(STEPS) / 10
    position = np.zeros((3, STEPS, 2), np.float32)
    position[0, :, 0] = seconds * 3  # a vehicle on its way
    position[1, :, 0] = seconds * 3 + 8  # a pedestrian as fast
    position[2] = (4, 1)  # a vehicle that stands
    found = {
        "position": position,
        "velocity": np.gradient(position, 0.1, axis=1).astype(np.float32),
        "heading": np.zeros((3, STEPS), np.float32),
        "valid": np.ones((3, STEPS), bool),
        "object_type": np.array([0, 1, 0], np.int8),
        "sdc_index": np.int32(2),
        "lane_points": np.stack([np.linspace(-5, 60, 30), np.zeros(30)], 1),
        "lane_offsets": np.array([0, 10, 30], np.int32),
        "sample_rate_hz": np.float32(10),
    }
    found |= changes
    return {name: value for name, value in found.items() if value is not None}


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        np.savez(folder / f"{name}.npz", **content)
    return str(folder)


def test_every_window_of_a_vehicle_that_moves(tmp_path):
    source = SceneFiles(write(tmp_path / "a", one=scene()))
    assert len(source) == 4
    assert [source.names(i)[0] for i in range(4)] == [
        f"one-{start}-0" for start in (0, 5, 10, 15)
    ]
    first = source[0]
    assert first["agent_track"].tolist() == [0, 1, 2]
    assert source.names(0)[1] == ("0", "1", "2")
    np.testing.assert_allclose(first["agent_future"][0, -1], [18, 0], atol=1e-4)
    np.testing.assert_allclose(first["origin"], [14.7, 0], atol=1e-5)
    assert len(first["lane_center"]) == 2


def test_the_vehicles_view(tmp_path):
    source = SceneFiles(write(tmp_path / "a", one=scene()), view="vehicle")
    found = source[0]
    np.testing.assert_allclose(found["origin"], [4, 1])
    assert found["agent_scored"].tolist() == [True, False, False]


def test_splits_by_name_and_by_folder(tmp_path):
    flat = write(tmp_path / "flat", a=scene(), b=scene(), c=scene())
    held = {"test": ("b",), "validation": ("c",)}
    names = {
        split: SceneFiles(flat, split=split, held_out=held).names(0)[0][0]
        for split in ("train", "validation", "test")
    }
    assert names == {"train": "a", "validation": "c", "test": "b"}
    (tmp_path / "deep").mkdir()
    for split in ("train", "test"):
        write(tmp_path / "deep" / split, x=scene())
    assert len(SceneFiles(str(tmp_path / "deep"), split="test")) == 4
    with pytest.raises(DataError, match="has no scenes"):
        SceneFiles(str(tmp_path / "deep"), split="validation")
    with pytest.raises(DataError, match="test scenes z are not there"):
        SceneFiles(flat, held_out={"test": ("z",)})
    with pytest.raises(DataError, match="scenes have train, validation, test"):
        SceneFiles(flat, split="half")


nan = np.full((3, STEPS), np.nan, np.float32)
BAD = {
    "another rate": (scene(sample_rate_hz=np.float32(2)), "has 2 steps a second"),
    "no lanes": (
        scene(lane_points=np.zeros((0, 2)), lane_offsets=np.array([0])),
        "has no lanes",
    ),
    "too short": (
        {
            name: value[:, :100] if np.ndim(value) > 1 and len(value) == 3 else value
            for name, value in scene().items()
        },
        "has 100 steps, must have at least 110",
    ),
    "a key less": (scene(heading=None), "has no heading"),
    "a wrong shape": (scene(heading=np.zeros((2, STEPS))), r"heading has shape \(2, "),
    "no numbers": (scene(heading=nan), "heading holds what is no number"),
    "lanes far away": (
        scene(lane_points=np.full((30, 2), 1e4)),
        "step 0, vehicle 0: no lane within 150 m",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_named_and_skipped_or_refused(name, tmp_path):
    content, message = BAD[name]
    path = write(tmp_path / "a", bad=content, good=scene())
    source = SceneFiles(path)
    assert len(source) == 4
    assert any(message.replace("\\", "") in one for one in source.skipped)
    assert all(one.startswith("bad") for one in source.skipped)
    with pytest.raises(DataError, match=f"bad.*{message}") as error:
        SceneFiles(path, bad="refuse")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no zip", None])
def test_damaged_files(damage, tmp_path):
    path = write(tmp_path / "a", good=scene(), bad=scene())
    file = tmp_path / "a" / "bad.npz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    source = SceneFiles(path)
    assert len(source) == 4 and source.skipped[0].startswith("bad.npz: cannot be read")


def test_nothing_worth_a_forecast(tmp_path):
    with pytest.raises(DataError, match="has no window of 110 steps"):
        SceneFiles(write(tmp_path / "a", one=scene(object_type=np.ones(3, np.int8))))


def test_the_shared_scenes(shared):
    held = {"test": ("scene-0553", "scene-1094")}
    folder = str(shared / "data" / "nuscenes_mini")
    counts = [
        len(SceneFiles(folder, split=split, held_out=held))
        for split in ("train", "test")
    ]
    assert counts == [391, 136]
