"""Every method's training step lowers for TPU and CUDA, at size, on 256 devices.

Lowering is what this machine can do of compiling for another: it finds operations that
a platform lacks, calls to the host, and shardings that do not fit. The accelerator's
own compiler, its memory and its speed it does not see.
"""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from sgmae_jax.methods import METHODS
from sgmae_jax.methods.mlo_mae import PRESETS
from sgmae_jax.models.attention import library_attention
from sgmae_jax.models.layers import matmul_attention
from tests.pods import (
    Case,
    Lowering,
    calls_in,
    leaves_over_fsdp,
    lower,
    pod,
    shapes_of,
)

BOTH = ("tpu", "cuda")
MAE = "mae_vit_b_imagenet"
CASES = {
    "mae": Case(MAE),
    "self_guided": Case("self_guided_vit_b_imagenet"),
    "rc_mae": Case("rc_mae_vit_b_imagenet"),
    "dbot": Case("dbot_vit_b_imagenet"),
    "lc_mae": Case("lc_mae_vit_b_imagenet"),
    "local_siamese": Case(MAE, "local_siamese"),
    "cl_mae": Case("cl_mae_vit_b_imagenet"),
    "automae": Case("automae_vit_b_imagenet"),
    "mlo_mae": Case("mlo_mae_vit_b_imagenet"),
    "supervised_mae": Case("supervised_mae_vit_b_imagenet"),
    "finetune": Case("finetune_vit_b_imagenet"),
    "linear_probe": Case("linear_probe_vit_b_imagenet"),
    "segment": Case("segment_vit_b_ade20k"),
    "sma": Case("sma_higgs"),
    "sma_finetune": Case("sma_finetune_higgs"),
    "forecast_mae": Case("forecast_mae_argoverse2"),
    "forecast": Case("forecast_argoverse2"),
}


def _with(name, **changes):
    fields = tuple((k.replace("__", "."), v) for k, v in changes.items())
    return CASES[name]._replace(changes=fields)


VARIANTS = {
    "ratio that grows": _with("mae", mask__ratio=0.6, mask__ratio_end=0.9),
    "micro-batches": _with("mae", optim__accumulate=4),
    "huge": _with("mae", model__preset="vit_h", model__patch_size=14),
    "bank": _with("self_guided", method__refresh="bank"),
    "interval": _with("self_guided", method__refresh="interval"),
    "ema": _with("self_guided", method__guide="ema"),
    "snapshot": _with("self_guided", method__guide="snapshot"),
    "exploitation": _with("self_guided", method__begin_by="exploitation"),
    "teacher without blocks": _with("dbot", method__teacher_depths=(0, None)),
    "two crops": _with("lc_mae", method__other_view="crop"),
    "mean teacher": _with("local_siamese", method__target="ema"),
    "released": _with(
        "mlo_mae", **{f"method__{k}": v for k, v in PRESETS["released"].items()}
    ),
    "hessian": _with("mlo_mae", method__curvature="hessian", method__iterations=20),
    "texts": Case("sma_smiles"),
    "images as tokens": Case("sma_tiny_cifar10"),
}


def _check(lowering: Lowering, platforms: tuple[str, ...]) -> list[str]:
    """Lowers all that training runs; the names of what was lowered."""
    names = []
    for name, function, arguments in lowering.programs():
        found = lower(function, arguments, platforms)
        names.append(name)
        exported = found.exported
        assert exported.platforms == platforms
        assert exported.nr_devices == lowering.mesh.size == 256
        if not name.startswith("step"):
            continue
        state, batches, _ = arguments
        leaves = shapes_of(state)
        assert shapes_of(exported.in_avals) == leaves + shapes_of(batches)
        assert shapes_of(exported.out_avals)[: len(leaves)] == leaves
        metrics = exported.out_avals[len(leaves) :]
        assert len(metrics) > 3 and {one.shape for one in metrics} == {()}
        assert found.donated == len(leaves)
        divided = leaves_over_fsdp(lowering.shardings)
        own = {k: v for k, v in found.arguments.items() if k.startswith("state")}
        assert sum('"fsdp"' in text for text in own.values()) == divided
        assert sum('"fsdp"' in text for text in found.results) == divided
        fed = [text for k, text in found.arguments.items() if k.startswith("batches")]
        assert fed and all('"data", "fsdp"' in text for text in fed)
    return names


def test_no_method_is_left_out():
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("name", CASES)
def test_lowers_for_both_on_a_divided_state(name, tmp_path):
    lowering = Lowering(CASES[name], pod(32, 8), tmp_path)
    names = _check(lowering, BOTH)
    assert len(set(names)) == len(names)
    # All but two percent of the bytes are divided; the rest is too small to matter.
    sizes = zip(
        jax.tree.leaves(lowering.state),
        jax.tree.leaves(lowering.shardings),
        strict=True,
    )
    whole = sum(
        np.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf, place in sizes
        if "fsdp" not in place.spec
    )
    total = sum(
        np.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(lowering.state)
    )
    assert whole < 0.02 * total
    if name == "self_guided":
        assert sum(one.startswith("step") for one in names) == 2 and "monitor" in names


@pytest.mark.slow
@pytest.mark.parametrize("platform", BOTH)
@pytest.mark.parametrize("name", CASES)
def test_lowers_alone_on_a_whole_state(name, platform, tmp_path):
    lowering = Lowering(CASES[name], pod(256, 1), tmp_path)
    assert leaves_over_fsdp(lowering.shardings) == 0
    _check(lowering, (platform,))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_lower(name, tmp_path):
    lowering = Lowering(VARIANTS[name], pod(32, 8), tmp_path)
    names = _check(lowering, BOTH)
    many = {"ratio that grows", "bank", "interval", "teacher without blocks"}
    assert (sum(one.startswith("step") for one in names) > 1) == (
        name in many | {"ema", "snapshot", "exploitation"}
    )
    assert ("sweep" in names) == (name == "bank")


def test_lowers_with_attention_of_cudnn(tmp_path, monkeypatch):
    # Without a GPU there is no library whose version could be asked for.
    monkeypatch.setattr(
        "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000
    )
    case = _with("mae", model__attention="cudnn", model__dtype="bfloat16")
    # Its partitioning rules are called by the compiler: the devices must be real, and
    # on more than one it cannot be exported, only lowered.
    found = {}
    for devices in (1, 8):
        mesh = jax.make_mesh(
            (devices, 1),
            ("data", "fsdp"),
            (AxisType.Auto,) * 2,
            devices=jax.devices()[:devices],
        )
        (_, step, arguments), *_ = Lowering(case, mesh, tmp_path).programs()
        lowered = step.trace(*arguments).lower(lowering_platforms=("cuda",))
        found[devices] = calls_in(lowered.as_text())
    assert found[1] == {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}
    assert found[8] == {"CustomSPMDPartitioning"}


def test_tokens_added_for_cudnn_change_nothing(monkeypatch):
    # 197 tokens are odd. The library's other kernel takes the same arguments.
    library = jax.nn.dot_product_attention

    def stand_in(query, *rest, implementation, **given):
        assert implementation == "cudnn" and query.shape[1] % 2 == 0
        return library(query, *rest, implementation="xla", **given)

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    qkv = jax.random.normal(jax.random.key(0), (2, 7, 3, 2, 8))

    def total(attend, qkv):
        out = attend(qkv)
        return (out * jax.numpy.arange(out.size).reshape(out.shape)).sum()

    ours = jax.value_and_grad(lambda x: total(_cudnn, x))(qkv)
    theirs = jax.value_and_grad(lambda x: total(_matmul, x))(qkv)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, theirs)


def _cudnn(qkv):
    return library_attention(qkv, None, "cudnn")


def _matmul(qkv):
    return matmul_attention(qkv, None)[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: jax.debug.callback(print, x),
        lambda x: jax.debug.print("{}", x),
        lambda x: jax.pure_callback(np.asarray, jax.typeof(x), x),
    ],
    ids=["callback", "print", "pure_callback"],
)
def test_a_call_to_the_host_is_found(call, tmp_path):
    lowering = Lowering(CASES["linear_probe"], pod(32, 8), tmp_path)
    method = lowering.method

    def prepare(params, batches, key, step, phase):
        call(step)
        return method.prepare(params, batches, key, step, phase)

    lowering.method = method._replace(prepare=prepare)
    (_, step, arguments), *_ = lowering.programs()
    with pytest.raises(AssertionError, match="needs the host"):
        lower(step, arguments, BOTH)


def test_what_only_a_cpu_has_is_found():
    matrix = jax.ShapeDtypeStruct((8, 8), np.float32)
    with pytest.raises(AssertionError, match="lapack"):
        lower(jax.jit(jax.numpy.linalg.eigh), (matrix,), ("cpu",))
