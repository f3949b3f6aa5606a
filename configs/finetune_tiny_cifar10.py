"""Fine-tuning on CIFAR-10; behind the colon stands the pre-trained encoder, a run.

    python -m sgmae_jax.main --config mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/mae_tiny_cifar10
    python -m sgmae_jax.main --config finetune_tiny_cifar10:runs/mae_tiny_cifar10 \
        --config.data.path=cifar10.zip --workdir runs/finetune_tiny_cifar10

Without the colon the same network is trained from a random start. Scores of ours:
docs/results.md.

Five epochs do not overfit, so crops, flips and smoothing are all there is. For tens of
epochs try `method.mixup=0.8`, `method.cutmix=1.0`, `method.erase=0.25` and
`data.rand_augment=(9,0.5)`, as finetune_vit_b_imagenet has them.
"""

from sgmae_jax.config import shipped


def get_config(encoder=""):
    config = shipped("mae_tiny_cifar10", "finetune")
    config.epochs = 5
    config.data.crop_scale = (0.6, 1.0)
    config.model.positions = "learned"
    config.optim.base_lr = 1e-3
    config.optim.b2 = 0.999
    config.optim.warmup_epochs = 0.5
    config.optim.weight_decay = 0.05
    # The best step by held-out training images is scored, once, on the test images.
    config.eval.every = 90
    config.eval.choose_best = True
    config.eval.fit_split = "train[:95%]"
    config.eval.validation_split = "train[95%:]"
    config.eval.split = "test"
    config.method.encoder = encoder
    config.method.layer_decay = 0.75
    config.method.label_smoothing = 0.1
    return config
