"""The TPU script with a stub of gcloud: every command, and what each state leads to."""

import os
import shlex
import shutil
import subprocess

import pytest

from tests.launch.scripts import LAUNCH, eventually

# Answers with the next line of a file of the test; the last line stays.
GCLOUD = r"""#!/bin/bash
printf '%q ' "$@" >>"$STUBS/calls"; echo >>"$STUBS/calls"
next() {
  local line
  line=$(head -n 1 "$STUBS/$1")
  [[ $(wc -l <"$STUBS/$1") -gt 1 ]] && sed -i 1d "$STUBS/$1"
  case $line in
    MISSING) echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1 ;;
    BROKEN) echo "ERROR: the network is down" >&2; exit 1 ;;
    *) echo "WARNING: there is news" >&2; echo "$line" ;;
  esac
}
case "$*" in
  *tpu-vm\ describe*) next node ;;
  *queued-resources\ describe*) next queue ;;
  *run.code*preempt_loop*|*preempt_loop*run.code*) exit "$(next started)" ;;
  *cat\ run.code*) next codes ;;
esac
"""
RUN = ("--workdir", "gs://bucket/mae/one")


@pytest.fixture
def tpu(tmp_path):
    """Calls the script; (exit code, stdout, stderr, the calls of gcloud)."""
    (tmp_path / "launch").mkdir()
    shutil.copy(LAUNCH / "tpu_vm.sh", tmp_path / "launch")
    for name, text in {"gcloud": GCLOUD, "git": "#!/bin/bash\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def call(*words, environment=(), **answers):
        answers = {"queue": "ACTIVE", "started": "0", "codes": "0"} | answers
        for name, text in answers.items():
            (tmp_path / name).write_text(text.replace(" ", "\n") + "\n")
        (tmp_path / "calls").write_text("")
        done = subprocess.run(
            [tmp_path / "launch" / "tpu_vm.sh", *words],
            env=os.environ
            | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STUBS": str(tmp_path)}
            | {"TPU_POLL": "0.01"}
            | dict(environment),
            capture_output=True,
            text=True,
            timeout=60,
        )
        lines = (tmp_path / "calls").read_text().splitlines()
        return done.returncode, done.stdout, done.stderr, lines

    return call


def verb(call):
    """`describe`, `create`, …; for ssh what it is for."""
    words = shlex.split(call.removeprefix("gcloud "))
    kind, name = words[2:4]
    if name != "ssh":
        return f"queue-{name}" if kind == "queued-resources" else name
    command = words[-2].removeprefix("--command=")
    marks = {"preempt_loop": "run", "uv venv": "install", "tail": "logs"}
    return next((to for mark, to in marks.items() if mark in command), "code")


def verbs(calls):
    return [verb(call) for call in calls]


CREATE = ["queue-create", "queue-describe"]
INSTALL = ["scp", "install"]
AGAIN = ["queue-delete", *CREATE, *INSTALL, "run"]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("create", CREATE),
        ("install", INSTALL),
        ("run", ["run"]),
        ("resume", ["describe", *AGAIN]),
        (
            "all",
            ["describe", "queue-describe", *CREATE, *INSTALL, "run"]
            + ["describe", "code"],
        ),
        ("status", ["queue-describe", "describe", "code"]),
        ("logs", ["logs"]),
        ("delete", ["queue-delete"]),
    ],
)
def test_a_dry_run_prints_every_command_and_runs_none(action, expected, tpu):
    code, output, errors, calls = tpu(action, "--dry-run", *RUN)
    assert (code, errors, calls) == (0, "", [])
    lines = output.splitlines()
    local = [line for line in lines if not line.startswith("gcloud ")]
    assert [line.split()[0] for line in local] == ["mkdir", "git"] * ("scp" in expected)
    assert verbs(line for line in lines if line.startswith("gcloud ")) == expected


@pytest.mark.parametrize("action", ["create", "install", "run", "logs", "delete"])
def test_what_a_dry_run_prints_is_what_is_run(action, tpu):
    words = (action, *RUN, "--extra", "--config.note='a  b'", "--name", "x-1")
    _, printed, *_ = tpu(*words, "--dry-run")
    code, _, errors, calls = tpu(*words)
    assert code == 0
    said = [shlex.split(line) for line in printed.splitlines()]
    assert [["gcloud", *shlex.split(call)] for call in calls] == [
        words for words in said if words[0] == "gcloud"
    ]
    told = [line[2:] for line in errors.splitlines() if line.startswith("+ ")]
    assert [line for line in printed.splitlines() if "describe" not in line] == [
        line for line in told if "describe" not in line
    ]


def test_the_settings_reach_the_commands(tpu):
    flags = ("--zone", "z-1", "--type", "v6e-8", "--version", "new", "--spot", "0")
    _, output, *_ = tpu("create", "--dry-run", *flags, environment={"TPU_NAME": "n"})
    words = shlex.split(output.splitlines()[0])
    assert words[:6] == "gcloud compute tpus queued-resources create n".split()
    assert set(words[6:]) == {
        *("--node-id=n", "--zone=z-1"),
        *("--accelerator-type=v6e-8", "--runtime-version=new"),
    }
    assert "--spot" in tpu("create", "--dry-run")[1]


def remote(output):
    (line,) = [line for line in output.splitlines() if " ssh " in line]
    words = shlex.split(line)
    assert "--worker=all" in words
    return words[-2].removeprefix("--command=")


@pytest.mark.parametrize(
    ("words", "mount"),
    [
        (RUN, "gcsfuse --implicit-dirs bucket /mnt/runs"),
        (
            ("--nfs", "10.0.0.2:/all", "--workdir", "/mnt/runs/mae/one"),
            "mount -t nfs 10.0.0.2:/all /mnt/runs",
        ),
    ],
)
def test_the_run_directory_is_mounted_and_the_output_kept(words, mount, tpu):
    extra = ("--config", "quickstart", "--extra", "--config.seed=1 --config.steps=2")
    command = remote(tpu("run", "--dry-run", *words, *extra)[1])
    assert mount in command and ">>~/run.log 2>&1 </dev/null &" in command
    assert "--config quickstart --workdir /mnt/runs/mae/one" in command
    assert "--config.seed=1 --config.steps=2;" in command
    assert subprocess.run(["bash", "-n", "-c", command]).returncode == 0


@pytest.mark.parametrize("action", ["install", "run"])
def test_what_the_workers_run_is_sound_bash(action, tpu):
    text = "#!/bin/bash\n" + remote(tpu(action, "--dry-run", *RUN)[1])
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_the_command_works_on_a_worker(tpu, tmp_path):
    home = tmp_path / "home"
    (home / "venv" / "bin").mkdir(parents=True)
    (home / "sgmae_jax").mkdir()
    (home / "sgmae_jax" / "launch").symlink_to(LAUNCH)
    program = home / "venv" / "bin" / "python"
    wait = "for _ in {1..400}; do [[ -e ~/go ]] && break; sleep 0.05; done"
    program.write_text(f"#!/bin/bash\necho working\n{wait}\nexit 4\n")
    program.chmod(0o755)
    # The bucket is there already.
    for name in ("sudo", "mountpoint"):
        (tmp_path / name).write_text("#!/bin/bash\n")
        (tmp_path / name).chmod(0o755)
    command = remote(tpu("run", "--dry-run", *RUN)[1])
    ask = shlex.split(tpu("status", "--dry-run")[1].splitlines()[-1])[-2]

    def worker(text):
        path = {"HOME": str(home), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", text.removeprefix("--command=")],
            cwd=home,
            env=os.environ | path,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout, done.stderr

    assert worker(ask) == (0, "75\n", "")
    assert worker(command) == (0, "", "")
    assert eventually(lambda: worker(ask) == (0, "", ""))
    assert worker(command) == (0, "at work already\n", "")
    (home / "go").touch()
    assert eventually(lambda: worker(ask) == (0, "4\n", ""))
    assert (home / "run.log").read_text() == "working\n"


@pytest.mark.parametrize(
    ("node", "queue", "expected"),
    [
        ("READY", "ACTIVE", ["describe", "run"]),
        ("PREEMPTED", "ACTIVE", ["describe", *AGAIN]),
        ("TERMINATED", "ACTIVE", ["describe", *AGAIN]),
        (
            "MISSING",
            "MISSING ACTIVE",
            ["describe", "queue-describe", *CREATE, *INSTALL, "run"],
        ),
        ("MISSING", "SUSPENDED ACTIVE", ["describe", "queue-describe", *AGAIN]),
        ("MISSING", "FAILED ACTIVE", ["describe", "queue-describe", *AGAIN]),
        (
            "MISSING",
            "WAITING_FOR_RESOURCES PROVISIONING ACTIVE",
            ["describe", *["queue-describe"] * 3, *INSTALL, "run"],
        ),
        ("REPAIRING READY", "ACTIVE", ["describe", "describe", "run"]),
    ],
)
def test_resume_takes_every_state_to_a_run(node, queue, expected, tpu):
    code, _, _, calls = tpu("resume", *RUN, node=node, queue=queue)
    assert (code, verbs(calls)) == (0, expected)


@pytest.mark.parametrize(
    ("node", "queue"),
    [("BROKEN", "ACTIVE"), ("STOPPED", "ACTIVE"), ("MISSING", "BROKEN")],
)
def test_resume_deletes_nothing_that_it_does_not_know(node, queue, tpu):
    code, _, errors, calls = tpu("resume", *RUN, node=node, queue=queue)
    assert code != 0 and errors
    assert set(verbs(calls)) <= {"describe", "queue-describe"}


def test_a_slice_without_the_project_gets_it(tpu):
    code, _, _, calls = tpu("resume", *RUN, node="READY", started="1 0")
    assert (code, verbs(calls)) == (0, ["describe", "run", *INSTALL, "run"])


@pytest.mark.parametrize("queue", ["FAILED", "SUSPENDED", "PROVISIONING FAILED"])
def test_create_says_when_nothing_will_come(queue, tpu):
    code, _, errors, _ = tpu("create", queue=queue)
    assert code != 0 and queue.split()[-1] in errors


def test_all_resumes_after_a_preemption_until_the_run_ends(tpu):
    # At work, gone (twice looked at), there again, and done.
    code, _, _, calls = tpu(
        "all",
        *RUN,
        node="READY READY PREEMPTED PREEMPTED READY",
        codes="at_work 0",
    )
    assert code == 0
    assert verbs(calls) == [
        *("describe", "run"),
        *("describe", "code"),
        *("describe", "describe", *AGAIN),
        *("describe", "code"),
    ]


def test_all_ends_with_the_code_of_the_run(tpu):
    for code in (2, 3, 4, 5, 7):
        assert tpu("all", *RUN, node="READY", codes=str(code))[0] == code


def test_all_starts_again_what_was_stopped(tpu):
    code, _, _, calls = tpu("all", *RUN, node="READY", codes="75 0")
    assert code == 0 and verbs(calls).count("run") == 2


def test_all_outlasts_a_failing_network(tpu):
    code, _, _, calls = tpu("all", *RUN, node="READY BROKEN BROKEN READY")
    assert code == 0 and "queue-delete" not in verbs(calls)


def test_status_tells_what_there_is(tpu):
    code, output, *_ = tpu("status", node="READY", codes="at_work")
    assert code == 0
    assert output == "queued resource: ACTIVE\nslice: READY\nrun: at work\n"
    code, output, *_ = tpu("status", node="MISSING", queue="MISSING")
    assert output == "queued resource: MISSING\nslice: MISSING\n"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "start",
        "run",
        "all",
        "run --workdir runs/mae",
        "run --workdir gs://bucket",
        "run --workdir gs://bucket/",
        "run --workdir /mnt/runs/a",
        "run --nfs server --workdir /mnt/runs/a",
        "run --nfs server:/a --workdir /home/a",
        "create --colour red",
        "create --zone",
        "create --spot maybe",
        "create --name Bad_Name",
        "create --poll soon",
        "create again",
    ],
)
def test_wrong_usage_is_one_line(words, tpu):
    code, output, errors, calls = tpu(*words.split())
    assert (code, output, errors.count("\n"), calls) == (2, "", 1, [])
