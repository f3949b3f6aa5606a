"""MLO-MAE before it trains: which images each level sees, prices, contradictions."""

import pytest

from sgmae_jax.config import ConfigError, load_config
from sgmae_jax.data import DataError, open_source
from sgmae_jax.methods.base import Stream
from sgmae_jax.methods.mlo_mae import PRESETS, check, set_preset, streams
from sgmae_jax.training.inputs import stream_source
from tests.methods.cases import RELEASED, build, tiny_config


@pytest.mark.parametrize("preset", PRESETS)
def test_levels_share_no_image_they_must_not(preset):
    config = tiny_config("mlo_mae")
    set_preset(config, preset)
    source = open_source("synthetic", split="train[:100]")
    ids = {
        name: set(stream_source(config, source, name, stream)._indices.tolist())
        if (stream.low, stream.high) != (0, 1)
        else set(range(100))
        for name, stream in streams(config).items()
    }
    assert len(ids["validation"]) == 20
    taught = ids.get("head", ids["train"])
    assert len(taught) == 80 and not taught & ids["validation"]
    assert (ids["train"] >= ids["validation"]) == (preset == "released")


def test_labels_are_asked_for():
    class Unlabelled:
        name, classes = "pictures", ()

        def __len__(self):
            return 10

    with pytest.raises(ConfigError, match="'validation' of this method need") as error:
        stream_source(
            tiny_config("mlo_mae"), Unlabelled(), "validation", Stream(labelled=True)
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [1e-4, 0.9999])
def test_a_level_without_images_is_one_line(share):
    config = tiny_config("mlo_mae", method__validation=share)
    source = open_source("synthetic", split="train[:100]")
    with pytest.raises(DataError, match="is empty: there are 100 items") as error:
        for name, stream in streams(config).items():
            stream_source(config, source, name, stream)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model__attention": "cudnn"}, "'matmul' or 'xla'"),
        ({"mask__fn": "sgmae_jax.masking:block_mask"}, "makes its own masks"),
        ({"method__solver": "nystrom", "method__damping": 0}, "damping above 0"),
        ({"method__solver": "nystrom", "method__precondition": "adam"}, "'none'"),
    ],
)
def test_contradictions_are_one_line(fields, words):
    with pytest.raises(ConfigError, match=words) as error:
        check(tiny_config("mlo_mae", **fields))
    assert "\n" not in str(error.value)


def test_fused_attention_may_do_without_forward_mode():
    fields = {"model__attention": "cudnn", "method__product": "difference"}
    check(tiny_config("mlo_mae", method__solver="identity", **fields))


def test_presets_have_names():
    with pytest.raises(ConfigError, match="did you mean released"):
        set_preset(tiny_config("mlo_mae"), "relesed")


def test_the_price_of_an_outer_step():
    """By count, at ViT-B: 3.6 for the released schedule in exact products (but for
    the gradient of tokens), at most 2 as recommended."""
    sizes = {
        "data__image_size": 224,
        "model__preset": "vit_b",
        "model__width": None,
        "model__depth": None,
        "model__heads": None,
        "model__patch_size": 16,
        "model__decoder_width": 512,
        "model__decoder_depth": 8,
        "model__decoder_heads": 16,
    }
    plain = build(tiny_config("mae", **sizes)).flops(0.75)

    def price(**fields):
        config = tiny_config("mlo_mae", **{**sizes, **fields})
        return build(config, classes=10).flops(0.75) / plain

    assert 3.4 < price(**{**RELEASED, "method__token_gradient": False}) < 3.8
    assert 1 < price() < 2


def test_shipped_presets_are_valid():
    given = [("data.path", "images")]
    released = load_config("mlo_mae_vit_b_imagenet:released", given)
    assert released.method.solver == "identity" and released.method.every == 2
    assert released.data.batch_size == 256
    recommended = load_config("mlo_mae_tiny_cifar10", given)
    assert recommended.method.solver == "cg" and not recommended.method.token_gradient
    with pytest.raises(ConfigError, match="one of recommended, released"):
        load_config("mlo_mae_tiny_cifar10:best", given)
