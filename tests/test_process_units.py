"""What a process that is alone, or badly started, does; jobs are in test_processes."""

import types

import jax
import numpy as np
import pytest

from sgmae_jax import processes
from sgmae_jax.processes import Disagreement, ProcessError, Vote

NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def wished(**given):
    fields = {
        "cluster": "auto",
        "coordinator": None,
        "processes": None,
        "process": None,
        "heartbeat": 10,
        "timeout": 5,
    }
    return types.SimpleNamespace(**fields | given)


@pytest.fixture
def joined(monkeypatch):
    """The arguments that JAX is given; nothing is started."""
    calls = []
    monkeypatch.setattr(
        jax.distributed,
        "initialize",
        lambda *args, **named: calls.append((args, named)),
    )
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return calls


def test_the_config_comes_before_the_environment(joined, monkeypatch):
    for name, value in zip(NAMES, ("here:1", "4", "3"), strict=True):
        monkeypatch.setenv(name, value)
    processes.start(wished())
    processes.start(wished(coordinator="there:2", processes=2, process=0))
    assert [args for args, _ in joined] == [("here:1", 4, 3), ("there:2", 2, 0)]
    named = joined[0][1]
    assert named["heartbeat_timeout_seconds"] == 10
    assert named["cluster_detection_method"] == "deactivate"


def test_none_asks_for_nobody(joined, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    processes.start(wished(cluster="none"))
    assert not joined


def test_a_named_cluster_finds_its_own_numbers(joined):
    processes.start(wished(cluster="slurm"))
    ((args, named),) = joined
    assert args == (None, None, None) and named["cluster_detection_method"] == "slurm"


@pytest.mark.parametrize(
    ("given", "variables", "line"),
    [
        (
            {"coordinator": "a:1"},
            {},
            "together; they are a:1, None, None",
        ),
        ({}, {"JAX_NUM_PROCESSES": "2"}, "must be given together"),
        ({}, {"JAX_PROCESS_ID": "one"}, "JAX_PROCESS_ID = 'one': must be a whole"),
        ({"processes": 2, "process": 0}, {}, "must be given together"),
    ],
)
def test_half_an_address_is_refused(joined, monkeypatch, given, variables, line):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Disagreement, match=line):
        processes.start(wished(**given))
    assert not joined


def test_alone_where_nothing_speaks_of_others(joined, monkeypatch):
    def nothing(*args, **named):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", nothing)
    processes.start(wished())
    with pytest.raises(Disagreement, match="cluster = 'slurm': must be where this"):
        processes.start(wished(cluster="slurm"))


def test_a_program_that_has_touched_devices_is_alone():
    assert jax.devices()
    processes.start(wished())
    with pytest.raises(ProcessError, match=r"cannot meet: .*before any JAX calls"):
        processes.start(wished(coordinator="here:1", processes=1, process=0))


def test_alone_everything_is_agreed():
    assert processes.on_first(lambda: 7) == 7 and processes.everywhere(True)
    assert processes.of_first({"a": 1 / 3}) == {"a": 1 / 3}
    assert processes.summed(3) == 3
    processes.check_same("config", {"a": object()})
    found = processes.fetch({"a": jax.numpy.ones(3), "b": None})
    np.testing.assert_array_equal(found["a"], 1)


def test_the_outcome_of_a_vote_comes_later():
    vote = Vote(late=2)
    wishes = [False, True, False, False, False]
    assert [vote.cast(one) for one in wishes] == [False, False, False, True, False]


def test_the_digest_is_of_the_package():
    assert processes.code_digest() == processes.code_digest()
    assert len(processes.code_digest()) == 16
