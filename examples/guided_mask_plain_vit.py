"""Self-guided masks in somebody else's pipeline: a plain JAX ViT, and one call.

    python examples/guided_mask_plain_vit.py

The networks, the loss and the optimizer below are this file's own. Of this project it
uses the masks alone, which need JAX and NumPy: features of any network go in, a `Mask`
comes out, inside the jitted training step.
"""

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking import Context, guided_mask, random_mask

GRID, PATCH, WIDTH, HEADS, RATIO = (8, 8), 4, 48, 3, 0.75
TOKENS, VALUES = GRID[0] * GRID[1], PATCH * PATCH


def images_with_an_object(rng, count):
    """Stripes of one direction, and an ellipse with stripes of another one."""
    y, x = np.mgrid[: GRID[0] * PATCH, : GRID[1] * PATCH] / (GRID[0] * PATCH)
    centre, radius = rng.uniform(0.35, 0.65, (2, count, 1, 1)), 0.27
    inside = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) < radius**2
    phase = rng.uniform(0, 6, (2, count, 1, 1))
    picture = np.where(inside, np.sin(60 * x + phase[0]), np.sin(25 * y + phase[1]))
    return picture.astype(np.float32), inside


def to_tokens(pictures):
    """[B, H, W] -> [B, N, PATCH * PATCH]"""
    rows = pictures.reshape(len(pictures), GRID[0], PATCH, GRID[1], PATCH)
    return rows.swapaxes(2, 3).reshape(len(pictures), TOKENS, VALUES)


def dense(key, inputs, outputs):
    return jax.random.normal(key, (inputs, outputs)) * inputs**-0.5


def init(key):
    keys = iter(jax.random.split(key, 32))

    def block():
        shapes = {"qkv": (1, 3), "proj": (1, 1), "up": (1, 4), "down": (4, 1)}
        return {
            name: dense(next(keys), a * WIDTH, b * WIDTH)
            for name, (a, b) in shapes.items()
        }

    return {
        "embed": dense(next(keys), VALUES, WIDTH),
        "position": 0.3 * jax.random.normal(next(keys), (TOKENS, WIDTH)),
        "mask_token": jnp.zeros(WIDTH),
        "encoder": [block() for _ in range(3)],
        "decoder": [block()],
        "predict": dense(next(keys), WIDTH, VALUES),
    }


def norm(x):
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-6)


def run_block(weights, x):
    batch, count, _ = x.shape
    qkv = (norm(x) @ weights["qkv"]).reshape(batch, count, 3, HEADS, -1)
    mixed = jax.nn.dot_product_attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
    x = x + mixed.reshape(batch, count, WIDTH) @ weights["proj"]
    return x + jax.nn.gelu(norm(x) @ weights["up"]) @ weights["down"]


def embed(params, tokens):
    return tokens @ params["embed"] + params["position"]


def features(params, tokens):
    """Of all tokens, after the last block but one; no token is hidden here."""
    x = embed(params, tokens)
    for weights in params["encoder"][:-1]:
        x = run_block(weights, x)
    return x


def make_mask(params, tokens, keys, guided):
    if not guided:
        return random_mask(keys, Context(grid=GRID), ratio=RATIO)
    # This is the one call. The network has no class token, so that the side which
    # touches the border less is taken for the object.
    context = Context(grid=GRID, features=features(params, tokens))
    return guided_mask(keys, context, ratio=RATIO, side="border")


def loss(params, tokens, mask):
    """A masked autoencoder of its own: encode what is kept, predict what is not."""
    kept = jnp.take_along_axis(embed(params, tokens), mask.ids_keep[..., None], 1)
    for weights in params["encoder"]:
        kept = run_block(weights, kept)
    missing = (len(tokens), TOKENS - kept.shape[1], WIDTH)
    blank = jnp.broadcast_to(params["mask_token"], missing)
    whole = jnp.concatenate([kept, blank], 1)
    x = jnp.take_along_axis(whole, mask.ids_restore[..., None], 1) + params["position"]
    for weights in params["decoder"]:
        x = run_block(weights, x)
    error = jnp.square(norm(x) @ params["predict"] - tokens).mean(-1)
    return (error * mask.loss_weight).sum() / mask.loss_weight.sum()


@jax.jit(static_argnames="guided")
def step(params, momentum, tokens, key, guided):
    keys = jax.random.split(key, len(tokens))
    mask = make_mask(params, tokens, keys, guided)
    value, gradient = jax.value_and_grad(loss)(params, tokens, mask)
    momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
    params = jax.tree.map(lambda p, m: p - 0.01 * m, params, momentum)
    return params, momentum, value


def hidden_share(params, rng, guided):
    """How much of the object a mask hides."""
    pictures, inside = images_with_an_object(rng, 64)
    tokens = to_tokens(pictures)
    keys = jax.random.split(jax.random.key(9), len(tokens))
    hidden = make_mask(params, tokens, keys, guided).hidden
    covered = to_tokens(inside).mean(-1) > 0.5
    return float((hidden * covered).sum() / covered.sum())


def main(steps=120):
    rng = np.random.default_rng(0)
    params = init(jax.random.key(0))
    momentum = jax.tree.map(jnp.zeros_like, params)
    losses = {False: [], True: []}
    for number in range(steps):
        guided = number >= steps // 2  # random masks first: clusters have to form
        tokens = to_tokens(images_with_an_object(rng, 32)[0])
        key = jax.random.key(number)
        params, momentum, value = step(params, momentum, tokens, key, guided)
        losses[guided].append(float(value))
    for guided, name in ((False, "random"), (True, "guided")):
        share = hidden_share(params, rng, guided)
        first, last = losses[guided][0], np.mean(losses[guided][-10:])
        print(
            f"{name}: loss {first:.3f} -> {last:.3f}; hides {share:.0%} of the object"
        )
    return losses, share


if __name__ == "__main__":
    main()
