import contextlib
import json
import os
import stat

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sgmae_jax.weights import CorruptExport, export_encoder, load_encoder

CARD = dict(
    method="mae",
    config={
        "model": {"width": 8, "patch_size": (4, 4)},
        "data": {"source": "synthetic"},
    },
    data_fingerprint="abc123",
    step=120,
    scores={"knn": 0.5, "probe": np.float32(0.25)},
)


@pytest.fixture
def params():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "patch_embed": {"kernel": draw(48, 8), "bias": draw(8)},
        "cls_token": draw(1, 1, 8).at[0, 0, :3].set(jnp.array([jnp.nan, -0.0, 1e-42])),
        "blocks": {"attn": {"qkv": {"kernel": draw(2, 8, 24)}}},
        "half": draw(3).astype(jnp.float16),
        "scalar": jnp.float32(3.5),
    }


def bits(tree, path=()):
    if isinstance(tree, dict):
        return {k: v for key in tree for k, v in bits(tree[key], (*path, key)).items()}
    array = np.asarray(tree)
    return {path: (array.shape, str(array.dtype), array.tobytes())}


def test_round_trip_is_bit_equal(params, tmp_path):
    loaded, card = load_encoder(export_encoder(params, CARD, tmp_path / "encoder"))
    assert bits(loaded) == bits(params)
    assert card["method"] == "mae" and card["step"] == 120
    assert card["config"]["model"] == {"width": 8, "patch_size": [4, 4]}
    assert card["scores"] == {"knn": 0.5, "probe": 0.25}
    assert card["parameters"] == 48 * 8 + 8 + 8 + 2 * 8 * 24 + 3 + 1
    of_file = card["tensors"]["encoder.safetensors"]
    assert of_file["half"] == {"shape": [3], "dtype": "float16"}


def test_transposed_arrays_are_written_as_they_read(tmp_path):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
    loaded, _ = load_encoder(export_encoder({"w": weight}, CARD, tmp_path))
    np.testing.assert_array_equal(loaded["w"], weight)


def test_others_can_read_it_without_us(params, tmp_path):
    export_encoder(params, CARD, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["card.json", "encoder.safetensors"]
    tensors = safetensors.numpy.load_file(tmp_path / "encoder.safetensors")
    assert "blocks.attn.qkv.kernel" in tensors
    assert json.loads((tmp_path / "card.json").read_text())["data_fingerprint"]


def test_files_are_not_for_everybody(params, tmp_path):
    folder = export_encoder(params, CARD, tmp_path / "new" / "encoder")
    for path in (folder, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO == 0, path


def test_any_flipped_byte_is_detected(params, tmp_path):
    export_encoder(params, CARD, tmp_path)
    _, sound_card = load_encoder(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("encoder.safetensors", "card.json"):
        sound = (tmp_path / name).read_bytes()
        for place in rng.choice(len(sound), 60, replace=False):
            damaged = bytearray(sound)
            damaged[place] ^= 1 << int(rng.integers(8))
            (tmp_path / name).write_bytes(bytes(damaged))
            if name == "card.json" and sound[place : place + 1].isspace():
                # White space of the card says nothing: it may change unseen.
                with contextlib.suppress(CorruptExport):
                    assert load_encoder(tmp_path)[1] == sound_card
            else:
                with pytest.raises(CorruptExport):
                    load_encoder(tmp_path)
        (tmp_path / name).write_bytes(sound)


def test_a_cut_file_and_a_foreign_card_are_detected(params, tmp_path):
    first = export_encoder(params, CARD, tmp_path / "a")
    second = export_encoder({"w": np.ones(3)}, CARD, tmp_path / "b")
    (second / "card.json").write_bytes((first / "card.json").read_bytes())
    with pytest.raises(CorruptExport, match=r"encoder\.safetensors"):
        load_encoder(second)
    tensors = first / "encoder.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(CorruptExport, match=r"encoder\.safetensors"):
        load_encoder(first)
    tensors.unlink()
    with pytest.raises(FileNotFoundError):
        load_encoder(first)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"sha256": 3}', "{", "\xff"])
def test_a_card_that_is_no_card(params, tmp_path, text):
    export_encoder(params, CARD, tmp_path)
    (tmp_path / "card.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptExport, match=r"card\.json"):
        load_encoder(tmp_path)


def test_a_second_export_replaces_the_first(params, tmp_path):
    export_encoder(params, CARD, tmp_path)
    export_encoder({"w": np.ones(3, np.float32)}, CARD | {"step": 7}, tmp_path)
    loaded, card = load_encoder(tmp_path)
    assert list(loaded) == ["w"] and card["step"] == 7
    assert len(os.listdir(tmp_path)) == 2


def test_a_failed_write_leaves_the_old_export(params, tmp_path, monkeypatch):
    export_encoder(params, CARD, tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        export_encoder({"w": np.ones(3)}, CARD, tmp_path)
    assert bits(load_encoder(tmp_path)[0]) == bits(params)
    assert sorted(os.listdir(tmp_path)) == ["card.json", "encoder.safetensors"]


@pytest.mark.parametrize(
    ("tree", "card", "message"),
    [
        ({"w": np.ones(1)}, {"method": "mae"}, "lacks config, data_fingerprint"),
        ({"w": np.ones(1)}, CARD | {"sha256": "x"}, "sha256 are written by the export"),
        ({"w": np.ones(1)}, CARD | {"extra": {1, 2}}, "does not fit JSON: set"),
        ({"w": np.ones(1)}, CARD | {"loss": float("nan")}, "does not fit JSON"),
        ({"a.b": np.ones(1)}, CARD, "holds a dot"),
        ({"a": {"b": jnp.ones(1, jnp.bfloat16)}}, CARD, "a.b is bfloat16"),
        ({}, CARD, "no parameters"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, tree, card, message):
    with pytest.raises(ValueError, match=message):
        export_encoder(tree, card, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()
