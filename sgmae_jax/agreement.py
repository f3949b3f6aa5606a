"""What fields of a config must agree on: lengths, and what data and method ask for."""

from __future__ import annotations

import ml_collections

from sgmae_jax.config import ConfigError


def check_agreement(config: ml_collections.ConfigDict) -> None:
    """Checks the fields that must agree with each other; each alone is as it may be.

    Raises:
        ConfigError: the first thing that is wrong.
    """

    def need(good: bool, message: str) -> None:
        if not good:
            raise ConfigError(message)

    several = isinstance(config.eval.neighbours, tuple | list)
    chooses = {
        "neighbours": several and len(config.eval.neighbours) > 1,
        "choose_best": config.eval.choose_best,
    }
    for key, choice in chooses.items():
        need(
            not choice or config.eval.validation_split is not None,
            f"config.eval.{key} = {config.eval[key]}: must go with an "
            "eval.validation_split to choose on",
        )
    need(
        config.eval.patience is None or config.eval.choose_best,
        f"config.eval.patience = {config.eval.patience}: must go with eval.choose_best",
    )
    need(
        config.eval.patience is None or config.eval.every > 0,
        f"config.eval.patience = {config.eval.patience}: must go with eval.every > 0",
    )
    if config.task != "pretrain":
        return  # model, method and mask come from the checkpoint
    need(
        (config.steps is None) != (config.epochs is None),
        f"config.steps = {config.steps}, config.epochs = {config.epochs}: "
        "set exactly one of the two",
    )
    need(
        config.data.batch_size % config.optim.accumulate == 0,
        f"config.data.batch_size = {config.data.batch_size}: must be a multiple of "
        f"optim.accumulate = {config.optim.accumulate}",
    )
    need(
        not (config.model.attention == "cudnn" and config.model.dtype == "float32"),
        "config.model.attention = 'cudnn': must go with model.dtype = 'bfloat16'",
    )
    peak = config.optim.base_lr * config.data.batch_size / 256
    need(
        config.optim.min_lr <= peak,
        f"config.optim.min_lr = {config.optim.min_lr:g}: must be at most the peak, "
        f"base_lr * batch_size / 256 = {peak:g}",
    )
    if config.epochs is not None:
        need(
            config.optim.warmup_epochs < config.epochs,
            f"config.optim.warmup_epochs = {config.optim.warmup_epochs:g}: must be "
            f"less than epochs = {config.epochs}",
        )
    from sgmae_jax import domains, methods

    domains.of_config(config).check(config)
    check_method = getattr(methods.load(config.method.name), "check", None)
    if check_method is not None:
        check_method(config)
