"""What is measured on an accelerator, at full size and for a try on a CPU."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.bare import Sizes
from benchmarks.step import BASE_224, CIFAR

SMALL_224 = Sizes(224, 16, 384, 12, 6, 512, 8, 16)
LARGE_224 = Sizes(224, 16, 1024, 24, 16, 512, 8, 16)


class Variant(NamedTuple):
    """How our step is configured; as it comes, but for bfloat16."""

    remat: str = "dots"
    attention: str = "matmul"
    dtype: str = "bfloat16"

    @property
    def name(self) -> str:
        return f"ours, {self.dtype}, remat {self.remat}, {self.attention}"


# Of the main comparison: the default, and what may be faster where memory is plenty.
VARIANTS = (
    Variant(),
    Variant(attention="cudnn"),
    Variant(remat="none"),
    Variant("none", "cudnn"),
)


class Case(NamedTuple):
    """A model and a batch.

    Attributes:
        name: as people call the model.
        sizes: of it.
        batch: images a step.
        compiled: whether the authors' step is compiled for it too.
    """

    name: str
    sizes: Sizes
    batch: int
    compiled: bool = False


class Plan(NamedTuple):
    """All sizes of one run.

    Attributes:
        main: what is compared most closely.
        others: further models and batches, the most telling first.
        steps: a timing waits for so many at once, as training does.
        rounds: of timings.
        matmul: side of the square matrices that show what the device can do.
        attention: (batch, tokens, heads, values a head).
        graphs: how many are cut at once.
        levels: the model of hypergradients.
        solvers: names in `benchmarks.hypergradient.SOLVERS`.
        outer: sizes and batch of MLO-MAE.
        loader: batch.
    """

    main: Case
    others: tuple[Case, ...]
    steps: int
    rounds: int
    matmul: int
    attention: tuple[tuple[int, int, int, int], ...]
    graphs: tuple[int, ...]
    levels: Sizes
    solvers: tuple[str, ...]
    outer: tuple[Sizes, int]
    loader: int


FULL = Plan(
    main=Case("ViT-B/16", BASE_224, 256),
    others=(
        Case("ViT-L/16", LARGE_224, 128, compiled=True),
        Case("ViT-S/16", SMALL_224, 256, compiled=True),
        Case("ViT-B/16", BASE_224, 512),
        Case("ViT-B/16", BASE_224, 64),
        Case("ViT-L/16", LARGE_224, 256),
        Case("ViT-S/16", SMALL_224, 512),
    ),
    steps=10,
    rounds=5,
    matmul=8192,
    # Kept tokens and the class token, all of 224 pixels, all of 448; the decoder.
    attention=(
        *((256, 50, 12, 64), (256, 197, 12, 64), (64, 785, 12, 64)),
        (256, 197, 16, 32),
    ),
    graphs=(64, 256),
    levels=SMALL_224,
    # Those that take as many products wherever they start: nothing is at its minimum.
    solvers=("identity", "Neumann, 5", "Gauss-Newton CG, 5", "one step of AdamW"),
    outer=(BASE_224, 64),
    loader=256,
)
SMALL = Plan(
    main=Case("96x4", CIFAR, 8),
    others=(Case("48x2", CIFAR._replace(width=48, depth=2), 8, compiled=True),),
    steps=2,
    rounds=3,
    matmul=256,
    attention=((4, 17, 3, 32), (2, 65, 2, 32)),
    graphs=(4,),
    levels=Sizes(32, 8, 32, 2, 2, 16, 1, 2),
    solvers=("identity", "Gauss-Newton CG, 5"),
    outer=(CIFAR._replace(width=48, depth=2), 8),
    loader=16,
)
