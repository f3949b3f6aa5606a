"""Scenes become batches of a few sizes."""

import numpy as np
import pytest

from sgmae_jax.data import Loader, Subset, plain_batches
from sgmae_jax.data.motion import Roads, SceneRows

ROADS = Roads()


def rows_of(*indices, rows):
    return rows.join([rows.plain(ROADS[index]) for index in indices])


def test_a_batch_has_the_smallest_sizes_that_hold_it():
    rows = SceneRows((4, 8, 16), (16, 64))
    for indices in ((0, 1, 2, 3), (4, 5), (6, 7, 8, 9, 10)):
        batch = rows_of(*indices, rows=rows)
        agents = [len(ROADS[index]["agent_kind"]) for index in indices]
        lanes = [len(ROADS[index]["lane_center"]) for index in indices]
        fits = next(size for size in (4, 8, 16) if size >= max(agents))
        assert batch["agent_steps"].shape == (len(indices), fits, 50, 2)
        fits = next(size for size in (16, 64) if size >= max(lanes))
        assert batch["lane_points"].shape == (len(indices), fits, 20, 2)
        for row, index in enumerate(indices):
            scene = ROADS[index]
            for name, array in scene.items():
                found = batch[name][row]
                if name.startswith(("agent", "lane")):
                    np.testing.assert_array_equal(found[: len(array)], array)
                    assert not found[len(array) :].any()
    assert batch["rotation"].dtype == np.float32


def test_several_processes_always_take_the_largest():
    rows = SceneRows((4, 16), (16, 64), largest=True)
    assert rows_of(0, rows=rows)["agent_kind"].shape == (1, 16)


def test_too_many_agents_leave_the_nearest_and_the_focal_one():
    full = next(i for i in range(50) if len(ROADS[i]["agent_kind"]) >= 9)
    scene = ROADS[full]
    row = SceneRows((4,), (64,)).plain(scene)
    away = np.linalg.norm(scene["agent_center"] - scene["agent_center"][0], axis=1)
    nearest = np.sort(np.argsort(away, kind="stable")[:4])
    np.testing.assert_array_equal(row["agent_track"], scene["agent_track"][nearest])
    assert row["agent_track"][0] == scene["agent_track"][0]
    assert len(row["agent_steps"]) == len(row["agent_present"]) == 4


def test_a_loader_and_an_evaluation_take_them():
    rows = SceneRows((8, 16), (32, 64))
    loader = Loader(ROADS, rows, batch_size=6, seed=0, threads=2)
    _, batch = next(loader.iterate())
    for row, index in enumerate(batch["id"]):
        kinds = ROADS[int(index)]["agent_kind"]
        np.testing.assert_array_equal(batch["agent_kind"][row, : len(kinds)], kinds)
    short = Roads(split="test")
    counts = [count for _, count in plain_batches(short, rows, 64)]
    assert counts == [64, 64, 64, 8]


@pytest.mark.parametrize("index", [-2001, 2000])
def test_an_index_out_of_range_is_no_endless_source(index):
    with pytest.raises(IndexError):
        Subset(ROADS, np.arange(5), name="five")[index]
