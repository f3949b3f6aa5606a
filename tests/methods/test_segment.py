"""Segmentation: what learns and what stays, what counts, what it refuses, scores."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sgmae_jax.config import ConfigError, validate
from sgmae_jax.main import main
from sgmae_jax.methods.segment import pixel_loss, token_maps
from sgmae_jax.models import sincos_table
from sgmae_jax.training.mesh import put_batch, state_shardings
from tests.methods import cases
from tests.methods.cases import KEY, batch_of, first_stage, gradients, start, stepper
from tests.tiny import arguments

STEP = jnp.int32(0)
CLASSES = 3
TUNED = {"frozen": False, "drop_path": 0.1, "layer_decay": 0.9}


def config_of(**own):
    own = {"head_width": 8} | own
    return cases.tiny_config("segment", **{f"method__{k}": v for k, v in own.items()})


def build(config, steps=10):
    run = cases.Run(10, steps, cases.EXAMPLES, pixel_classes=CLASSES)
    if config.method.encoder:
        run = run._replace(frozen=cases.methods.frozen_networks(config))
    return cases.methods.load("segment").build(config, run)


def scenes(count=16):
    """Images whose blocks of 4 x 4 pixels have the brightness of their class."""
    batch = batch_of(count)
    blocks = np.random.default_rng(0).integers(0, CLASSES, (count, 4, 6))
    segments = blocks.repeat(4, 1).repeat(4, 2).astype(np.uint8)
    image = batch["image"] // 4 + 90 * segments[..., None]
    return {**batch, "image": image, "segments": segments}


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    ("own", "rate"),
    [({"head": "linear"}, 0.5), ({"head": "upernet"}, 0.2), (TUNED, 0.08)],
    ids=["linear", "upernet", "tuned"],
)
def test_it_learns_and_a_frozen_encoder_stays(own, rate):
    config = config_of(**own)
    config.optim.base_lr = rate
    method = build(config, steps=40)
    state, step, batch = start(method), stepper(method), scenes()
    before = jax.tree.map(np.array, state.params)
    for _ in range(30):
        state, metrics = step(state, {"train": batch}, ())
    assert metrics["pixel_accuracy"] > 0.85, metrics
    found = jax.jit(method.segments)(state.params, batch["image"])
    assert found.shape == (16, 16, 24) and found.dtype == jnp.int32
    assert (found == batch["segments"]).mean() > 0.85
    moments = {leaf.shape for leaf in jax.tree.leaves(state.opt)}
    frozen = own.get("frozen", True)
    for name in ("model", "head"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params[name]):
            old = before[name]
            for entry in path:
                old = old[entry.key]
            moved = not np.array_equal(leaf, old)
            assert moved == (name == "head" or not frozen), path
    # No moments of what does not move.
    shape = state.params["model"]["encoder"]["patch_embed"]["kernel"].shape
    assert (shape in moments) == (not frozen)


def test_it_starts_from_the_given_encoder(tmp_path):
    config = config_of(encoder=first_stage(tmp_path))
    config.model.width, config.model.depth = 64, 1
    given = build(config).given()["model"]["encoder"]
    wanted = cases.build(cases.tiny_config()).init(jax.random.key(9))["model"]
    # Fixed positions become a table of this run's grid.
    table = sincos_table((4, 6), 32).astype(np.float32)
    np.testing.assert_array_equal(given.pop("pos_embed"), table)
    jax.tree.map(np.testing.assert_array_equal, given, wanted["encoder"])


def test_the_loss_in_closed_form():
    segments = np.uint8([[[0, 2], [255, 1]]])
    rows = [[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], [[1, 1, 1], [0.4, 0.2, 0.4]]]
    logits = jnp.log(jnp.array([rows]))
    value, metrics = pixel_loss(logits, segments)
    np.testing.assert_allclose(value, -np.log([0.5, 0.8, 0.2]).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["pixel_accuracy"], 2 / 3, rtol=1e-6)
    value, metrics = pixel_loss(logits, np.full_like(segments, 255))
    assert value == 0 and metrics["pixel_accuracy"] == 0


def test_unlabelled_pixels_change_nothing():
    """Neither what is shown there nor what is told counts."""
    method = build(config_of(frozen=False))
    state, batch = start(method), scenes()
    hole = np.zeros_like(batch["segments"], bool)
    hole[:, 3:9, 5:20] = True
    one = {**batch, "segments": np.where(hole, np.uint8(255), batch["segments"])}
    logits = jax.random.normal(KEY, (*hole.shape, CLASSES))
    other = jnp.where(hole[..., None], 7 * logits[..., ::-1], logits)
    look = jax.value_and_grad(lambda x: pixel_loss(x, one["segments"])[0])
    (first, slope), (second, _) = look(logits), look(other)
    assert first == second and not np.asarray(slope)[hole].any()
    grads, metrics = gradients(method, 0, state, one, STEP, ())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    none = {**batch, "segments": np.full_like(batch["segments"], 255)}
    grads, metrics = gradients(method, 0, state, none, STEP, ())
    assert metrics["loss"] == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_layers_are_those_of_the_encoder():
    from sgmae_jax.methods.image import make_autoencoder

    model = make_autoencoder(config_of())
    params, images = start(build(config_of())).params["model"], batch_of(2)["image"]
    maps = token_maps(model, params, images)
    for layer, found in zip((1, 1, 2), maps[:3], strict=True):
        wanted = model.layer(params, images, layer).features[:, 1:]
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-5)
    last = model.encode(params, images).patches
    np.testing.assert_allclose(maps[3].reshape(last.shape), last, atol=1e-5)
    # Row by row of the grid, as the patches are.
    assert maps[3].shape == (2, 4, 6, 32)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "head", ["linear", pytest.param("upernet", marks=pytest.mark.slow)]
)
def test_eight_devices_do_what_one_does(head):
    method = build(config_of(head=head, frozen=False))
    batch = scenes()
    batch["segments"][:5] = 255  # the mean is over the pixels of all devices
    found = []
    for shape in ((1, 1), (4, 2)):
        auto = (jax.sharding.AxisType.Auto,) * 2
        devices = jax.devices()[: shape[0] * shape[1]]
        mesh = jax.make_mesh(shape, ("data", "fsdp"), auto, devices=devices)
        state = start(method)
        state = jax.device_put(state, state_shardings(state, mesh))
        state, metrics = stepper(method)(state, {"train": put_batch(batch, mesh)}, ())
        found.append((jax.device_get(state.params), jax.device_get(metrics)))
    (one, first), (eight, second) = found
    for name in ("loss", "pixel_accuracy", "grad_norm"):
        np.testing.assert_allclose(first[name], second[name], rtol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), one, eight)


def test_flops_know_what_is_frozen():
    frozen, tuned = (build(config_of(frozen=one)).flops(()) for one in (True, False))
    assert 0 < frozen < tuned
    assert build(config_of(head="upernet")).flops(()) > frozen


BAD = [
    ({"head": "fcn"}, "method.head"),
    ({"head_width": 0}, "method.head_width"),
    ({"encoder": "nowhere"}, "must be a run directory"),
    ({"layer_decay": 0.5}, "must stay 1.0 with method.frozen = True"),
    ({"drop_path": 0.5}, "must stay 0.0 with method.frozen = True"),
    ({"frozen": 1}, "method.frozen"),
]


@pytest.mark.parametrize(("own", "words"), BAD, ids=str)
def test_what_is_wrong_is_one_line(own, words):
    with pytest.raises(ConfigError, match=words) as caught:
        validate(config_of(**own))
    assert "\n" not in str(caught.value)


def test_augmentation_that_moves_pixels_alone_is_refused():
    config = config_of()
    config.mask.fn = "sgmae_jax.masking:grid_mask"
    with pytest.raises(ConfigError, match="makes its own masks or none"):
        validate(config)
    config = config_of()
    with config.unlocked():
        config.data.rand_augment = (9, 0.5)
    with pytest.raises(ConfigError, match="moves pixels away"):
        cases.methods.load("segment").check(config)


def folder_of_pairs(root, images=20):
    """Dark and bright halves, in two splits; one image has no mask."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i in range(images):
            segments = np.zeros((18, 22), np.uint8)
            segments[:, rng.integers(4, 18) :] = 1
            segments[0] = 255
            image = 40 + 150 * segments[..., None].repeat(3, -1) % 255
            Image.fromarray(image.astype(np.uint8)).save(
                root / split / "images" / f"{i}.png"
            )
            Image.fromarray(segments).save(root / split / "masks" / f"{i}.png")
    (root / "val" / "masks" / "3.png").unlink()
    return root


SEGMENT = {"method__name": "segment", "steps": 2, "method__head_width": 8}


def test_a_run_on_pairs_is_scored_drawn_and_evaluated(tmp_path, capsys):
    """They have no classes of images: neither kNN nor probe, but mean IoU."""
    data = {
        "data__source": "pairs",
        "data__path": folder_of_pairs(tmp_path / "set"),
        "eval__split": "val",
        "eval__limit": 30,
    }
    run = tmp_path / "run"
    assert main(arguments(run, **SEGMENT, **data, eval__every=1)) == 0
    output = capsys.readouterr().out
    assert "mIoU" in output and "kNN" not in output
    scores = json.loads((run / "scores.json").read_text())
    assert set(scores) == {"trained encoder"}
    assert set(scores["trained encoder"]) == {"miou", "pixel_accuracy"}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "eval/miou" in line] == [1, 2]
    assert (run / "pictures" / "segments_00000002.png").is_file()
    report = (run / "report.html").read_text()
    assert 'alt="segments, step 2"' in report and "mIoU" in report
    again = tmp_path / "again"
    words = ["--config", f"evaluate:{run}", "--workdir", str(again)]
    assert main([*words, f"--config.data.path={data['data__path']}"]) == 0
    found = json.loads((again / "evaluation.json").read_text())["scores"]
    assert found == scores
    capsys.readouterr()
    shutil.rmtree(again)
    folder = tmp_path / "classes"
    for number in range(10):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (16, 16), (20 * number,) * 3)
        image.save(folder / "ab"[number % 2] / f"{number}.png")
    other = ["data.source=folder", f"data.path={folder}", "eval.split=train"]
    small = ["eval.neighbours=1", *other]
    assert main([*words, *(f"--config.{field}" for field in small)]) == 0
    assert "no classes of pixels" in capsys.readouterr().out


def test_textures_have_both_kinds_of_scores(tmp_path):
    run = tmp_path / "run"
    assert main(arguments(run, **SEGMENT, eval__baselines=True)) == 0
    scores = json.loads((run / "scores.json").read_text())
    names = {"knn", "probe", "miou", "pixel_accuracy"}
    assert set(scores["trained encoder"]) == names
    assert set(scores["untrained encoder"]) == {"knn", "probe"}


def test_sources_without_classes_of_pixels_are_one_line(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (16, 16)).save(tmp_path / name / f"{i}.png")
    given = {"data__source": "folder", "data__path": tmp_path}
    assert main(arguments(tmp_path / "run", **SEGMENT, **given)) == 2
    error = capsys.readouterr().err
    assert "must have classes of pixels" in error and error.count("\n") == 1
