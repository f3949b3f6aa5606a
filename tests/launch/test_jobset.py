"""The JobSets against a schema of the parts they use, and what must agree in them."""

import copy
import json
import pathlib

import jsonschema
import pytest
import yaml

from tests.launch.scripts import LAUNCH

SCHEMA = json.loads(
    (pathlib.Path(__file__).parent / "schemas" / "jobset.json").read_text()
)
FILES = ["gke_jobset.yaml", "gke_jobset_gpu.yaml"]
CHECK = jsonschema.Draft202012Validator(SCHEMA)


def load(name):
    return yaml.safe_load((LAUNCH / name).read_text())


@pytest.fixture(params=FILES)
def jobset(request):
    return load(request.param)


def job(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def pod(jobset):
    return job(jobset)["template"]["spec"]


def container(jobset):
    (only,) = pod(jobset)["containers"]
    return only


def variables(jobset):
    return {row["name"]: row.get("value") for row in container(jobset)["env"]}


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_jobset_fits_the_schema(jobset):
    assert not [error.message for error in CHECK.iter_errors(jobset)]


def test_no_jobset_is_left_out():
    assert sorted(path.name for path in LAUNCH.glob("*.y*ml")) == FILES


# Where, and what stands there instead; None takes the key away.
JOB = "spec/replicatedJobs/0/template/spec"
POD = f"{JOB}/template/spec"
TRAIN = f"{POD}/containers/0"
CODES = f"{JOB}/podFailurePolicy/rules/0"
MUTATIONS = [
    ("apiVersion", "jobset.x-k8s.io/v1"),
    ("kind", "Job"),
    ("metadata/name", "Upper_Case"),
    ("metadata/name", None),
    ("metadata/label", {}),
    ("metadata/annotations", {"a": 1}),
    ("spec/failurePolicy/maxRestarts", "100"),
    ("spec/failurePolicy/maxRestarts", -1),
    ("spec/failurePolicy/restartStrategy", "Restart"),
    ("spec/failurePolicy/rules/0/action", "FailJob"),
    ("spec/failurePolicy/rules/0/name", "not a name"),
    ("spec/failurePolicy/rules/0/name", None),
    ("spec/failurePolicy/rules/0/onJobFailureReasons", ["PodFailed"]),
    ("spec/failurepolicy", {}),
    ("spec/network", {"enableDNSHostname": True}),
    ("spec/replicatedJobs", []),
    ("spec/replicatedJobs/0/name", None),
    ("spec/replicatedJobs/0/replicas", 0),
    ("spec/replicatedJobs/0/parallelism", 4),
    (f"{JOB}/parallelism", "4"),
    (f"{JOB}/completions", None),
    (f"{JOB}/completionMode", "indexed"),
    (f"{JOB}/backoffLimit", -1),
    (f"{JOB}/podFailurePolicy", None),
    (f"{CODES}/action", "FailJobSet"),
    (f"{CODES}/onExitCodes/operator", "Is"),
    (f"{CODES}/onExitCodes/values", ["2"]),
    (f"{CODES}/onExitCodes/values", [2, 2]),
    (f"{CODES}/onExitCodes/values", [256]),
    (f"{CODES}/onExitCode", {}),
    (f"{POD}/restartPolicy", "OnFailure"),
    (f"{POD}/terminationGracePeriodSeconds", "120"),
    (f"{POD}/terminationGracePeriod", 120),
    (f"{POD}/nodeSelector", {"spot": True}),
    (f"{POD}/volumes/0/emptyDir", {}),
    (f"{POD}/volumes/0/persistentVolumeClaim", None),
    (f"{POD}/volumes/1/emptyDir/medium", "memory"),
    (f"{TRAIN}/image", None),
    (f"{TRAIN}/imag", "x"),
    (f"{TRAIN}/command", "launch/preempt_loop.sh"),
    (f"{TRAIN}/args/1", 0),
    (f"{TRAIN}/env/0/value", 3),
    (f"{TRAIN}/env/0/value", None),
    (f"{TRAIN}/env/0/name", "config"),
    (f"{TRAIN}/env/0/valueFrom", {"fieldRef": {"fieldPath": "metadata.name"}}),
    (f"{TRAIN}/resources/limits", {"google.com/tpus": 4}),
    (f"{TRAIN}/resources/limits", {"google.com/tpu": 0}),
    (f"{TRAIN}/resources/limits", {"memory": "many"}),
    (f"{TRAIN}/volumeMounts/0/mountPath", "runs"),
    (f"{TRAIN}/volumeMount", []),
]


def changed(jobset, path, value):
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    result = copy.deepcopy(jobset)
    place = result
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return result


@pytest.mark.parametrize(("path", "value"), MUTATIONS)
def test_a_mistake_is_rejected(path, value, jobset):
    assert not CHECK.is_valid(changed(jobset, path, value))


def test_exit_codes_that_no_restart_mends_end_it_all(jobset):
    (rule,) = job(jobset)["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": container(jobset)["name"],
        "operator": "In",
        "values": [2, 3, 4, 5],
    }
    policy = jobset["spec"]["failurePolicy"]
    (fatal,) = policy["rules"]
    assert fatal["action"] == "FailJobSet"
    assert fatal["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] > 0 and job(jobset)["backoffLimit"] == 0


def test_pods_have_time_to_save(jobset):
    assert pod(jobset)["terminationGracePeriodSeconds"] == 120


def test_every_pod_has_a_place(jobset):
    assert job(jobset)["completionMode"] == "Indexed"
    assert job(jobset)["parallelism"] == job(jobset)["completions"] > 1


def test_mounts_name_volumes_and_hold_the_run(jobset):
    volumes = {volume["name"] for volume in pod(jobset)["volumes"]}
    mounts = {
        row["name"]: row["mountPath"] for row in container(jobset)["volumeMounts"]
    }
    assert set(mounts) == volumes
    assert variables(jobset)["WORKDIR"].startswith(mounts["runs"] + "/")


def test_the_command_is_a_script_of_ours_and_its_variables_are_set(jobset):
    (command,) = container(jobset)["command"]
    assert (LAUNCH.parent / command).is_file()
    words = container(jobset)["args"]
    assert words[: words.index("--")] == [
        *("--max", "0", "--until", "$(WORKDIR)/report.html")
    ]
    used = {part.split(")")[0] for word in words for part in word.split("$(")[1:]}
    assert used <= set(variables(jobset))


def test_the_gpu_variant_tells_jax_its_place():
    jobset = load("gke_jobset_gpu.yaml")
    name = jobset["metadata"]["name"]
    (replicated,) = jobset["spec"]["replicatedJobs"]
    told = variables(jobset)
    host = told["JAX_COORDINATOR_ADDRESS"].rpartition(":")[0]
    assert host == f"{name}-{replicated['name']}-0-0.{name}"
    assert told["JAX_NUM_PROCESSES"] == str(job(jobset)["parallelism"])
    (place,) = [
        row for row in container(jobset)["env"] if row["name"] == "JAX_PROCESS_ID"
    ]
    assert "job-completion-index" in place["valueFrom"]["fieldRef"]["fieldPath"]


def test_the_tpu_variant_leaves_it_to_gke():
    jobset = load("gke_jobset.yaml")
    assert not [name for name in variables(jobset) if name.startswith("JAX_")]
    chips = container(jobset)["resources"]["limits"]["google.com/tpu"]
    rows, columns = pod(jobset)["nodeSelector"][
        "cloud.google.com/gke-tpu-topology"
    ].split("x")
    assert chips * job(jobset)["parallelism"] == int(rows) * int(columns)


def test_no_secrets_and_no_registry(jobset):
    assert container(jobset)["image"] == "IMAGE"
    text = json.dumps(jobset).lower()
    assert not [word for word in ("secret", "token", "password") if word in text]
