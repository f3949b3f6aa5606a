"""timm's and Hugging Face's own models on our exports, and ours on theirs."""

import json
import os

import jax
import numpy as np
import pytest

from sgmae_jax.masking import num_keep, select
from sgmae_jax.methods.pixels import pixel_targets, reconstruction_loss
from sgmae_jax.weights import read_weights
from tests.weights.networks import (
    SIZES,
    assert_same,
    config_of,
    export,
    images,
    network,
    random_parts,
    tokens_of,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
if not hasattr(torch.ops.torchvision, "nms"):
    # A torchvision whose compiled part does not fit this torch cannot be imported
    # without these names; nothing here calls them.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "() -> ()")
transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

TOLERANCE = 1e-4
CASES = [
    *[pytest.param(config_of(size), id=size) for size in SIZES],
    pytest.param(config_of("middle", model__positions="learned"), id="learned"),
    pytest.param(
        config_of(data__channels=1, data__mean=(0.5,), data__std=(0.25,)), id="grey"
    ),
]
WIDE = config_of(data__image_size=(32, 48), model__patch_size=(8, 16), eval__pool="cls")


def to_torch(pixels):
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def close(ours, theirs):
    """Prints the largest difference (`pytest -s`), and holds it to the tolerance."""
    gap = float(np.abs(np.asarray(ours) - theirs.detach().numpy()).max())
    print(f"largest difference {gap:.1e}")
    assert gap <= TOLERANCE


def timm_model(folder):
    """As any user of timm makes it from config.json."""
    config = json.loads((folder / "config.json").read_text())
    model = timm.create_model(config["architecture"], **config["model_args"])
    from safetensors.torch import load_file

    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    return model.eval()


def mae_model(folder):
    model, told = transformers.ViTMAEForPreTraining.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(told[key] for key in told if key.endswith("keys")), told
    return model.eval()


@pytest.mark.parametrize("config", [*CASES, pytest.param(WIDE, id="wide")])
def test_timm_has_our_features(config, tmp_path):
    parts = random_parts(config)
    folder = export(config, parts, tmp_path, "timm")
    _, model, params = network(read_weights(folder))
    assert_same(params, parts)
    pixels = images(config)
    ours = tokens_of(model, params, pixels)
    theirs = timm_model(folder)
    close(ours, theirs.forward_features(to_torch(pixels)))
    pooled = ours[:, 0] if config.eval.pool == "cls" else ours[:, 1:].mean(1)
    close(pooled, theirs(to_torch(pixels)))


def test_timm_loads_the_folder_by_its_path(tmp_path):
    config = config_of()
    folder = export(config, random_parts(config), tmp_path, "timm")
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = to_torch(images(config))
    torch.testing.assert_close(theirs(pixels), timm_model(folder)(pixels))


@pytest.mark.parametrize("config", CASES)
@pytest.mark.parametrize("norm_pix", [False, True])
def test_hugging_face_has_our_reconstruction(config, norm_pix, tmp_path):
    config = config.copy_and_resolve_references()
    config.method.norm_pix = norm_pix
    parts = random_parts(config)
    folder = export(config, parts, tmp_path, "huggingface")
    weights = read_weights(folder)
    assert weights.fields["method.norm_pix"] is norm_pix
    _, model, params = network(weights)
    assert_same(params, parts)
    pixels = images(config)
    count = model.encoder.tokens
    noise = np.random.default_rng(3).random((2, count)).astype(np.float32)
    mask = select(noise, num_keep(count, config.mask.ratio))
    found = jax.jit(
        lambda params: model.predict(params, model.embed(params, pixels), mask)
    )(params)
    target = pixel_targets(pixels, model.patch_size, norm_pix=norm_pix)
    loss = reconstruction_loss(found.tokens, target, mask.loss_weight)
    theirs = mae_model(folder)(to_torch(pixels), noise=torch.from_numpy(noise))
    np.testing.assert_array_equal(mask.hidden, theirs.mask.numpy())
    close(found.tokens, theirs.logits)
    close(loss, theirs.loss)


@pytest.mark.parametrize("config", CASES)
def test_hugging_face_has_our_features(config, tmp_path):
    parts = {"encoder": random_parts(config)["encoder"]}
    folder = export(config, parts, tmp_path, "huggingface")
    weights = read_weights(folder)
    assert_same(weights.parts, parts)
    _, model, params = network(weights)
    pixels = images(config)
    theirs = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False)
    found = theirs.eval()(to_torch(pixels)).last_hidden_state
    close(tokens_of(model, params, pixels), found)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("name", ["ViTMAEForPreTraining", "ViTForImageClassification"])
def test_what_hugging_face_writes_is_read(name, safe, tmp_path):
    kind = getattr(transformers, name)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    of_decoder = {f"decoder_{key}": value for key, value in sizes.items()}
    config = kind.config_class(
        **sizes,
        **(of_decoder | {"decoder_intermediate_size": 48} if "MAE" in name else {}),
        intermediate_size=48,
        image_size=32,
        patch_size=8,
    )
    theirs = kind(config).eval()
    if safe:
        theirs.save_pretrained(tmp_path)
    else:
        config.save_pretrained(tmp_path)
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    weights = read_weights(tmp_path, allow_pickle=not safe)
    own, model, params = network(weights)
    assert own.model.norm_eps == config.layer_norm_eps
    assert ("decoder" in params) == ("MAE" in name)
    assert bool(weights.left_out) == ("MAE" not in name)
    pixels = images(own)
    if "MAE" in name:
        theirs.vit.config.mask_ratio = 0.0
        order = torch.arange(model.encoder.tokens).float()[None].repeat(2, 1)
        found = theirs.vit(to_torch(pixels), noise=order).last_hidden_state
    else:
        found = theirs.vit(to_torch(pixels)).last_hidden_state
    close(tokens_of(model, params, pixels), found)


@pytest.mark.parametrize("head", [False, True], ids=["features", "classifier"])
def test_what_timm_writes_is_read(head, tmp_path):
    arguments = dict(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, qkv_bias=False
    )
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        **arguments,
        num_classes=5 if head else 0,
        global_pool="token",
    ).eval()
    timm.models.save_for_hf(theirs, tmp_path, model_args=arguments)
    weights = read_weights(tmp_path, allow_pickle=True)
    assert weights.left_out == (("head.weight", "head.bias") if head else ())
    own, model, params = network(weights)
    assert own.data.mean == (0.5,) * 3
    pixels = images(own)
    found = theirs.forward_features(to_torch(pixels))
    close(tokens_of(model, params, pixels), found)


@pytest.mark.parametrize("wanted", [1, 3, 4])
def test_other_channels_are_those_of_timm(wanted, tmp_path):
    from timm.models import adapt_input_conv

    config = config_of()
    folder = export(config, random_parts(config), tmp_path, "timm")
    kernel = timm_model(folder).state_dict()["patch_embed.proj.weight"]
    theirs = adapt_input_conv(wanted, kernel).numpy()
    ours = read_weights(folder, channels=wanted).parts["encoder"]["patch_embed"]
    ours = ours["kernel"].reshape(8, 8, wanted, 24).transpose(3, 2, 0, 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
