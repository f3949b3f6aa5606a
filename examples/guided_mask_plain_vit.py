"""A self-guided mask for a vision transformer that is not ours, in plain JAX.

    python examples/guided_mask_plain_vit.py

Everything but one call is somebody else's masked autoencoder: a small pre-norm ViT, its
loss and its optimizer, written here with jax and numpy. In every training step the
network looks at the whole images, `guided_mask` divides their patches in two by what it
saw, and hides one part, then what is most like it. Takes some seconds on a CPU.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from sgmae_jax.masking import Context, guided_mask

GRID, PATCH, WIDTH, HEADS, LAYERS = (14, 14), 4, 48, 3, 3
TOKENS, VALUES = GRID[0] * GRID[1], 3 * PATCH**2
RATIO, BATCH, STEPS = 0.75, 8, 40


def init(key):
    """Parameters: an encoder of three blocks, a decoder of one."""
    keys = iter(jax.random.split(key, 100))

    def dense(inputs, outputs):
        return jax.random.normal(next(keys), (inputs, outputs)) * inputs**-0.5

    def block():
        return {
            "qkv": dense(WIDTH, 3 * WIDTH),
            "out": dense(WIDTH, WIDTH),
            "up": dense(WIDTH, 4 * WIDTH),
            "down": dense(4 * WIDTH, WIDTH),
        }

    return {
        "embed": dense(VALUES, WIDTH),
        "position": 0.3 * dense(TOKENS, WIDTH),
        "class": jnp.zeros(WIDTH),
        "blocks": [block() for _ in range(LAYERS)],
        "mask": 0.02 * dense(1, WIDTH)[0],
        "decoder_position": 0.3 * dense(TOKENS, WIDTH),
        "decoder": [block()],
        "pixels": dense(WIDTH, VALUES),
    }


def norm(x):
    return jax.nn.standardize(x, axis=-1, epsilon=1e-6)


def transformer(blocks, x):
    """Tokens [B, T, D] after every block, and each block's attention [B, H, T, T]."""
    batch, tokens, _ = x.shape
    after, maps = [], []
    for block in blocks:
        qkv = (norm(x) @ block["qkv"]).reshape(batch, tokens, 3, HEADS, -1)
        query, key, value = jnp.moveaxis(qkv, (2, 3), (0, 2))
        scores = query @ key.swapaxes(-1, -2) * (WIDTH // HEADS) ** -0.5
        maps.append(jax.nn.softmax(scores))
        mixed = (maps[-1] @ value).swapaxes(1, 2).reshape(x.shape)
        x = x + mixed @ block["out"]
        x = x + jax.nn.gelu(norm(x) @ block["up"]) @ block["down"]
        after.append(x)
    return after, maps


def encode(params, tokens):
    first = jnp.broadcast_to(params["class"], (len(tokens), 1, WIDTH))
    return transformer(params["blocks"], jnp.concatenate([first, tokens], 1))


def take(tokens, ids):
    return jnp.take_along_axis(tokens, ids[..., None], axis=1)


def loss_fn(params, patches, key):
    """Mean squared error on hidden patches; the mask too, to look at."""
    tokens = patches @ params["embed"] + params["position"]
    keys = jax.random.split(key, len(patches))

    # The one call. No gradient flows through it. By default the object is the part
    # that the class token looks at more; in a network this young that is luck.
    after, maps = encode(params, tokens)
    features, attention = after[-2][:, 1:], maps[-2]
    context = Context(grid=GRID, features=features, attention=attention)
    mask = guided_mask(keys, context, ratio=RATIO, side="border")

    latent = encode(params, take(tokens, mask.ids_keep))[0][-1][:, 1:]
    missing = jnp.broadcast_to(
        params["mask"], (len(latent), TOKENS - latent.shape[1], WIDTH)
    )
    whole = take(jnp.concatenate([norm(latent), missing], 1), mask.ids_restore)
    decoded = transformer(params["decoder"], whole + params["decoder_position"])[0][-1]
    error = ((norm(decoded) @ params["pixels"] - patches) ** 2).mean(-1)
    return (error * mask.loss_weight).sum() / mask.loss_weight.sum(), mask


@jax.jit
def step(params, moments, patches, key, count):
    """One step of Adam."""
    (loss, mask), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        params, patches, key
    )
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, moments[1], grads)
    scale = 1e-3 * jnp.sqrt(1 - 0.99**count) / (1 - 0.9**count)
    params = jax.tree.map(
        lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-8), params, first, second
    )
    return params, (first, second), loss, mask.hidden


def make_images(rng):
    """Striped discs on speckle, as patches [B, 196, 48]; and where the discs are."""
    side = GRID[0] * PATCH
    row, column = np.mgrid[:side, :side]
    center = rng.uniform(22, 34, (BATCH, 2, 1, 1))
    radius = rng.uniform(12, 18, (BATCH, 1, 1))
    disc = np.hypot(row - center[:, 0], column - center[:, 1]) < radius
    phase = rng.uniform(0, 6, (BATCH, 1, 1))
    stripes = np.sin(row + phase)[..., None] + [1.0, 0.2, -0.6]
    speckle = 0.4 * rng.standard_normal((BATCH, side, side, 3)) - [0.5, 0.0, -0.3]
    images = np.where(disc[..., None], stripes, speckle)
    cells = (BATCH, GRID[0], PATCH, GRID[1], PATCH)
    patches = images.reshape(*cells, 3).swapaxes(2, 3).reshape(BATCH, TOKENS, VALUES)
    inside = disc.reshape(cells).mean((2, 4)).reshape(BATCH, TOKENS) > 0.5
    return patches.astype(np.float32), inside


def main():
    began, rng = time.perf_counter(), np.random.default_rng(0)
    params = init(jax.random.key(0))
    moments, shares = (jax.tree.map(jnp.zeros_like, params),) * 2, []
    for count in range(1, STEPS + 1):
        patches, disc = make_images(rng)
        key = jax.random.key(count)
        params, moments, loss, hidden = step(params, moments, patches, key, count)
        hidden = np.asarray(hidden)
        shares.append([100 * hidden.mean(), 100 * hidden[disc].mean()])
        if count in (1, STEPS // 2, STEPS):
            everywhere, discs = np.mean(shares, axis=0)
            print(
                f"step {count:2d}: loss {loss:.3f}, hidden so far {everywhere:.0f} % "
                f"of all patches and {discs:.0f} % of the discs'"
            )
    print(f"{STEPS} steps in {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
