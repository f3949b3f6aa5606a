"""Scenarios from parquet and map files, what is wrong with one, and their cache."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sgmae_jax.data import DataError
from sgmae_jax.data.motion import Argoverse2, BadScene, read_scenario
from sgmae_jax.data.motion.cache import SceneCache, build_cache
from tests.data.motion.scenarios import STEPS, archive, table, write


def test_a_scenario(tmp_path):
    found = read_scenario(write(tmp_path / "s"))
    scene = found.scene
    assert found.scenario_id == "s" and found.track_ids == ("11", "12", "13", "AV")
    assert scene["agent_kind"].tolist() == [0, 1, 3, 0]
    assert scene["agent_scored"].tolist() == [True, True, False, False]
    np.testing.assert_allclose(scene["origin"], [1014.7, 500])
    np.testing.assert_allclose(scene["agent_future"][0, -1], [18, 0], atol=1e-4)
    assert not scene["agent_present"][2, 50:].any()  # it is static
    np.testing.assert_allclose(scene["lane_center"][1], [1010 - 1014.7, 0], atol=1e-4)
    assert len(scene["lane_center"]) == 3


def test_the_vehicles_view(tmp_path):
    scene = read_scenario(write(tmp_path / "s"), view="vehicle").scene
    np.testing.assert_allclose(scene["origin"], [1005.7, 500])
    np.testing.assert_allclose(scene["agent_center"][0], [9, 0], atol=1e-4)


def test_what_ends_at_the_present_can_be_read(tmp_path):
    rows = [row for row in table(num_timestamps=50) if row["timestep"] < 50]
    rows = [{**row, "end_timestamp": row["start_timestamp"] + 4.9e9} for row in rows]
    scene = read_scenario(write(tmp_path / "s", rows)).scene
    assert not scene["agent_present"][:, 50:].any()


def without(name):
    return [row for row in table() if row["track_id"] != name]


def lacking(column):
    return [{k: v for k, v in row.items() if k != column} for row in table()]


BAD = {
    "no focal track": ({"rows": without("11")}, "has no focal track '11' at step 49"),
    "another focal track": (
        {"rows": table(focal_track_id="99")},
        "has no focal track '99'",
    ),
    "no lanes": (
        {"lanes": {"lane_segments": {}}},
        "has no lane within 150 m",
    ),
    "lanes far away": (
        {"rows": table(position_x=1e5)},
        "has no lane within 150 m",
    ),
    "no map": ({"lanes": {"roads": 3}}, "cannot be read: KeyError"),
    "lanes without sides": (
        {"lanes": {"lane_segments": {"1": {"left_lane_boundary": []}}}},
        "lane segment without boundaries",
    ),
    "wrong time step": (
        {"rows": table(end_timestamp=3.0e17 + 21.8e9)},
        "lasts 21.80 s, 110 steps at 10 Hz last 10.9 s",
    ),
    "wrong number of steps": (
        {"rows": table(num_timestamps=91)},
        "has steps 0 to 109 of 91, must have 110",
    ),
    "no column": ({"rows": lacking("heading")}, "has no column heading"),
    "no numbers": (
        {"rows": table(heading=float("nan"))},
        "positions, headings or velocities that are no numbers",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_named_and_skipped_or_refused(name, tmp_path):
    given, message = BAD[name]
    write(tmp_path / "d" / "bad", **given)
    write(tmp_path / "d" / "good")
    with pytest.raises(BadScene, match=message):
        read_scenario(tmp_path / "d" / "bad")
    path, cache = str(tmp_path / "d"), str(tmp_path / "cache")
    source = Argoverse2(path, cache=cache)
    assert len(source) == 1 and source.names(0)[0] == "s"
    assert source.skipped[0].startswith("bad: ") and message in source.skipped[0]
    with pytest.raises(DataError, match=f"bad: .*{message}") as error:
        Argoverse2(path, cache=cache, bad="refuse")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 4, 0.5, 0.99])
def test_truncated_parquet(kept, tmp_path):
    folder = write(tmp_path / "s")
    file = folder / "scenario_s.parquet"
    content = file.read_bytes()
    size = kept if isinstance(kept, int) else int(kept * len(content))
    file.write_bytes(content[:size])
    with pytest.raises(BadScene, match=r"scenario_s\.parquet cannot be read") as error:
        read_scenario(folder)
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_a_missing_file(tmp_path):
    folder = write(tmp_path / "s")
    (folder / "log_map_archive_s.json").unlink()
    with pytest.raises(BadScene, match=r"0 files log_map_archive"):
        read_scenario(folder)


def test_splits_and_nothing_there(tmp_path):
    for split in ("train", "val"):
        write(tmp_path / split / split)
    found = Argoverse2(str(tmp_path), split="validation", cache=str(tmp_path / "c"))
    assert found.name == "argoverse2/validation" and len(found) == 1
    with pytest.raises(DataError, match="has no split 'test'"):
        Argoverse2(str(tmp_path), split="test", cache=str(tmp_path / "c"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no scenarios"):
        Argoverse2(str(tmp_path / "empty"), cache=str(tmp_path / "c"))


def test_the_cache_holds_what_was_read(tmp_path):
    for number in range(5):
        rows = table(position_y=500 + number / 10)
        write(tmp_path / "d" / f"s{number}", rows, archive(lanes=1 + number))
    path, cache = str(tmp_path / "d"), str(tmp_path / "cache")
    first = Argoverse2(path, cache=cache, threads=3)
    folders = list((tmp_path / "cache").iterdir())
    assert len(folders) == 1
    for file in (tmp_path / "d").rglob("*.json"):
        file.unlink()  # it is not read again
    second = Argoverse2(path, cache=cache)
    assert second.fingerprint() == first.fingerprint()
    for number in range(5):
        scene, again = first[number], second[number]
        assert len(scene["lane_center"]) == 1 + number
        for name, array in scene.items():
            np.testing.assert_array_equal(array, again[name])
            assert array.dtype == again[name].dtype
    with pytest.raises(IndexError):
        first[5]
    assert list((tmp_path / "cache").iterdir()) == folders


def test_the_cache_knows_its_sources(tmp_path):
    path = write(tmp_path / "d" / "s").parent
    prints = set()
    for view, bad in (("focal", "skip"), ("vehicle", "skip"), ("focal", "refuse")):
        found = Argoverse2(str(path), cache=str(tmp_path / "c"), view=view, bad=bad)
        prints.add(found.fingerprint())
    write(path / "t")
    prints.add(Argoverse2(str(path), cache=str(tmp_path / "c")).fingerprint())
    assert len(prints) == 4


def slow_read(folder):
    def read(key):
        time.sleep(0.01)
        found = read_scenario(folder / "s")
        return found.scene, key, found.track_ids

    return read


def test_a_killed_cache_is_made_anew(tmp_path):
    write(tmp_path / "s")
    code = (
        "import pathlib; from tests.data.motion.test_argoverse2 import slow_read;"
        "from sgmae_jax.data.motion.cache import build_cache;"
        f"p = pathlib.Path({str(tmp_path)!r});"
        "build_cache(p / 'c', [str(i) for i in range(2000)], slow_read(p), bad='skip',"
        "threads=1)"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    while child.poll() is None and not list(tmp_path.glob(".c.*/agent_kind")):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "c").exists() and list(tmp_path.glob(".c.*"))
    build_cache(tmp_path / "c", ["a", "b"], slow_read(tmp_path), bad="skip", threads=2)
    assert len(SceneCache(tmp_path / "c")) == 2


def test_two_processes_make_one_cache(tmp_path):
    write(tmp_path / "s")
    from concurrent.futures import ThreadPoolExecutor

    def build(_):
        keys = ["a", "b", "c"]
        build_cache(tmp_path / "c", keys, slow_read(tmp_path), bad="skip", threads=1)
        return [SceneCache(tmp_path / "c").names(i)[0] for i in range(3)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(build, range(4))) == [["a", "b", "c"]] * 4
    assert [file.name for file in tmp_path.iterdir() if file.name[0] == "."] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(tmp_path):
    path = write(tmp_path / "d" / "s").parent
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(DataError, match="argoverse2/train"):
        Argoverse2(str(path), cache=str(tmp_path / "closed"))


def test_a_cache_in_the_way_of_a_file(tmp_path):
    path = write(tmp_path / "d" / "s").parent
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="argoverse2/train"):
        Argoverse2(str(path), cache=str(tmp_path / "file" / "inside"))


def test_the_shared_scenario(shared, tmp_path):
    source = Argoverse2(str(shared / "data" / "argoverse2"), cache=str(tmp_path))
    scene = source[0]
    assert len(scene["agent_kind"]) == 20 and len(scene["lane_center"]) == 71
    assert int(scene["agent_present"].sum()) == 1381
    assert scene["agent_present"].shape == (20, STEPS)
    assert int((~scene["lane_present"]).sum()) == 15
    index = json.loads(next(tmp_path.glob("*/index.json")).read_text())
    assert index["names"][0][1][0] == "138951"
