"""Several processes on one machine: places, output, exit codes, no survivors."""

import signal
import time

import pytest

from tests.launch.scripts import alive, bash, eventually, finish, numbers, run, start

SCRIPT = "local_multiprocess.sh"
# Writes its id where the test finds it, then waits; $1 is the test's folder.
WAIT = 'echo $$ >"$1/pid$JAX_PROCESS_ID"; exec sleep 100'
# The same, but leaves with 0 and a word on a signal, as the program does.
SAVE = """trap 'echo saved; exit 0' TERM INT
echo $$ >"$1/pid$JAX_PROCESS_ID"
while :; do sleep 0.05; done"""


def test_each_process_knows_its_place():
    show = 'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS"'
    code, output, _ = run(SCRIPT, 3, *bash(show))
    assert code == 0
    rows = sorted(line.split() for line in output.splitlines())
    assert [row[:2] for row in rows] == [[f"[{i}]", f"{i}/3"] for i in range(3)]
    (address,) = {row[2] for row in rows}
    host, _, port = address.partition(":")
    assert host == "127.0.0.1" and 20000 <= int(port) < 32000


def test_simulated_devices_replace_those_of_the_environment():
    flags = "--xla_a=1 --xla_force_host_platform_device_count=8 --xla_b=2"
    show = 'echo "$JAX_PLATFORMS $XLA_FLAGS"'
    _, output, _ = run(SCRIPT, 1, "--devices", 4, *bash(show), XLA_FLAGS=flags)
    count = "--xla_force_host_platform_device_count=4"
    assert output == f"[0] cpu --xla_a=1 --xla_b=2 {count}\n"


def test_without_devices_the_environment_stays():
    show = 'echo "$JAX_PLATFORMS $XLA_FLAGS"'
    _, output, _ = run(
        SCRIPT, 1, *bash(show), JAX_PLATFORMS="tpu", XLA_FLAGS="--xla_a=1"
    )
    assert output == "[0] tpu --xla_a=1\n"


def test_output_keeps_its_stream_and_loses_nothing():
    talk = "seq 3000; seq 3000 >&2"
    code, output, errors = run(SCRIPT, 2, *bash(talk))
    assert code == 0
    for text in (output, errors):
        for i in range(2):
            own = [line for line in text.splitlines() if line.startswith(f"[{i}] ")]
            assert own == [f"[{i}] {k}" for k in range(1, 3001)]


def test_the_words_of_the_command_arrive_unchanged():
    _, output, _ = run(SCRIPT, 1, *bash('printf "<%s>" "$@"', "a b", "", "--", "*"))
    assert output == "[0] <a b><><--><*>"


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("0 0 0", 0),
        ("0 1 0", 1),
        ("1 1 2", 2),
        ("6 3 6", 3),
        ("134 6 4", 4),
        ("5 0 1", 5),
        ("0 6 0", 6),
    ],
)
def test_the_exit_code_says_whether_a_restart_helps(codes, expected):
    end = "codes=($1); exit ${codes[$JAX_PROCESS_ID]}"
    assert run(SCRIPT, 3, *bash(end, codes))[0] == expected


def test_of_two_crashes_the_first_counts():
    end = "((JAX_PROCESS_ID)) && exit 7; sleep 1; exit 9"
    assert run(SCRIPT, 2, *bash(end))[0] == 7


def test_a_late_fatal_code_outweighs_an_early_crash():
    end = "((JAX_PROCESS_ID)) && exit 134; sleep 1; exit 3"
    assert run(SCRIPT, 2, *bash(end))[0] == 3


def test_a_kill_is_told_as_a_shell_tells_it():
    assert run(SCRIPT, 1, *bash("kill -KILL $$"))[0] == 137


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_signals_go_on_to_all(sent, tmp_path):
    child = start(SCRIPT, 3, *bash(SAVE, tmp_path))
    assert eventually(lambda: len(numbers(tmp_path)) == 3)
    child.send_signal(sent)
    code, output, _ = finish(child)
    assert code == 0
    assert sorted(output.splitlines()) == [f"[{i}] saved" for i in range(3)]


def test_a_failure_leaves_the_others_time_to_end():
    end = "((JAX_PROCESS_ID)) && exit 1; sleep 1; echo ended"
    code, output, _ = run(SCRIPT, 2, "--grace", 30, *bash(end))
    assert (code, output) == (1, "[0] ended\n")


def test_after_the_grace_comes_a_signal(tmp_path):
    fail = "((JAX_PROCESS_ID)) || exit 1\n" + SAVE
    began = time.monotonic()
    code, output, _ = run(SCRIPT, 2, "--grace", 1, *bash(fail, tmp_path))
    assert (code, output) == (1, "[1] saved\n")
    assert time.monotonic() - began > 0.9


def test_who_ignores_the_signal_is_killed(tmp_path):
    stubborn = f"((JAX_PROCESS_ID)) || exit 6; trap '' TERM; {WAIT}"
    code, *_ = run(SCRIPT, 2, "--grace", 0, *bash(stubborn, tmp_path))
    assert code == 6
    (pid,) = numbers(tmp_path)
    assert not alive(pid)


def test_nothing_outlives_a_killed_script(tmp_path):
    child = start(SCRIPT, 2, *bash(WAIT, tmp_path))
    assert eventually(lambda: len(numbers(tmp_path)) == 2)
    pids = numbers(tmp_path)
    assert all(map(alive, pids))
    child.kill()
    child.communicate(timeout=20)
    assert eventually(lambda: not any(map(alive, pids)))


def test_what_a_process_leaves_behind_ends_with_it(tmp_path):
    leave = 'sleep 100 & echo $! >"$1/pid$JAX_PROCESS_ID"'
    assert run(SCRIPT, 2, *bash(leave, tmp_path))[0] == 0
    assert not any(map(alive, numbers(tmp_path)))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "0 -- true",
        "100 -- true",
        "x -- true",
        "2",
        "2 --",
        "2 true",
        "2 --devices -- true",
        "2 --devices 0 -- true",
        "2 --grace 1.5 -- true",
        "2 --colour 3 -- true",
    ],
)
def test_wrong_usage_is_one_line(words):
    code, output, errors = run(SCRIPT, *words.split())
    assert (code, output, errors.count("\n")) == (2, "", 1)
