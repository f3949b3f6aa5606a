"""The loop of restarts: which codes, how long between, signals, what counts as done."""

import re
import signal
import time

import pytest

from tests.launch.scripts import alive, bash, eventually, finish, numbers, run, start

SCRIPT = "preempt_loop.sh"
QUICK = ("--wait", "0.02", "--cap", "0.05")
# Ends with the n-th of the codes in $2 at the n-th run; $1 is the test's folder.
CODES = 'echo run >>"$1/runs"; codes=($2); exit ${codes[$(wc -l <"$1/runs") - 1]}'


def runs(folder):
    return len((folder / "runs").read_text().splitlines())


@pytest.mark.parametrize("code", [0, 2, 3, 4, 5])
def test_ends_where_no_restart_helps(code, tmp_path):
    ended, _, errors = run(SCRIPT, *QUICK, *bash(CODES, tmp_path, code))
    assert (ended, runs(tmp_path), errors) == (code, 1, "")


@pytest.mark.parametrize("code", [1, 6, 134, 137, 143])
def test_restarts_where_one_helps(code, tmp_path):
    ended, _, errors = run(SCRIPT, *QUICK, *bash(CODES, tmp_path, f"{code} {code} 0"))
    assert (ended, runs(tmp_path)) == (0, 3)
    assert errors.count(f"ended with {code}; restart") == 2


def test_a_killed_command_is_started_again(tmp_path):
    fall = f'[[ -e "$1/runs" ]] || {{ echo run >"$1/runs"; kill -KILL $$; }}; {CODES}'
    ended, _, errors = run(SCRIPT, *QUICK, *bash(fall, tmp_path, "1 0"))
    assert ended == 0 and "ended with 137" in errors


def test_a_restart_is_one_line_with_code_time_and_attempt(tmp_path):
    *_, errors = run(SCRIPT, *QUICK, *bash(CODES, tmp_path, "9 0"))
    pattern = r"preempt_loop: [\d-]+T[\d:]+: ended with 9; restart 1 of 100 in 0.\d+ s"
    assert re.fullmatch(pattern + "\n", errors)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_gives_up_after_so_many_restarts(most, tmp_path):
    ended, *_ = run(SCRIPT, "--max", most, *QUICK, *bash(CODES, tmp_path, "7 " * 9))
    assert (ended, runs(tmp_path)) == (7, most + 1)


def waits(errors):
    return [float(text) for text in re.findall(r"in (\d+\.\d+) s", errors)]


def test_the_wait_doubles_up_to_the_cap_with_jitter(tmp_path):
    limits = ("--max", 6, "--wait", "0.04", "--cap", "0.3")
    *_, errors = run(SCRIPT, *limits, *bash(CODES, tmp_path, "1 " * 9))
    full = [0.04, 0.08, 0.16, 0.3, 0.3, 0.3]
    drawn = waits(errors)
    assert all(b / 2 <= a <= b for a, b in zip(drawn, full, strict=True))
    assert len(set(drawn[3:])) > 1


def test_the_wait_is_really_waited(tmp_path):
    began = time.monotonic()
    run(SCRIPT, "--wait", "1", *bash(CODES, tmp_path, "1 0"))
    assert time.monotonic() - began >= 0.5


def test_a_long_run_starts_count_and_wait_anew(tmp_path):
    steady = ("--steady", "1", "--max", 1, "--wait", "0.02")
    # The second run lasts: without the new count the third would be the last.
    last = f'[[ $(wc -l <"$1/runs") == 1 ]] && sleep 2; {CODES}'
    ended, _, errors = run(SCRIPT, *steady, *bash(last, tmp_path, "1 1 0"))
    assert ended == 0 and errors.count("restart 1 of 1") == 2
    assert max(waits(errors)) <= 0.02


SAVE = """trap 'sleep 0.2; exit 0' TERM INT
echo $$ >"$1/pid"; echo run >>"$1/runs"
while :; do sleep 0.05; done"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_on_and_ends_the_loop(sent, tmp_path):
    child = start(SCRIPT, *QUICK, *bash(SAVE, tmp_path))
    assert eventually(lambda: numbers(tmp_path))
    child.send_signal(sent)
    assert finish(child)[0] == 0
    assert runs(tmp_path) == 1


def test_after_a_signal_a_crash_is_not_restarted(tmp_path):
    child = start(SCRIPT, *QUICK, *bash(SAVE.replace("exit 0", "exit 9"), tmp_path))
    assert eventually(lambda: numbers(tmp_path))
    child.terminate()
    assert finish(child)[0] == 9
    assert runs(tmp_path) == 1


def test_a_second_signal_kills(tmp_path):
    stubborn = (
        'trap "echo x >$1/told" TERM; echo $$ >"$1/pid"; while :; do sleep 0.05; done'
    )
    child = start(SCRIPT, *bash(stubborn, tmp_path))
    assert eventually(lambda: numbers(tmp_path))
    child.terminate()
    assert eventually((tmp_path / "told").exists)
    child.terminate()
    assert finish(child)[0] == 137
    assert not alive(numbers(tmp_path)[0])


def test_a_signal_during_the_wait_ends_at_once(tmp_path):
    child = start(SCRIPT, "--wait", 100, *bash(CODES, tmp_path, "8"))
    assert "restart 1" in child.stderr.readline()
    began = time.monotonic()
    child.terminate()
    assert finish(child)[0] == 8
    assert time.monotonic() - began < 10 and runs(tmp_path) == 1


def test_until_restarts_what_was_stopped_with_everything_saved(tmp_path):
    done = tmp_path / "report.html"
    last = 'echo run >>"$1/runs"; [[ $(wc -l <"$1/runs") == 3 ]] && >"$2"; exit 0'
    ended, *_ = run(SCRIPT, "--until", done, *QUICK, *bash(last, tmp_path, done))
    assert (ended, runs(tmp_path)) == (0, 3)


def test_until_tells_a_stopped_run_from_one_that_is_done(tmp_path):
    child = start(SCRIPT, "--until", tmp_path / "none", *bash(SAVE, tmp_path))
    assert eventually(lambda: numbers(tmp_path))
    child.terminate()
    assert finish(child)[0] == 75


def test_until_does_not_restart_what_cannot_be_mended(tmp_path):
    words = ("--until", tmp_path / "none", *QUICK)
    assert run(SCRIPT, *words, *bash(CODES, tmp_path, "2"))[0] == 2
    assert runs(tmp_path) == 1


@pytest.mark.parametrize(("code", "left"), [(3, "3\n"), (1, None), (0, None)])
def test_a_fatal_code_is_left_in_a_file(code, left, tmp_path):
    file = tmp_path / "fatal"
    words = ("--max", 0, "--fatal", file)
    assert run(SCRIPT, *words, *bash(CODES, tmp_path, code))[0] == code
    assert (file.read_text() if file.exists() else None) == left


def test_a_killed_loop_stops_the_command_gently(tmp_path):
    gentle = SAVE.replace("exit 0", 'echo >"$1/saved"; exit 0')
    child = start(SCRIPT, *bash(gentle, tmp_path))
    assert eventually(lambda: numbers(tmp_path))
    child.kill()
    child.communicate(timeout=20)
    assert eventually((tmp_path / "saved").exists)


def test_nothing_of_an_attempt_is_left_for_the_next(tmp_path):
    leave = 'sleep 100 & echo $! >"$1/pid"; exit 0'
    assert run(SCRIPT, *bash(leave, tmp_path))[0] == 0
    assert eventually(lambda: not any(map(alive, numbers(tmp_path))))


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--",
        "true",
        "--max -- true",
        "--max -1 -- true",
        "--max 1.5 -- true",
        "--wait soon -- true",
        "--cap 1s -- true",
        "--steady -- true",
        "--colour red -- true",
        "--until -- true",
    ],
)
def test_wrong_usage_is_one_line(words):
    code, output, errors = run(SCRIPT, *words.split())
    assert (code, output, errors.count("\n")) == (2, "", 1)
