import math
import re
import xml.etree.ElementTree as xml

import pytest

from sgmae_jax.analysis.charts import line_chart, percent, short


def strokes(figure):
    """Points of every stroke drawn, in pixels of the SVG."""
    svg = xml.fromstring(figure).find("svg")
    paths = [p.get("d") for g in svg.findall("g") for p in g.findall("path")]
    return [
        [tuple(map(float, point.split(","))) for point in stroke.split("L")]
        for path in paths
        for stroke in re.findall(r"M([^M]+)", path)
    ]


def numbers(figure):
    return [text.text for text in xml.fromstring(figure).find("svg").findall("text")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0523, "0.0523"),
        (0.30000000000000004, "0.3"),
        (1.5e-4, "1.5e-4"),
        (1e-5, "1e-5"),
        (999.6, "1000"),
        (12345.6, "12 346"),
        (2.5e9, "2.5e9"),
        (-3.14159, "-3.14"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_short(value, text):
    assert short(value) == text


def test_percent():
    assert percent(0.7334) == "73.3 %" and percent(1) == "100 %"


def test_a_line_goes_where_its_numbers_say():
    figure = line_chart("Loss", {"last": [(0, 10.0), (50, 5.0), (100, 0.0)]})
    ((a, b, c),) = strokes(figure)
    assert a[0] < b[0] < c[0] and a[1] < b[1] < c[1]
    assert b[0] == pytest.approx((a[0] + c[0]) / 2, abs=0.2)
    assert b[1] == pytest.approx((a[1] + c[1]) / 2, abs=0.2)
    assert {"0", "50", "100", "4", "10"} <= set(numbers(figure))
    assert "step" in numbers(figure)


def test_numbers_that_are_not_finite_leave_a_gap_and_are_counted():
    bad = [math.nan, math.inf, 1e308, -1e308]
    values = [1.0, 2.0, *bad, 3.0, 4.0, math.nan, 5.0]
    figure = line_chart("Loss", {"last": list(enumerate(values))})
    assert [len(stroke) for stroke in strokes(figure)] == [2, 2]
    assert "5 not finite" in figure
    # The lone point is a dot.
    assert len(xml.fromstring(figure).findall("svg/g/circle")) == 5
    assert "nan" not in figure and "inf" not in figure


@pytest.mark.parametrize(
    "points", [[], [(1, math.nan)], [(1, math.inf), (2, math.nan)]]
)
def test_nothing_finite_draws_nothing(points):
    assert line_chart("Loss", {"last": points}) == ""


@pytest.mark.parametrize("value", [0.0, 1e-12, 3.0, -7.0, 1e12])
def test_constants_and_single_points(value):
    for points in ([(5, value)], [(5, value), (10, value)]):
        figure = line_chart("x", {"last": points})
        ys = [
            float(c.get("cy")) for c in xml.fromstring(figure).findall("svg/g/circle")
        ]
        assert len(ys) == len(points) and all(0 < y < 214 for y in ys)


def test_what_is_never_negative_has_no_negative_axis():
    for values in ([0.0, 0.0], [0.0, 1.0], [0.01, 5.0]):
        figure = line_chart("x", {"last": list(enumerate(values))})
        assert not any(text.startswith("-") for text in numbers(figure))
    figure = line_chart("x", {"last": [(0, -1.0), (1, 1.0)]})
    assert any(text.startswith("-") for text in numbers(figure))


def test_many_points_are_thinned_to_means():
    points = [(i, float(i % 2)) for i in range(30_000)]
    figure = line_chart("x", {"last": points})
    ((*thin,),) = strokes(figure)
    assert len(thin) == 300
    heights = {round(y) for _, y in thin}
    assert len(heights) == 1 and len(figure) < 20_000


def test_thinning_keeps_what_is_finite():
    points = [(i, math.nan if i % 3 else 1.0) for i in range(3000)]
    ((*thin,),) = strokes(line_chart("x", {"last": points}))
    assert len(thin) == 300


def test_several_series_and_names_are_escaped():
    figure = line_chart(
        "<b>&", {"a<b": [(0, 0.25), (1, 0.5)], "c": [(0, 0.1), (1, 0.75)]}, form=percent
    )
    tree = xml.fromstring(figure)
    assert tree.find("figcaption/h3").text == "<b>&"
    assert [key.text for key in tree.findall("figcaption/span")] == ["a<b ", "c "]
    assert [key.text for key in tree.findall("figcaption/span/b")] == ["50 %", "75 %"]
    label = tree.find("svg").get("aria-label")
    assert "a<b: 25 % at step 0 to 50 % at step 1" in label
    assert len(strokes(figure)) == 2
