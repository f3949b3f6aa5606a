"""SMA's complete models: logits, masks, loss, predictions, gradients, heads."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sgmae_jax.masking import attention_scores, example_keys, mask_valid
from sgmae_jax.methods.row_losses import reconstruction_error
from sgmae_jax.models.sma import Inputs, SmaDecoder, SmaEncoder
from sgmae_jax.models.sma_autoencoder import SmaAutoencoder
from tests.golden.fixtures import Fixture, assert_gradients, assert_output, files

pytestmark = pytest.mark.parametrize("path", files("sma", "out/finetune_logits"))

LAYER = {
    "attention.attention.layernorm1.weight": "norm scale",
    "attention.attention.layernorm1.bias": "norm bias",
    "attention.attention.query.weight": "query kernel",
    "attention.attention.query.bias": "query bias",
    "attention.attention.key.weight": "key kernel",
    "attention.attention.key.bias": "key bias",
    "attention.attention.value.weight": "value kernel",
    "attention.attention.value.bias": "value bias",
    "attention.output.dense.weight": "out kernel",
    "attention.output.dense.bias": "out bias",
    "layernorm.weight": "mlp_norm scale",
    "layernorm.bias": "mlp_norm bias",
    "mlp.dense1.weight": "fc1 kernel",
    "mlp.dense1.bias": "fc1 bias",
    "mlp.dense2.weight": "fc2 kernel",
    "mlp.dense2.bias": "fc2 bias",
}
REST = {
    "input_preprocessor.embeddings.weight": "embedding",
    "input_preprocessor.input_projection.weight": "project kernel",
    "input_preprocessor.input_projection.bias": "project bias",
    "input_preprocessor.position_embeddings.weight": "position",
    "input_preprocessor.layernorm.weight": "norm scale",
    "input_preprocessor.layernorm.bias": "norm bias",
    "encoding_latents.latents": "latent",
    "decoder_latents.latents": "query",
    "learned_mask_token": "mask_token",
    "pre_layernorm.weight": "keys_norm scale",
    "pre_layernorm.bias": "keys_norm bias",
    "final_layernorm.weight": "norm scale",
    "final_layernorm.bias": "norm bias",
    "final_project.weight": "pred kernel",
}
PARTS = {
    "perceiver.": "encoder",
    "teacher.reconstruction_decoder.": "decoder",
}


def place(name: str, tied: bool) -> tuple[list[str], int | None]:
    """Path in our tree, and the layer of a stacked leaf."""
    part = [ours for theirs, ours in PARTS.items() if name.startswith(theirs)]
    for prefix in PARTS:
        name = name.removeprefix(prefix)
    if found := re.fullmatch(r"encoder\.self_attends\.(\d+)\.(.+)", name):
        return [*part, "blocks", *LAYER[found[2]].split()], int(found[1])
    for theirs, ours in (
        ("encoder.cross_attention.", "first"),
        ("decoding_cross_attention.", "layer"),
    ):
        if name.startswith(theirs):
            return [*part, ours, *LAYER[name.removeprefix(theirs)].split()], None
    if name == "embedding_layer.weight":  # tied predictions
        return ["encoder", "embedding"], None
    ours = REST.get(name) or ("bias" if tied else "pred bias")
    return [*part, *ours.split()], None


def from_theirs(theirs: dict[str, np.ndarray], tied: bool = False) -> dict:
    tree: dict = {}
    for name, array in sorted(theirs.items()):
        path, layer = place(name, tied)
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        value = jnp.asarray(array.T if path[-1] == "kernel" else array)
        if layer is None:
            node[path[-1]] = value
        else:
            node.setdefault(path[-1], []).append(value)
    return jax.tree.map(
        lambda leaf: jnp.stack(leaf) if isinstance(leaf, list) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, list),
    )


def to_theirs(tree, like, tied) -> dict[str, np.ndarray]:
    found = {}
    for name in like:
        path, layer = place(name, tied)
        leaf = functools.reduce(lambda node, step: node[step], path, tree)
        leaf = leaf if layer is None else leaf[layer]
        found[name] = np.asarray(leaf.T if path[-1] == "kernel" else leaf)
    return found


@functools.cache
def setup(path):
    fixture = Fixture(path)
    meta = fixture.meta
    latent = meta["encoder_type"] == "cross_attention"
    discrete = meta["kind"] == "discrete"
    symbols = meta["num_discrete_tokens"] if discrete else 0
    encoder = SmaEncoder(
        length=meta["max_position_embeddings"],
        channels=0 if discrete else meta["input_channels"],
        symbols=symbols,
        width=meta["embedded_channels"],
        latents=meta["num_latents"] if latent else 0,
        latent_width=meta["latent_channels"],
        depth=meta["num_self_attends_per_block"],
        heads=meta["num_self_attention_heads"],
        first_heads=meta[
            "num_cross_attention_heads" if latent else "num_self_attention_heads"
        ],
        qk_width=meta["qk_channels"],
        first_qk_width=meta[
            "encoder_cross_attention_channels" if latent else "qk_channels"
        ],
        v_width=meta["v_channels"],
    )
    part = meta["decoder"]
    decoder = SmaDecoder(
        width=meta["embedded_channels"],
        heads=part["heads"],
        qk_width=part["qk"],
        v_width=part["v"],
        out_values=symbols or meta["input_channels"],
        residual=part["use_query_residual"],
        mask_token=meta["add_mask_token"],
        tied=meta["tied_output_embedding"],
    )
    model = SmaAutoencoder(encoder, decoder)
    params = from_theirs(fixture.under("param/"), decoder.tied)
    valid = jnp.asarray(fixture["in/valid"], bool)
    raw = fixture["in/inputs"]
    inputs = Inputs(valid, symbols=jnp.asarray(raw, jnp.int32))
    if not discrete:
        inputs = Inputs(valid, values=jnp.asarray(raw))
    ids = jnp.arange(len(valid))
    keys = example_keys(jax.random.key(0), jnp.zeros_like(ids), ids, "mask")

    @jax.jit
    def forward(params):
        embedded = model.embed(params, inputs)
        logits = model.encoder.apply(
            {"params": params["encoder"]}, embedded, method="logits"
        )
        head = fixture.arrays.get("in/drawn_head")
        scores = attention_scores(
            model.attention(params, embedded, valid),
            jnp.asarray(fixture["in/chosen_queries"], bool),
            head=None if head is None else jnp.asarray(head),
            mask_self=meta["mask_self"],
        )
        mask = mask_valid(keys, scores, valid, ratio=meta["ratio"])
        prediction = model.predict(params, embedded, valid, mask)
        error = reconstruction_error(inputs, prediction, mask.loss_weight)
        states = model.encode(params, embedded, valid, mask)
        return error.mean(), (logits, mask, prediction, states)

    return fixture, model, inputs, params, forward


def test_our_parameters_are_the_same_tree(path):
    _, model, _, params, _ = setup(path)
    wanted = jax.eval_shape(model.init, jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, wanted) == jax.tree.map(
        lambda leaf: leaf.shape, params
    )


def test_mask_loss_and_outputs(path):
    fixture, _, inputs, params, forward = setup(path)
    loss, (logits, mask, prediction, encoded) = forward(params)
    valid = np.asarray(inputs.valid)
    theirs = fixture["out/masked_layer_logits"]
    real = np.broadcast_to(valid[:, None, None], theirs.shape)
    assert_output(np.where(real, logits, 0), np.where(real, theirs, 0))
    np.testing.assert_array_equal(mask.loss_weight, fixture["out/mask"])
    np.testing.assert_allclose(loss, fixture["out/loss"], rtol=1e-5)
    assert_output(prediction, fixture["out/prediction"])
    states = fixture["out/last_hidden_state"]
    seen = encoded.valid
    if seen is not None:  # what stands at padding is nobody's business
        shown = np.asarray(seen)[:, : states.shape[1], None]
        states = np.where(shown, states, 0)
        ours = np.where(shown, encoded.states[:, : states.shape[1]], 0)
    else:
        ours = encoded.states
    assert_output(ours, states)


def test_gradient_of_every_parameter(path):
    fixture, model, _, params, forward = setup(path)
    theirs = fixture.under("grad/")
    gradients, _ = jax.jit(jax.grad(forward, has_aux=True))(params)
    ours = to_theirs(gradients, theirs, model.decoder.tied)
    for name in [name for name in theirs if name.endswith("key.bias")]:
        assert np.abs(ours.pop(name) - theirs.pop(name)).max() < 1e-6
    assert_gradients(ours, theirs)


def test_head_on_the_complete_input(path):
    fixture, model, inputs, params, _ = setup(path)
    meta = fixture.meta
    head = SmaDecoder(
        width=meta["decoder_latent_channels"],
        heads=meta["decoder_heads"],
        qk_width=fixture[
            "head/decoding_cross_attention.attention.attention.query.bias"
        ].shape[0],
        v_width=fixture[
            "head/decoding_cross_attention.attention.attention.value.bias"
        ].shape[0],
        out_values=meta["classes"],
        queries=1,
        residual=True,
    )
    encoded = model.encode(params, model.embed(params, inputs), inputs.valid)
    own = from_theirs(fixture.under("head/"))
    logits = head.apply({"params": own}, encoded)[:, 0]
    assert_output(logits, fixture["out/finetune_logits"])
    labels = jnp.asarray(fixture["in/labels"])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    np.testing.assert_allclose(loss, fixture["out/finetune_ce"], rtol=1e-5)
