"""Linear probe on CIFAR-10; behind the colon stands the encoder, a run.

    python -m sgmae_jax.main --config linear_probe_tiny_cifar10:runs/mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/linear_probe_tiny_cifar10

MAE's recipe, made short: 10 epochs of batches of 512. LARS moves the weights by shares
of themselves, so what counts is the peak of its rate: it is MAE's 6.4, not what a batch
of 512 would scale it down to. Crops are mild, as the pictures are small already.
Without the colon the encoder is a random one: the floor.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_tiny_cifar10", "linear_probe")
    config.epochs = 10
    config.data.batch_size = 512
    config.data.crop_scale = (0.6, 1.0)
    config.data.crop_clip = True
    config.model.positions = "learned"
    config.optim.base_lr = 3.2
    config.optim.warmup_epochs = 1
    config.optim.weight_decay = 0.0
    # The best step by held-out training images is scored, once, on the test images.
    config.eval.every = 90
    config.eval.choose_best = True
    config.eval.fit_split = "train[:95%]"
    config.eval.validation_split = "train[95%:]"
    config.eval.split = "test"
    config.method.encoder = encoder
    return config
