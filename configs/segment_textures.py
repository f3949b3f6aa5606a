"""Segmentation of the embedded textures; behind the colon stands an encoder, a run.

    python -m sgmae_jax.main --config quickstart --workdir runs/quickstart
    python -m sgmae_jax.main --config segment_textures:runs/quickstart \
        --workdir runs/segment_textures

A linear head on frozen tokens; --config.method.head=upernet takes the larger head,
--config.method.frozen=False tunes the encoder as well, both with a smaller rate,
--config.optim.base_lr=4e-3. Without the colon the encoder is
one of random weights, which is what the score must be held against.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("quickstart", "segment")
    config.epochs = 10
    config.data.split = "train[:2000]"
    config.data.batch_size = 64
    config.data.crop_scale = (0.6, 1.0)
    config.optim.base_lr = 0.2  # of a linear head; 4e-3 for the others
    config.optim.b2 = 0.999
    config.optim.warmup_epochs = 1
    config.method.encoder = encoder
    config.method.head_width = 32
    config.log.pictures = 0
    # The best step by held-out training images is scored, once, on the test images.
    config.eval.every = 62
    config.eval.choose_best = True
    config.eval.validation_split = "train[90%:]"
    config.eval.baselines = False
    return config
