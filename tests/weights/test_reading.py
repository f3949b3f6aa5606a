"""Weights by path: every naming, every leaf accounted for, other images."""

import itertools

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from sgmae_jax.config import pair
from sgmae_jax.models import resize_positions, sincos_table
from sgmae_jax.weights import WeightsError, formats, read_weights
from sgmae_jax.weights.foreign import translate
from sgmae_jax.weights.said import described
from sgmae_jax.weights.tensors import read_tensors
from tests.golden.conversion import from_theirs
from tests.weights.networks import (
    FORMATS,
    SIZES,
    assert_same,
    config_of,
    export,
    images,
    network,
    random_parts,
    tokens_of,
)
from tests.weights.torchfiles import torch_file

PLAIN = [config_of(size) for size in SIZES]
LEARNED = config_of("middle", model__positions="learned")
GREY = config_of(data__channels=1, data__mean=(0.5,), data__std=(0.25,))
OBLONG = config_of(data__image_size=(32, 48), model__patch_size=(8, 16))
OTHER_MLP = config_of(model__mlp_ratio=7 / 3, model__positions="learned")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("decoder", [True, False], ids=["both", "encoder"])
@pytest.mark.parametrize(
    "config",
    [*PLAIN, LEARNED, GREY, OBLONG, OTHER_MLP],
    ids=[*SIZES, "learned", "grey", "oblong", "mlp"],
)
def test_there_and_back_is_bit_equal(config, form, decoder, tmp_path):
    parts = random_parts(config)
    if not decoder:
        del parts["decoder"]
    if form == "huggingface" and config is OBLONG:
        with pytest.raises(WeightsError, match="squares alone"):
            export(config, parts, tmp_path, form)
        return
    weights = read_weights(export(config, parts, tmp_path, form))
    assert_same(weights.parts, parts)
    assert weights.form == form and not weights.left_out
    found, _, _ = network(weights)
    for section, name in itertools.chain(
        [("data", "channels"), ("model", "positions"), ("model", "norm_eps")],
        (("model", name) for name in ("width", "depth", "heads")),
    ):
        assert found[section][name] == config[section][name]
    assert pair(found.model.patch_size) == pair(config.model.patch_size)
    assert pair(found.data.image_size) == pair(config.data.image_size)
    assert tuple(found.data.mean) == pytest.approx(tuple(config.data.mean))
    if decoder:
        for name in ("width", "depth", "heads"):
            assert found.model[f"decoder_{name}"] == config.model[f"decoder_{name}"]


@pytest.mark.parametrize("form", ["timm", "huggingface"])
def test_norm_eps_is_said_or_refused(form, tmp_path):
    config = config_of(model__norm_eps=1e-12)
    parts = random_parts(config)
    if form == "timm":
        with pytest.raises(WeightsError, match="cannot say another than 1e-06"):
            export(config, parts, tmp_path, form)
    else:
        weights = read_weights(export(config, parts, tmp_path, form))
        assert weights.fields["model.norm_eps"] == 1e-12


def named(config=None, form="timm", folder=None):
    """A network's tensors by the names of a format, decoder included."""
    config = config or config_of()
    export(config, random_parts(config), folder / form, form)
    return dict(read_tensors(folder / form).arrays)


def save(tensors, path):
    safetensors.numpy.save_file(tensors, path)
    return path


ASKED = {"heads": 3, "decoder_heads": 2}  # widths that are not usual


_PARTS = random_parts(config_of())
TENSORS = formats.named("timm", "encoder", config_of(), _PARTS)


def test_the_authors_file_is_read(tmp_path):
    config = config_of()
    tensors = named(config, folder=tmp_path)
    path = tmp_path / "mae.pth"
    path.write_bytes(torch_file({"model": tensors, "epoch": 799}))
    weights = read_weights(path, allow_pickle=True, **ASKED)
    parts = random_parts(config)
    assert_same(weights.parts, parts)
    # The independent mapping of the golden tests says the same.
    theirs = from_theirs(tensors)
    for part, tree in parts.items():
        theirs[part].pop("pos_embed")
        assert_same(theirs[part], tree)
    path.write_bytes(torch_file({f"module.{name}": a for name, a in tensors.items()}))
    assert_same(read_weights(path, allow_pickle=True, **ASKED).parts, parts)


NEW = (
    ("vit.encoder.layer.", "vit.layers."),
    ("attention.attention.query", "attention.q_proj"),
    ("attention.attention.key", "attention.k_proj"),
    ("attention.attention.value", "attention.v_proj"),
    ("attention.output.dense", "attention.o_proj"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
)


def test_hugging_faces_newer_spellings_are_read(tmp_path):
    old = named(form="huggingface", folder=tmp_path)
    new = {}
    for name, array in old.items():
        for before, after in NEW:
            name = name.replace(before, after)
        new[name] = array
    assert not old.keys() & {name for name in new if ".q_proj." in name}
    found = read_weights(save(new, tmp_path / "new.safetensors"), **ASKED)
    assert_same(found.parts, random_parts(config_of()))
    both = {**old, "vit.layers.0.attention.q_proj.bias": np.zeros(24, np.float32)}
    with pytest.raises(WeightsError, match="two spellings"):
        read_weights(save(both, tmp_path / "both.safetensors"), **ASKED)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_half_precision_keeps_its_values(dtype, suffix, tmp_path):
    tensors = {n: a.astype(dtype) for n, a in named(folder=tmp_path).items()}
    path = tmp_path / f"half.{suffix}"
    if suffix == "pth":
        path.write_bytes(torch_file(tensors))
    else:
        save(tensors, path)
    found = read_tensors(path, allow_pickle=True).arrays
    for name, array in tensors.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array.astype(np.float32))


def test_what_is_on_top_is_left_out_and_absent_biases_are_zero(tmp_path):
    tensors = named(folder=tmp_path)
    tensors["head.weight"] = np.zeros((10, 24), np.float32)
    tensors["head.0.num_batches_tracked"] = np.array(3)
    for name in [n for n in tensors if n.startswith("blocks") and "qkv.bias" in n]:
        del tensors[name]
    found = read_weights(save(tensors, tmp_path / "w.safetensors"), **ASKED)
    assert set(found.left_out) == {"head.weight", "head.0.num_batches_tracked"}
    assert not found.parts["encoder"]["blocks"]["attn"]["qkv"]["bias"].any()
    assert found.parts["decoder"]["blocks"]["attn"]["qkv"]["bias"].any()


def put(**leaves):
    return lambda tensors: (
        tensors
        | {
            name.replace("__", "."): np.zeros(shape, np.float32)
            for name, shape in leaves.items()
        }
    )


def without(*names):
    return lambda tensors: {n: a for n, a in tensors.items() if n not in names}


def value(name, change):
    return lambda tensors: tensors | {name: change(tensors[name])}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("norm.weight"), "norm.weight absent"),
        (without("cls_token", "norm.bias"), "cls_token, norm.bias absent"),
        (without("pos_embed"), "pos_embed is absent"),
        (without("blocks.0.attn.qkv.bias"), "blocks.0.attn.qkv.bias absent"),
        (without("decoder_embed.bias"), "decoder_embed.bias is absent"),
        (put(dist_token=(1, 1, 24)), "dist_token unexpected"),
        (put(blocks__1__ls1__gamma=(24,)), "blocks.1.ls1.gamma unexpected"),
        (put(blocks__3__norm1__bias=(24,)), r"blocks\.2\.norm1\.weight.*and \d+ more"),
        (put(norm__bias=(25,)), r"norm.bias is \(25,\) and must be \(24,\)"),
        (
            put(pos_embed=(1, 16, 24), decoder_pos_embed=(1, 16, 16)),
            "15 patches: no square",
        ),
        (put(patch_embed__proj__weight=(24, 2, 8, 8)), "channels must be one of 1, 3"),
        (put(patch_embed__proj__weight=(24, 48)), "must have 4 axes"),
        (put(decoder_pred__bias=(7,)), r"decoder_pred.bias is \(7,\)"),
        (value("norm.bias", lambda a: a.astype(np.int32)), "norm.bias is int32"),
        (value("norm.bias", lambda a: a.astype(np.float64)), "norm.bias is float64"),
        (value("norm.bias", lambda a: a * np.nan), "norm.bias has values that are not"),
        (value("norm.bias", lambda a: a + np.inf), "norm.bias has values that are not"),
        (lambda tensors: {"x": np.zeros(3)}, "neither the names of"),
        (lambda tensors: {"patch_embed.kernel": np.zeros(3)}, "name its folder"),
    ],
    ids=itertools.count(),
)
def test_each_leaf_that_does_not_fit_is_named(change, words, tmp_path):
    path = save(change(named(folder=tmp_path)), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=words) as caught:
        read_weights(path, **ASKED)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_heads_are_known_usual_or_asked_for(tmp_path):
    usual = config_of("vit_ti")
    del (parts := random_parts(usual))["decoder"]
    folder = export(usual, parts, tmp_path / "usual", "timm")
    assert read_weights(folder / "model.safetensors").fields["model.heads"] == 3
    odd = save(named(folder=tmp_path), tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"width of 24: config\.weights\.heads must"):
        read_weights(odd)
    with pytest.raises(WeightsError, match=r"config\.weights\.decoder_heads must"):
        read_weights(odd, heads=3)
    with pytest.raises(WeightsError, match="multiple of 4 and of heads, 5"):
        read_weights(odd, heads=5)
    with pytest.raises(
        WeightsError, match=r"says heads = 3, config\.weights\.heads = 4"
    ):
        read_weights(folder, heads=4)
    ours = export(usual, parts, tmp_path / "ours")
    with pytest.raises(WeightsError, match="says heads = 3"):
        read_weights(ours, heads=4)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=4),
)
KEYS = ("architecture", "model_args", "pretrained_cfg", "mean", "input_size")
KEYS += ("model_type", "num_attention_heads", "layer_norm_eps", "image_size")
KEYS += ("num_channels", "img_size", "num_heads", "std", "norm_layer", "hidden_act")
ONE = st.dictionaries(st.sampled_from(KEYS), ANY)


@given(
    st.dictionaries(st.sampled_from(KEYS), ANY | ONE),
    st.dictionaries(st.sampled_from(["image_mean", "image_std", "do_normalize"]), ANY),
    st.sampled_from([{}, {"model_type": "vit", "num_attention_heads": 3}]),
)
@settings(max_examples=50, deadline=None)
def test_a_config_of_anything_is_understood_or_refused(config, processor, sound):
    try:
        said = described(config | sound, processor)
        translate(TENSORS, said, **ASKED)
    except WeightsError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("form", FORMATS)
def test_other_image_sizes_by_interpolation(form, tmp_path):
    config = config_of()
    folder = export(config, random_parts(config), tmp_path, form)
    same = read_weights(folder, image_size=32)
    assert same.fields["model.positions"] == "sincos"
    found = read_weights(folder, image_size=(48, 64))
    assert found.fields["data.image_size"] == (48, 64)
    assert found.fields["model.positions"] == "learned"
    for part, width in (("encoder", 24), ("decoder", 16)):
        table = sincos_table((4, 4), width).astype(np.float32)
        wanted = resize_positions(table, (4, 4), (6, 8))
        np.testing.assert_array_equal(found.parts[part]["pos_embed"], wanted)
    own, model, params = network(found)
    assert np.isfinite(tokens_of(model, params, images(own))).all()
    with pytest.raises(WeightsError, match="no whole number of its patches"):
        read_weights(folder, image_size=36)


@pytest.mark.parametrize("form", FORMATS)
def test_other_channels(form, tmp_path):
    config = config_of(data__mean=(0.5,) * 3, data__std=(0.2,) * 3)
    folder = export(config, random_parts(config), tmp_path, form)
    _, colour, params = network(read_weights(folder))
    weights = read_weights(folder, channels=1)
    assert weights.left_out == ("the decoder",) and "decoder" not in weights.parts
    own, grey, fewer = network(weights)
    pixels = images(own)
    # A grey image is what it was when each channel was grey.
    np.testing.assert_allclose(
        tokens_of(grey, fewer, pixels),
        tokens_of(colour, params, pixels.repeat(3, axis=-1)),
        atol=1e-4,
    )
    own, _, wider = network(read_weights(folder, channels=4))
    assert len(own.data.mean) == 4
    old, new = (
        tree["encoder"]["patch_embed"]["kernel"].reshape(64, -1, 24)
        for tree in (params, wider)
    )
    np.testing.assert_allclose(new, old[:, [0, 1, 2, 0]] * 0.75, rtol=1e-6)
    four = config_of(data__channels=4, data__mean=(0.5,) * 4, data__std=(1.0,) * 4)
    folder = export(four, random_parts(four), tmp_path / "four", form)
    with pytest.raises(WeightsError, match=r"patch_embed\.kernel is for 4 channels"):
        read_weights(folder, channels=3)
