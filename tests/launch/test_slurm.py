"""The batch script with stubs of Slurm: done, fatal, requeue, signals."""

import os
import pathlib
import signal
import subprocess

import pytest

from tests.launch.scripts import LAUNCH, eventually, finish

# One task. Like srun, it kills the task when it is sent a SIGTERM itself.
SRUN = """#!/bin/bash
printf '%s\\n' "$@" >"$STUBS/srun.words"
while [[ $1 == --* ]]; do shift; done
"$@" &
trap 'kill -KILL $!' TERM
echo $! >"$STUBS/task"
wait $!
"""
SCANCEL = """#!/bin/bash
echo "$@" >>"$STUBS/scancel.calls"
kill -TERM "$(<"$STUBS/task")"
"""
SCONTROL = """#!/bin/bash
echo "$@" >>"$STUBS/scontrol.calls"
[[ $1 == show ]] && echo "JobId=7 JobState=${STATE:-RUNNING} Reason=None"
exit 0
"""
# Stands for the interpreter; PROGRAM says what the run does.
PROGRAM = """#!/bin/bash
printf '%s\\n' "$@" >"$STUBS/program.words"
eval "$PROGRAM"
"""
STUBS = {"srun": SRUN, "scontrol": SCONTROL, "scancel": SCANCEL, "python": PROGRAM}


@pytest.fixture
def start(tmp_path):
    """Starts the batch script as Slurm would, in a folder that looks like ours."""
    for name, text in STUBS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "launch").symlink_to(LAUNCH)

    def launch(program="", **environment):
        base = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "STUBS": str(tmp_path),
            "PROGRAM": program,
            "CONFIG": "quickstart",
            "WORKDIR": str(tmp_path / "run"),
            "SLURM_JOB_ID": "7",
        }
        return subprocess.Popen(
            ["bash", LAUNCH / "slurm.sbatch"],
            cwd=tmp_path,
            env={
                name: str(value)
                for name, value in (base | environment).items()
                if value is not None
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return launch


def calls(tmp_path):
    file = tmp_path / "scontrol.calls"
    return file.read_text().splitlines() if file.exists() else []


DONE = 'mkdir -p "$WORKDIR"; touch "$WORKDIR/report.html"; exit 0'


def test_done_is_done(start, tmp_path):
    assert finish(start(DONE))[0] == 0
    assert calls(tmp_path) == []


def test_the_words_reach_srun_and_the_program(start, tmp_path):
    finish(start(DONE, EXTRA="--config.seed=3  --config.log.every=2"))
    words = (tmp_path / "program.words").read_text().split("\n")[:-1]
    assert words == [
        *("-m", "sgmae_jax.main", "--config", "quickstart"),
        *("--workdir", str(tmp_path / "run")),
        *("--config.seed=3", "--config.log.every=2"),
    ]
    step = (tmp_path / "srun.words").read_text().splitlines()
    assert "--kill-on-bad-exit=1" in step and "--cpus-per-task=4" not in step


def test_the_cpus_of_a_task_are_passed_on(start, tmp_path):
    finish(start(DONE, SLURM_CPUS_PER_TASK=4))
    assert "--cpus-per-task=4" in (tmp_path / "srun.words").read_text().splitlines()


@pytest.mark.parametrize(
    ("tasks", "gpus", "devices"),
    [(1, 4, "0,1,2,3"), (1, 1, "0"), (4, 4, ""), (1, None, ""), (None, 4, "")],
)
def test_a_task_alone_on_its_node_drives_all_gpus(tasks, gpus, devices, start):
    program = 'echo "devices=$JAX_LOCAL_DEVICE_IDS"; ' + DONE
    places = {"SLURM_NTASKS_PER_NODE": tasks, "SLURM_GPUS_ON_NODE": gpus}
    assert f"devices={devices}\n" in finish(start(program, **places))[1]


@pytest.mark.parametrize("code", [2, 3, 4, 5])
def test_what_a_restart_does_not_mend_ends_the_job(code, start, tmp_path):
    assert finish(start(f"exit {code}"))[0] == code
    assert calls(tmp_path) == []
    assert not list(tmp_path.glob("*.fatal"))


def test_the_code_of_one_task_outweighs_the_kill_of_the_others(start, tmp_path):
    srun = SRUN + "exit 143\n"
    (tmp_path / "srun").write_text(srun)
    assert finish(start("exit 2"))[0] == 2
    assert calls(tmp_path) == []


@pytest.mark.parametrize("code", [0, 1, 6, 137])
def test_an_early_end_goes_back_to_the_queue(code, start, tmp_path):
    ended, output, _ = finish(start(f"exit {code}"))
    assert ended == 0 and f"ended with {code}; requeue 1" in output
    assert calls(tmp_path) == ["show job 7", "requeue 7"]


def test_a_cancelled_job_stays_away(start, tmp_path):
    finish(start("exit 0", STATE="CANCELLED"))
    assert calls(tmp_path) == ["show job 7"]


@pytest.mark.parametrize(("code", "ended"), [(1, 1), (0, 75)])
def test_there_is_an_end_to_requeues(code, ended, start, tmp_path):
    limits = {"SLURM_RESTART_COUNT": 3, "MAX_REQUEUES": 3}
    assert finish(start(f"exit {code}", **limits))[0] == ended
    assert "requeue 7" not in calls(tmp_path)


@pytest.mark.parametrize(
    ("then", "requeued"),
    [("exit 0", True), (DONE, False)],
)
def test_a_signal_reaches_the_program_and_is_waited_for(
    then, requeued, start, tmp_path
):
    save = f"""trap 'sleep 0.3; echo saved; {then}' TERM
touch "$STUBS/up"; while :; do sleep 0.05; done"""
    child = start(save)
    assert eventually((tmp_path / "up").exists)
    child.send_signal(signal.SIGTERM)
    code, output, _ = finish(child)
    assert code == 0 and "saved" in output
    assert (tmp_path / "scancel.calls").read_text() == "--signal=TERM 7.0\n"
    assert ("requeue 7" in calls(tmp_path)) == requeued


@pytest.mark.parametrize("missing", ["CONFIG", "WORKDIR", "SLURM_JOB_ID"])
def test_what_is_missing_is_named(missing, start, tmp_path):
    code, _, errors = finish(start(DONE, **{missing: None}))
    assert code != 0 and missing in errors and not (tmp_path / "srun.words").exists()


def directives():
    lines = pathlib.Path(LAUNCH / "slurm.sbatch").read_text().splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if "#SBATCH" in line]


def test_the_directives_come_before_the_first_command():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and line[0] != "#")
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]
    asked = dict(line[2:].partition("=")[::2] for line in directives())
    assert asked["signal"] == "B:TERM@120"
    assert asked["open-mode"] == "append" and "requeue" in asked
    assert asked["ntasks-per-node"] == "1" and int(asked["nodes"]) > 1
