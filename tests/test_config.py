"""Bad configs are one line each, good ones resolve, every shipped one is valid."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from sgmae_jax import config as config_lib
from sgmae_jax.config import ConfigError, default_config, flatten, load_config, validate
from sgmae_jax.main import main

REPOSITORY = pathlib.Path(__file__).parents[1]
SHIPPED = sorted(
    file for file in (REPOSITORY / "configs").glob("*.py") if file.stem != "__init__"
)

# field, value as typed, words the message must contain
BAD = [
    ("task", "pretrian", "pretrain"),
    ("task", "3", "one of"),
    ("seed", "-1", "0 to"),
    ("seed", "1.5", "integer"),
    ("seed", "None", "integer"),
    ("epochs", "0", ">= 1"),
    ("epochs", "-3", ">= 1"),
    ("epochs", "2.5", "integer"),
    ("epochs", "ten", "integer"),
    ("epochs", "None", "exactly one"),
    ("steps", "10", "exactly one"),
    ("steps", "0", ">= 1"),
    ("data.source", "imagenet", "synthetic, folder"),
    ("data.source", "tfds:", "tfds:<name>"),
    ("data.source", "None", "must be named"),
    ("data.source", "folder", "must name the folder"),
    ("data.source", "pairs", "must name the folder"),
    ("data.path", "3", "string"),
    ("data.cache", "3", "string"),
    ("data.cache", "True", "string"),
    ("data.split", "train[", "a split such as"),
    ("data.split", "", "a split such as"),
    ("data.image_size", "0", ">= 1"),
    ("data.image_size", "30", "multiple of model.patch_size"),
    ("data.image_size", "(32, 30)", "width"),
    ("data.image_size", "(32, 32, 32)", "pair"),
    ("data.image_size", "32.0", "integer"),
    ("data.channels", "2", "one of 1, 3, 4"),
    ("data.channels", "1", "one a channel"),
    ("data.batch_size", "0", ">= 1"),
    ("data.batch_size", "-64", ">= 1"),
    ("data.batch_size", "1e3", "integer"),
    ("data.batch_size", "True", "integer"),
    ("data.batch_size", "'64'", "integer"),
    ("data.batch_sise", "64", "did you mean data.batch_size"),
    ("data.in_memory", "1", "True or False"),
    ("data.in_memory", "yes", "True or False"),
    ("data.threads", "0", ">= 1"),
    ("data.prefetch", "0", ">= 1"),
    ("data.timeout", "0", "> 0"),
    ("data.timeout", "inf", "finite"),
    ("data.max_bad_fraction", "1.5", "<= 1"),
    ("data.max_bad_fraction", "nan", "finite"),
    ("data.crop_scale", "(0.0, 1.0)", "> 0"),
    ("data.crop_scale", "(0.9, 0.2)", "a <= b"),
    ("data.crop_ratio", "0.75", "pair"),
    ("data.crop_clip", "1", "True or False"),
    ("data.rand_augment", "9", "pair"),
    ("data.rand_augment", "(11, 0.5)", "<= 10"),
    ("data.rand_augment", "(9, -0.5)", ">= 0"),
    ("data.mean", "(0.5,)", "one a channel"),
    ("data.std", "(0.2, 0.0, 0.2)", "> 0"),
    ("model.preset", "vit_x", "did you mean"),
    ("model.patch_size", "15", "multiple"),
    ("model.width", "0", ">= 4"),
    ("model.width", "100", "multiple of model.heads"),
    ("model.width", "None", "must be set"),
    ("model.heads", "5", "multiple of model.heads"),
    ("model.depth", "-1", ">= 1"),
    ("model.decoder_width", "66", "multiple"),
    ("model.decoder_heads", "7", "multiple"),
    ("model.mlp_ratio", "0", "> 0"),
    ("model.positions", "rope", "sincos, learned"),
    ("model.dtype", "float16", "float32, bfloat16"),
    ("model.attention", "cudnn", "bfloat16"),
    ("model.attention", "flash", "matmul"),
    ("model.remat", "all", "none, dots, full"),
    ("mask.fn", "random_mask", "package.module:function"),
    ("mask.fn", "sgmae_jax.masking:randon_mask", "random_mask"),
    ("mask.fn", "no.such.module:mask", "no.such"),
    ("mask.ratio", "0", "> 0"),
    ("mask.ratio", "-0.1", "> 0"),
    ("mask.ratio", "1.0", "< 1"),
    ("mask.ratio", "1.5", "< 1"),
    ("mask.ratio", "nan", "finite"),
    ("mask.ratio", "inf", "finite"),
    ("mask.ratio", "0.75x", "finite"),
    ("mask.ratio", "0.995", "keeps 0"),
    ("mask.ratio_end", "2", "< 1"),
    ("mask.ratio_end", "0.999", "keeps 0"),
    ("mask.buckets", "1", "2 to 32"),
    ("mask.options", "3", "mapping"),
    ("mask", "3", "section"),
    ("method.name", "maee", "did you mean mae"),
    ("method.norm_pix", "maybe", "True or False"),
    ("method.norm_pics", "True", "did you mean method.norm_pix"),
    ("optim.base_lr", "0", "> 0"),
    ("optim.base_lr", "inf", "finite"),
    ("optim.min_lr", "1", "at most the peak"),
    ("optim.warmup_epochs", "500", "less than epochs"),
    ("optim.weight_decay", "-0.1", ">= 0"),
    ("optim.b1", "1.0", "< 1"),
    ("optim.clip_norm", "0", "> 0"),
    ("optim.spike", "1", "> 1"),
    ("optim.spike_window", "1", ">= 2"),
    ("optim.accumulate", "3", "multiple of optim.accumulate"),
    ("optim.lr", "0.1", "no such field"),
    ("mesh.fsdp", "0", ">= 1"),
    ("mesh.rules", "kernel", "regular expression"),
    ("mesh.rules", "(('kernel', 'fsdp'),)", "'whole', 'largest' or a tuple"),
    ("mesh.rules", "(('kernel', ('model',)),)", "'data' or 'fsdp'"),
    ("mesh.rules", "(('kernel', ('fsdp', 'fsdp')),)", "'data' or 'fsdp'"),
    ("mesh.rules", "(('kernel(', 'whole'),)", "no regular expression"),
    ("distributed.cluster", "slrum", "did you mean 'slurm'"),
    ("distributed.coordinator", "node1", "host:port"),
    ("distributed.processes", "0", ">= 1"),
    ("distributed.process", "-1", ">= 0"),
    ("distributed.heartbeat", "0", ">= 1"),
    ("distributed.timeout", "None", "integer"),
    ("checkpoint.keep", "1", ">= 2"),
    ("checkpoint.every", "0", ">= 1"),
    ("checkpoint.timeout", "0", ">= 1"),
    ("log.every", "0", ">= 1"),
    ("eval.split", "test[:x]", "a split such as"),
    ("eval.crop", "0", "> 0"),
    ("eval.pool", "max", "mean, cls"),
    ("eval.neighbours", "0", ">= 1"),
    ("eval.neighbours", "(5,0)", ">= 1"),
    ("eval.neighbours", "()", "several different ones"),
    ("eval.neighbours", "(5,20)", "eval.validation_split to choose on"),
    ("eval.protocols", "knnn", "did you mean 'knn'"),
    ("eval.protocols", "('knn','knn')", "several different ones"),
    ("eval.choose_best", "True", "eval.validation_split to choose on"),
    ("eval.validation_split", "train[5", "a split such as"),
    ("eval.shots", "(1,0)", ">= 1"),
    ("eval.lars_rate", "0", "> 0"),
    ("checkpoint.keep_period", "0", ">= 1"),
    ("checkpoint.keep_period", "2.5", "integer"),
    ("analyze.images", "0", ">= 1"),
    ("analyze.pictures", "-1", ">= 0"),
    ("analyze.checkpoints", "0", ">= 1"),
    ("analyze.layer", "0", "other than 0"),
    ("analyze.layer", "1.5", "integer"),
    ("analyze.part", "middle", "encoder, decoder"),
    ("analyze.relation", "cosin", "did you mean 'cosine'"),
    ("analyze.side", "left", "cls_attention, seed, size"),
    ("analyze.hint_ratio", "1.5", "<= 1"),
    ("analyze.temperature", "0", "> 0"),
    ("analyze.chekpoints", "3", "did you mean analyze.checkpoints"),
    ("guard.budget", "-1", ">= 0"),
    ("profile.steps", "0", ">= 1"),
    ("nothing.here", "1", "no such field"),
]


@pytest.mark.parametrize(("field", "value", "words"), BAD)
@pytest.mark.fault(10)
def test_a_bad_value_is_one_line_that_names_the_field(
    field, value, words, capsys, tmp_path
):
    began = time.perf_counter()
    code = main(
        ["--config", "quickstart", "--workdir", str(tmp_path / "run")]
        + [f"--config.{field}={value}"]
    )
    assert time.perf_counter() - began < 3
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1 and error.startswith("error: ")
    assert words in error
    assert field.split(".")[-1] in error
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(10)
def test_there_are_enough_bad_values():
    assert len(BAD) >= 60


COMMAND_LINES = [
    ([], "--config"),
    (["--config"], "config"),
    (["--config", "quickstrat"], "did you mean quickstart"),
    (["--config", "quickstart:tiny"], "takes no argument"),
    (["--config", "quickstart", "--config.seed"], "followed by a value"),
    (["--config", "quickstart", "--wrokdir", "x"], "--wrokdir"),
    (["--config", "quickstart", "stray"], "stray"),
]


@pytest.mark.parametrize(("words", "expected"), COMMAND_LINES)
@pytest.mark.fault(10)
def test_a_bad_command_line_is_one_line(words, expected, capsys):
    code = main(words)
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert expected in error


FILES = [
    ("def get_config(:\n", "SyntaxError"),
    ("x = 1\n", "get_config"),
    ("def get_config():\n    return 3\n", "ConfigDict"),
    ("def get_config():\n    return 1 / 0\n", "ZeroDivisionError"),
    (
        "from sgmae_jax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config('mae')\n"
        "    config.data.bach_size = 3\n"
        "    return config\n",
        "batch_size",
    ),
    ("from sgmae_jax.config import default_config\nget_config = default_config\n", ""),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
@pytest.mark.fault(10)
def test_a_bad_config_file_is_one_line(text, expected, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(text)
    code = main(["--config", str(file), "--workdir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 2
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.fault(10)
def test_bad_config_is_refused_in_under_three_seconds_without_a_traceback():
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sgmae_jax.main", "--config", "quickstart"]
        + ["--config.mask.ratio=1.5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert time.perf_counter() - began < 3
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_no_device_is_touched_by_validation():
    code = (
        "import jax\n"
        "from sgmae_jax.config import load_config\n"
        "load_config('quickstart')\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge.backends_are_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_config_is_valid_by_path_and_by_name(file, tmp_path):
    behind = ""
    if file.stem.startswith("automae_"):  # the first stage; its sizes are read
        (tmp_path / "checkpoints").mkdir()
        first = load_config(file.stem.removeprefix("auto"), [("data.path", "x")])
        (tmp_path / "config.json").write_text(json.dumps(flatten(first)))
        behind = f":{tmp_path}"
    by_path = load_config(f"{file}{behind}", [("data.path", "somewhere")])
    by_name = load_config(f"{file.stem}{behind}", [("data.path", "somewhere")])
    assert flatten(by_path) == flatten(by_name)
    text = file.read_text()
    assert "python -m sgmae_jax.main" in text, "its docstring starts with its command"


@pytest.mark.parametrize(
    ("typed", "value"),
    [("128", 128), ("(32, 64)", (32, 64)), ("None", None), ("a b", "a b")],
)
def test_overrides_are_python_literals_or_text(typed, value):
    assert config_lib._parse(typed) == value


def test_mask_options_take_any_name():
    config = load_config("quickstart", [("mask.options.anything", "3")])
    assert config.mask.options.to_dict() == {"anything": 3}


def test_a_missing_field_is_named():
    config = default_config()
    config.steps = 1
    config.model.width, config.model.depth, config.model.heads = 96, 1, 3
    validate(config)
    with config.unlocked():
        del config.optim["b1"]
    with pytest.raises(ConfigError, match=r"config\.optim\.b1: missing"):
        validate(config)
