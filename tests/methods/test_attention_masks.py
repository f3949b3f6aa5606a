"""A teacher's attention as another run's mask."""

import jax
import numpy as np
import pytest

from sgmae_jax.main import main
from sgmae_jax.masking import Context, MaskError, attention_mask, check_mask_fn
from sgmae_jax.methods import attention_masks
from sgmae_jax.methods.attention_masks import teacher_attention
from sgmae_jax.methods.frozen import read_run
from sgmae_jax.methods.image import make_autoencoder
from tests import tiny
from tests.conftest import quickly
from tests.masking.generators import keys_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mae"
    with quickly():
        assert main(tiny.arguments(folder, steps=2)) == 0
    return folder


@pytest.mark.usefixtures("quick_compilation")
def test_it_is_the_mask_of_the_teacher_s_attention(run):
    images = np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32)
    keys, options = keys_of(0, range(4)), {"ratio": 0.5, "heads": "random_mix"}
    found = teacher_attention(
        keys, Context(grid=(4, 4), images=images), run=str(run), layer=1, **options
    )
    config, method, params = read_run(run)
    model = make_autoencoder(config)
    layer = model.layer({"encoder": method.encoder(params)}, images, 1)
    context = Context(grid=(4, 4), attention=layer.attention)
    wanted = attention_mask(keys, context, **options)
    np.testing.assert_array_equal(found.hidden, wanted.hidden)
    jitted = jax.jit(
        lambda images: teacher_attention(
            keys, Context(grid=(4, 4), images=images), run=str(run), **options
        )
    )
    np.testing.assert_array_equal(jitted(images).hidden, wanted.hidden)


@pytest.mark.usefixtures("quick_compilation")
def test_another_run_takes_its_masks_by_name(run, tmp_path):
    given = {
        "mask__fn": "sgmae_jax.methods.attention_masks:teacher_attention",
        "mask__options": {"run": str(run), "mask_self": True},
        "mask__ratio": 0.5,
        "steps": 2,
    }
    assert main(tiny.arguments(tmp_path / "run", **given)) == 0


def test_what_is_no_teacher(run, tmp_path):
    options = {"run": str(tmp_path)}
    with pytest.raises(MaskError, match="must be a run directory"):
        check_mask_fn(
            teacher_attention,
            grid=(4, 4),
            ratio=0.5,
            options=options,
            image_shape=(16, 16, 3),
        )
    images = np.zeros((2, 32, 16, 3), np.float32)
    with pytest.raises(MaskError, match="has a grid of"):
        teacher_attention(
            keys_of(0, range(2)),
            Context(grid=(8, 4), images=images),
            ratio=0.5,
            run=str(run),
        )
    with pytest.raises(ValueError, match="needs images"):
        teacher_attention(
            keys_of(0, range(2)), Context(grid=(4, 4)), ratio=0.5, run=str(run)
        )
    assert attention_masks._teacher.cache_info().currsize
