"""Whole runs on scenes: pre-training, forecasting, scores, submission, interruption."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as parquet
import pytest
from etils import epath

from sgmae_jax import domains, methods
from sgmae_jax.checkpointing.reading import check_step
from sgmae_jax.config import ConfigError, load_config
from sgmae_jax.data import Loader
from sgmae_jax.main import main
from sgmae_jax.methods.base import Run
from sgmae_jax.training.state import init_state
from sgmae_jax.training.step import make_step
from tests.data.motion import scenarios
from tests.data.motion import test_scene_files as files
from tests.tiny import environment, losses

pytestmark = pytest.mark.usefixtures("quick_compilation")
SMALL = {
    "epochs": None,
    "steps": 4,
    "data.batch_size": 8,
    "motion.agents": "(8,)",
    "motion.lanes": "(32,)",
    "model.depth": 1,
    "model.heads": 2,
    "model.decoder_width": 32,
    "model.decoder_depth": 1,
    "model.decoder_heads": 2,
    "optim.warmup_epochs": 0,
    "checkpoint.every": 2,
    "log.every": 1,
    "log.tensorboard": False,
    "eval.limit": 12,
    "eval.fit_limit": 30,
    "eval.batch_size": 8,
}


def words(config, workdir, **changes):
    fields = SMALL | {name.replace("__", "."): v for name, v in changes.items()}
    given = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config", config, "--workdir", str(workdir), *given]


def launch(*given):
    """The program in a process of its own, on one device, quickly compiled."""
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "sgmae_jax.main", *given],
        env=environment() | quick,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("scenes") / "forecast_mae"
    launch(*words("forecast_mae_roads", run))
    return run


@pytest.fixture(scope="module")
def tuned(trained):
    run = trained.parent / "forecast"
    launch(*words(f"forecast_roads:{trained}", run))
    return run


def test_a_run_of_pre_training(trained, capsys):
    assert np.isfinite(list(losses(trained).values())).all()
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").open()]
    assert {"history", "future", "lanes", "scenes_per_second"} <= rows[0].keys()
    page = (trained / "report.html").read_text()
    assert "scenes/s, median" in page and "reconstruction" in page
    assert not (trained / "scores.json").exists()


def test_forecasts_are_scored_beside_simple_ones(tuned):
    scores = json.loads((tuned / "scores.json").read_text())
    assert list(scores) == ["constant velocity", "linear", "trained forecasts"]
    kinds = {"minADE1", "minFDE1", "minADE6", "minFDE6", "MR6", "b-minFDE6"}
    for row in scores.values():
        assert set(row) == kinds and np.isfinite(list(row.values())).all()
        assert row["minADE6"] <= row["minADE1"] and 0 <= row["MR6"] <= 1
    own = scores["trained forecasts"]
    assert own["minFDE6"] < own["minFDE1"] < scores["constant velocity"]["minFDE1"] * 50
    page = (tuned / "report.html").read_text()
    assert "minFDE6" in page and "forecast" in page


def test_the_encoder_is_the_one_of_the_run(trained, tuned):
    config = load_config(
        f"forecast_roads:{trained}", [(k, str(v)) for k, v in SMALL.items()]
    )
    run = Run(1, 4, frozen=methods.frozen_networks(config), facts={})
    given = methods.load("forecast").build(config, run).given()
    from sgmae_jax.methods.frozen import read_run

    _, method, params = read_run(trained)
    theirs = dict(method.encoder(params))
    jax.tree.map(
        np.testing.assert_array_equal, given["statistics"], theirs.pop("statistics")
    )
    jax.tree.map(np.testing.assert_array_equal, given["model"]["encoder"], theirs)
    assert np.abs(given["statistics"]["first"]["mean"]).max() > 0


def test_a_checkpoint_is_evaluated_alone(trained, tuned, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(tuned, moved)
    arguments = ["--config", f"evaluate:{moved}", "--workdir", str(tmp_path / "e")]
    assert main(arguments) == 0
    found = json.loads((tmp_path / "e" / "evaluation.json").read_text())["scores"]
    wanted = json.loads((tuned / "scores.json").read_text())
    assert found["trained forecasts"] == pytest.approx(wanted["trained forecasts"])


def test_a_submission(tuned, tmp_path):
    arguments = ["--config", f"submit:{tuned}", "--workdir", str(tmp_path)]
    assert main([*arguments, "--config.eval.split=test[:10]"]) == 0
    table = parquet.read_table(tmp_path / "submission.parquet")
    assert table.column_names == [
        *("scenario_id", "track_id", "probability"),
        *("predicted_trajectory_x", "predicted_trajectory_y"),
    ]
    rows = table.to_pylist()
    assert len(rows) == 60 and all(len(r["predicted_trajectory_x"]) == 60 for r in rows)
    shares: dict[str, float] = {}
    for row in rows:
        shares[row["scenario_id"]] = (
            shares.get(row["scenario_id"], 0) + row["probability"]
        )
    assert len(shares) == 10 and all(s == pytest.approx(1) for s in shares.values())


def test_the_submission_is_in_the_frame_of_the_city():
    from sgmae_jax.evaluation.submission import rows_of

    origin, rotation = np.array([100.0, 50.0]), np.pi / 2
    places = np.zeros((2, 1, 60, 2))
    places[1, 0, :, 0] = 3.0  # ahead, and so to the north
    rows = rows_of("s", ["t"], places, np.zeros(2), origin=origin, rotation=rotation)
    assert [row["probability"] for row in rows] == [0.5, 0.5]
    assert rows[0]["predicted_trajectory_x"][0] == pytest.approx(100)
    assert rows[1]["predicted_trajectory_x"][0] == pytest.approx(100)
    assert rows[1]["predicted_trajectory_y"][0] == pytest.approx(53)


def test_a_run_without_forecasts_is_told_so(trained, tmp_path, capsys):
    assert main(["--config", f"submit:{trained}", "--workdir", str(tmp_path)]) == 2
    assert "forecast_mae does not" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [pytest.param("forecast_mae", marks=pytest.mark.slow), "forecast"]
)
def test_a_run_that_was_cut_off_goes_on_alike(name, trained, tuned, tmp_path):
    whole = {"forecast_mae": trained, "forecast": tuned}[name]
    torn = tmp_path / "torn"
    shutil.copytree(whole, torn)
    shutil.rmtree(torn / "checkpoints" / "4")
    config = (
        "forecast_mae_roads" if name == "forecast_mae" else f"forecast_roads:{trained}"
    )
    launch(*words(config, torn))
    assert losses(torn) == losses(whole)
    arrays = [
        check_step(epath.Path(run / "checkpoints" / "4"), 4).arrays
        for run in (torn, whole)
    ]
    assert arrays[0] == arrays[1]


@pytest.mark.slow
def test_worlds(trained, tmp_path):
    """The multi-agent variant, in the frame of the recording vehicle."""
    path = files.write(
        tmp_path / "data", a=files.scene(), b=files.scene(), c=files.scene()
    )
    changes = {
        "data__source": "scenes",
        "data__path": path,
        "data__batch_size": 4,
        "motion__view": "vehicle",
        "motion__test": "('b','c')",
        "method__worlds": True,
        "steps": 2,
        "eval__every": 1,
        "eval__choose_best": True,
        "eval__validation_split": "train",
    }
    launch(*words(f"forecast_roads:{trained}", tmp_path / "run", **changes))
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    own = scores["trained forecasts"]
    assert {"avgMinADE6", "avgMinFDE6", "actorMR6", "avgBrierMinFDE6"} <= set(own)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert all(row["eval/validation"] < 0 for row in rows if "eval/validation" in row)
    arguments = [
        "--config",
        f"submit:{tmp_path / 'run'}",
        "--workdir",
        str(tmp_path / "s"),
    ]
    assert main([*arguments, f"--config.data.path={path}"]) == 0
    rows = parquet.read_table(tmp_path / "s" / "submission.parquet").to_pylist()
    assert {row["track_id"] for row in rows} == {"0"} and len(rows) == 8 * 6


@pytest.mark.slow
def test_one_program_a_bucket_and_two_devices_agree():
    config = load_config("forecast_roads", [(k, str(v)) for k, v in SMALL.items()])
    config.unlock()
    config.motion.agents, config.method.drop_path = (8, 16), 0.1
    domain = domains.of_config(config)
    source = domain.open_source(config, "train[:64]", in_memory=False)
    run = Run(8, 8, facts={})
    method = methods.load("forecast").build(config, run)
    state = jax.jit(lambda key: init_state(method, key))(jax.random.key(0))
    loader = Loader(source, domain.make_rows(config, run, None), batch_size=8, seed=0)
    step = jax.jit(make_step(method), static_argnums=2)
    sizes = set()
    after = state
    for number in (0, 1, 2):
        batch = {**loader.batch_at(number)}
        if number == 1:  # a batch of scenes with few agents
            batch = {
                name: array[:, :8] if name.startswith("agent") else array
                for name, array in batch.items()
            }
        sizes.add(batch["agent_kind"].shape[1])
        after, metrics = step(after, {"train": batch}, ())
        assert np.isfinite(metrics["loss"])
    assert step._cache_size() == len(sizes) > 1
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = loader.batch_at(0)
    one, alone = step(state, {"train": batch}, ())
    two, both = step(state, {"train": jax.device_put(dict(batch), place)}, ())
    for name in ("loss", "best", "score", "others"):
        np.testing.assert_allclose(alone[name], both[name], rtol=1e-5)
    for ours, theirs in zip(
        jax.tree.leaves(one.params["statistics"]),
        jax.tree.leaves(two.params["statistics"]),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["forecast_mae_argoverse2", "forecast_nuscenes"])
def test_the_other_configs_take_a_step(config, tmp_path):
    changes = {"steps": 1, "data__batch_size": 2, "eval__split": "train"}
    if config.endswith("argoverse2"):
        for number in range(2):
            scenarios.write(tmp_path / "data" / f"s{number}")
        path = str(tmp_path / "data")
    else:
        path = files.write(tmp_path / "data", a=files.scene())
        changes["motion__test"] = "()"
    changes |= {"data__path": path, "motion__cache": str(tmp_path / "cache")}
    launch(*words(config, tmp_path / "run", model__width=64, **changes))
    assert np.isfinite(losses(tmp_path / "run")[1])


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ("forecast_mae_roads", {"model.width": 48}, "must be a multiple of 64"),
        ("forecast_mae_roads", {"model.heads": 5}, "must be a multiple of model.heads"),
        ("forecast_mae_roads", {"model.attention": "xla"}, "must be 'matmul'"),
        ("forecast_mae_roads", {"motion.agents": "(32,16)"}, "must ascend"),
        ("forecast_mae_roads", {"motion.view": "vehicle"}, "nobody records them"),
        ("forecast_mae_roads", {"motion.bad": "ignore"}, "skip, refuse"),
        ("forecast_mae_roads", {"method.agent_ratio": "1.5"}, "<= 1"),
        ("forecast_mae_roads", {"data.source": "scenes"}, "must name the folder"),
        ("forecast_mae_roads", {"data.source": "synthetic"}, "takes scenes"),
        ("forecast_roads", {"method.encoder": "nowhere"}, "a run directory with"),
        ("quickstart", {"data.source": "synthetic_roads"}, "mae takes images"),
    ],
)
def test_bad_values_are_one_line(config, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config(config, [(name, str(value)) for name, value in changes.items()])
    assert "\n" not in str(error.value)


def test_an_encoder_of_another_size_or_method(trained):
    typed = [(name, str(value)) for name, value in SMALL.items()]
    with pytest.raises(ConfigError, match=r"config.model.depth = 2: must be 1 as in"):
        load_config(f"forecast_roads:{trained}", [*typed, ("model.depth", "2")])
    text = (trained / "config.json").read_text()
    other = trained.parent / "other"
    shutil.copytree(trained, other)
    (other / "config.json").write_text(text.replace('"forecast_mae"', '"mae"'))
    with pytest.raises(
        ConfigError, match="must be a run of forecast_mae, is one of mae"
    ):
        load_config(f"forecast_roads:{other}", typed)
