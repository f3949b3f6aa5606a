"""Features of scenes: whatever the frame of the map, and what is left out."""

import numpy as np
import pytest

from sgmae_jax.data.motion import PRESENT, BadScene, Roads, Tracks, make_scene
from sgmae_jax.data.motion.scene import resampled, wrapped

STEPS = 110


def tracks(positions, **changes) -> Tracks:
    """Agents that stand where they are told, seen all along."""
    count = len(positions)
    still = np.repeat(np.asarray(positions, float)[:, None], STEPS, axis=1)
    seconds = np.arange(STEPS) / 10
    still[:, :, 0] += seconds  # one metre a second eastwards
    given = {
        "position": still,
        "heading": np.zeros((count, STEPS)),
        "velocity": np.tile([1.0, 0.0], (count, STEPS, 1)),
        "valid": np.ones((count, STEPS), bool),
        "kind": np.zeros(count, int),
        "still": np.zeros(count, bool),
        "scored": np.zeros(count, bool),
        "focal": 0,
        "viewer": 0,
    }
    return Tracks(**(given | changes))


def lane(y=0.0, length=20):
    line = np.stack([np.linspace(-10, 10, length), np.full(length, y)], 1)
    return resampled(line, 20)[None]


def test_the_frame_of_the_map_changes_nothing():
    rng = np.random.default_rng(0)
    given = tracks([(0, 0), (3, 2), (8, -1)])
    position = given.position + rng.normal(0, 0.2, given.position.shape)
    given = given.__class__(**{**vars(given), "position": position})
    whole = make_scene(given, lane())
    angle, shift = 2.1, np.array([700.0, -300.0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = Tracks(
        **{
            **vars(given),
            "position": position @ turn + shift,
            "velocity": given.velocity @ turn,
            "heading": given.heading + angle,
        }
    )
    moved = make_scene(turned, lane() @ turn + shift)
    for name in whole:
        if name in ("origin", "rotation"):
            continue
        np.testing.assert_allclose(moved[name], whole[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        moved["origin"], given.position[0, PRESENT] @ turn + shift
    )


def test_steps_speeds_and_offsets():
    valid = np.ones((2, STEPS), bool)
    valid[1, 10] = valid[1, 70] = False
    velocity = np.zeros((2, STEPS, 2))
    velocity[:, :, 0] = np.arange(STEPS)
    scene = make_scene(tracks([(0, 0), (1, 1)], valid=valid, velocity=velocity), lane())
    steps, change = scene["agent_steps"], scene["agent_speed_change"]
    np.testing.assert_allclose(steps[0, 1:], np.tile([0.1, 0], (49, 1)), atol=1e-6)
    np.testing.assert_allclose(change[0], [0, *[1] * 49])
    assert not steps[:, 0].any()
    # A step that is missing takes the two beside it with it.
    assert not steps[1, 10:12].any() and not change[1, 10:12].any()
    assert steps[1, 12, 0] > 0
    np.testing.assert_allclose(
        scene["agent_future"][0, :, 0], np.arange(1, 61) / 10, atol=1e-5
    )
    assert not scene["agent_future"][1, 20].any()
    assert not scene["agent_past"][1, 10].any()
    np.testing.assert_array_equal(scene["agent_present"], valid)


def test_what_is_far_from_lanes_or_from_the_viewer_is_left_out():
    places = [(0, 0), (0, 4.9), (0, 5.1), (0, 200), (2, 1)]
    scene = make_scene(tracks(places), lane())
    assert scene["agent_track"].tolist() == [0, 1, 4]
    scored = np.array([False, False, True, True, False])
    kept = make_scene(tracks(places, scored=scored), lane(), keep_scored=True)
    assert kept["agent_track"].tolist() == [0, 1, 2, 3, 4]


def test_the_focal_agent_is_first_and_stays_far_from_lanes():
    scene = make_scene(tracks([(0, 0), (1, 1), (2, 100)], focal=2), lane())
    assert scene["agent_track"].tolist() == [2, 0, 1]
    assert np.linalg.norm(scene["agent_center"][0] - scene["agent_center"][1]) > 99


def test_things_that_stand_still_have_no_future():
    still = np.array([False, True])
    scene = make_scene(tracks([(0, 0), (1, 1)], still=still), lane())
    assert scene["agent_present"][1, :50].all()
    assert not scene["agent_present"][1, 50:].any()
    assert not scene["agent_future"][1].any()


def test_lanes_are_cut_to_the_radius():
    line = np.stack([np.linspace(0, 300, 20), np.zeros(20)], 1)[None]
    scene = make_scene(tracks([(0, 0)]), np.concatenate([line, line + [1000.0, 0]]))
    assert len(scene["lane_center"]) == 1
    inside = scene["lane_present"][0]
    assert inside.sum() == 10 and not scene["lane_points"][0][~inside].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": np.arange(STEPS)[None] != PRESENT}, "focal agent is not seen"),
        ({"lanes": lane(1000)}, "no lane within 150 m"),
    ],
)
def test_scenes_that_cannot_be_used(changes, message):
    lanes = changes.pop("lanes", lane())
    with pytest.raises(BadScene, match=message):
        make_scene(tracks([(0, 0)], **changes), lanes)


def test_resampling_is_even_along_the_line():
    corner = np.array([[0.0, 0], [3, 0], [3, 0], [3, 1]])
    np.testing.assert_allclose(
        resampled(corner, 5), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]]
    )
    np.testing.assert_allclose(resampled(np.array([[2.0, 5]]), 3), [[2, 5]] * 3)


def test_angles_are_wrapped():
    angles = np.array([-4.0, -np.pi, 0, 3, np.pi, 7])
    found = wrapped(angles)
    assert ((found >= -np.pi) & (found < np.pi)).all()
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * angles))


def test_roads_follow_from_seed_split_and_index():
    one, other = Roads(seed=1), Roads(seed=1)
    for name, array in one[7].items():
        np.testing.assert_array_equal(array, other[7][name])
    others = (Roads(seed=2), Roads(seed=1, split="test"))
    for source in others:
        assert source.fingerprint() != one.fingerprint()
        assert not np.array_equal(source[7]["rotation"], one[7]["rotation"])
    assert len(one) == 2000 and len(others[1]) == 200


def test_on_roads_vehicles_move_along_lanes():
    source = Roads()
    gone = []
    for index in range(30):
        scene = source[index]
        assert scene["agent_present"][0].all() and scene["agent_kind"][0] == 0
        end = scene["agent_future"][0, -1]
        gone.append(np.linalg.norm(end))
        points = scene["lane_points"][scene["lane_present"]]
        place = end + scene["agent_center"][0]
        if np.abs(place).max() < 100:
            assert np.linalg.norm(points - place, axis=1).min() < 5
    assert min(gone) > 5 and np.std(gone) > 5
