"""Where a step's time goes: grouping, and what the compiled step copies."""

import jax
import pytest

from benchmarks.bare import Sizes
from benchmarks.ours import Trainer, config_of
from benchmarks.overheads import Size
from benchmarks.trace import (
    OTHER,
    Event,
    around_save,
    big_copies,
    group_of,
    own_seconds,
    places,
    trace_ours,
)

SIZES = Sizes(16, 4, 24, 2, 2, 16, 1, 2)


def test_what_lies_inside_is_not_counted_twice():
    events = [
        Event("loop", 0, 10e9),
        Event("product", 1e9, 2e9),
        Event("product", 4e9, 3e9),
        Event("sum", 5e9, 1e9),  # inside the second product
        Event("after", 10e9, 1e9),
    ]
    spent = own_seconds(events)
    assert spent == pytest.approx({"loop": 5, "product": 4, "sum": 1, "after": 1})


@pytest.mark.parametrize(
    "place, group",
    [
        ("while/body/closed_call/blocks/attn/dot_general", "attention"),
        ("while/body/closed_call/blocks/attn/div", "attention"),
        ("while/body/closed_call/blocks/attn/qkv/qkv/dot_general", "dense products"),
        ("while/body/closed_call/blocks/mlp/erf", "GELU"),
        ("while/body/closed_call/blocks/norm2/rsqrt", "norms"),
        ("transpose(jvp(Encoder))/Encoder.run_blocks/broadcast_in_dim", None),
        ("jit(on_mesh)/cond/branch_1_fun/sqrt", "optimizer and guard"),
        ("jit(on_mesh)/transpose", OTHER),
        ("", OTHER),
    ],
)
def test_groups_by_place(place, group):
    assert group_of(place) == (group or "zeros of stacks")


PROGRAM = """HloModule step

%fused (p0: f32[2,3], p1: f32[3,4]) -> f32[2,4] {
  %p0 = f32[2,3]{1,0} parameter(0)
  %p1 = f32[3,4]{1,0} parameter(1)
  %dot.1 = f32[2,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}, metadata={op_name="blocks/attn/qkv/transpose"}
  ROOT %exp.1 = f32[2,4]{1,0} exponential(%dot.1), metadata={op_name="blocks/norm1/exp"}
}

ENTRY %main (a: f32[2,3], b: f32[3,4]) -> f32[2,4] {
  %a = f32[2,3]{1,0} parameter(0)
  %b = f32[3,4]{1,0} parameter(1)
  %copy.1 = f32[2,3]{1,0} copy(%a)
  ROOT %fusion.1 = f32[2,4]{1,0} fusion(%copy.1, %b), kind=kLoop, calls=%fused, \
metadata={op_name="blocks/norm1/exp"}
}
"""


def test_a_fusion_belongs_to_the_product_in_it():
    found = places(PROGRAM)
    assert group_of(found["fusion.1"]) == "dense products"
    assert found["exp.1"] == "blocks/norm1/exp" and found["copy.1"] == ""


def test_copies_of_at_least_a_size():
    assert big_copies(PROGRAM, 24) == [24]
    assert big_copies(PROGRAM, 25) == []


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a trace of a CPU")
def test_a_step_is_traced_by_groups():
    found = trace_ours(SIZES, 8, "float32", steps=2)
    groups = found["thread_ms"]
    assert {"attention", "dense products", "norms", "masks"} <= groups.keys()
    assert min(groups.values()) >= 0
    # Beside other work threads wait inside their events, so only this much is sure.
    assert groups["dense products"] > 0 and found["wall_ms"] > 0


def test_steps_around_a_save(capsys):
    around_save(Size(SIZES, 8, 2, 4))
    text = capsys.readouterr().out
    assert text.count("page_faults") == 6 and "written_after_ms" in text


@pytest.mark.parametrize("method", ["mae", "rc_mae", "dbot", "self_guided"])
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="branches on a CPU alone")
def test_the_step_copies_nothing_of_its_state(method):
    """Guard and averages work in place; each copy would be traffic in every step."""
    sizes = Sizes(32, 4, 128, 2, 2, 128, 1, 2)
    trainer = Trainer(config_of(sizes, 8, method=method), sizes)
    compiled = trainer.lower().compile()
    # The larger ones of the weights: 2 layers of 128 x 384 and more.
    assert big_copies(compiled.as_text(), 390_000) == []
