"""Confusion, IoU and accuracy of pixels against loops, scikit-learn, closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgmae_jax.data import BadImage, eval_image, shown_segments
from sgmae_jax.evaluation import (
    class_iou,
    confusion,
    mean_iou,
    pixel_accuracy,
    score_segments,
)


def maps(seed, classes, unlabelled=True):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, (3, 5, 4))
    predicted = np.where(rng.random(true.shape) < 0.6, true, true[::-1])
    if unlabelled:
        true = np.where(rng.random(true.shape) < 0.2, 255, true)
    return predicted, true


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_counts_are_those_of_a_loop(seed, classes):
    predicted, true = maps(seed, classes)
    wanted = np.zeros((classes, classes), int)
    for told, right in zip(predicted.ravel(), true.ravel(), strict=True):
        if right != 255:
            wanted[right, told] += 1
    found = confusion(predicted, true, classes)
    np.testing.assert_array_equal(found, wanted)
    for one in range(classes):
        told, right = predicted == one, true == one
        both = np.sum(told & right)
        either = np.sum((told & (true != 255)) | right)
        if either:
            assert class_iou(found)[one] == both / either
        else:
            assert np.isnan(class_iou(found)[one])
    labelled = true != 255
    share = (predicted == true)[labelled].mean()
    np.testing.assert_allclose(pixel_accuracy(found), share)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_that_of_scikit_learn(seed):
    """Its macro average is over the classes in truth or prediction as well."""
    metrics = pytest.importorskip("sklearn.metrics")
    predicted, true = maps(seed, 4, unlabelled=False)
    predicted, true = predicted * 2, true * 2  # the odd classes never occur
    wanted = metrics.jaccard_score(true.ravel(), predicted.ravel(), average="macro")
    assert mean_iou(confusion(predicted, true, 9)) == pytest.approx(wanted)


def test_closed_forms():
    true = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 255])
    perfect = confusion(np.where(true == 255, 1, true), true, 4)
    assert mean_iou(perfect) == pixel_accuracy(perfect) == 1.0
    background = confusion(np.zeros_like(true), true, 4)
    # Background 6 / 9; the others in truth 0; class 3 is nowhere and not counted.
    assert mean_iou(background) == pytest.approx(6 / 9 / 3)
    assert pixel_accuracy(background) == pytest.approx(6 / 9)
    # A class that is predicted, but never true, counts.
    told = confusion(np.where(true == 1, 3, true % 255), true, 4)
    assert mean_iou(told) == pytest.approx((1 + 0 + 1 + 0) / 4)
    nothing = confusion(np.zeros(3, int), np.full(3, 255), 4)
    assert np.isnan(mean_iou(nothing)) and np.isnan(pixel_accuracy(nothing))


@pytest.mark.parametrize(
    ("predicted", "true", "message"),
    [
        ([0, 3], [0, 1], r"predicted classes must lie in \[0, 3\), got 0 to 3"),
        ([0, -1], [0, 1], "predicted classes"),
        ([0, 1], [0, 3], r"true classes must lie in \[0, 3\), got 0 to 3"),
        ([0, 1], [0], "shapes differ"),
    ],
)
def test_what_cannot_be_counted(predicted, true, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(predicted), np.array(true), 3)


class Scenes:
    """Pixels whose brightness is 50 times their class; item 2 is damaged."""

    name = "scenes"
    classes = ("unlabelled",)
    pixel_classes = ("a", "b", "c")

    def __init__(self, bad=(2,)):
        self.bad = bad

    def __len__(self):
        return 7

    def __getitem__(self, index):
        if index in self.bad:
            raise BadImage(f"scene{index}", "damaged")
        rng = np.random.default_rng(index)
        blocks = rng.integers(0, 3, (2, 3), np.uint8)
        segments = blocks.repeat(6 + index, 0).repeat(8, 1)
        image = np.repeat(segments[..., None] * np.uint8(50), 3, -1)
        return {"image": image, "label": -1, "segments": segments}

    def fingerprint(self):
        return "x"


def told(images):
    return np.minimum(np.round(images[..., 0] / 50), 2).astype(int)


def test_a_source_is_scored_over_its_evaluation_crops():
    shapes, size = set(), (8, 12)

    def predict(images):
        shapes.add(images.shape)
        return told(images)

    options = {"image_size": size, "crop": 0.7}
    found = score_segments(predict, Scenes(), batch_size=4, **options)
    assert shapes == {(4, 8, 12, 3)} and found.bad == ("scene2",)
    wanted = np.zeros((3, 3), int)
    for index in (0, 1, 3, 4, 5, 6):
        item = Scenes()[index]
        shown = eval_image(item["image"], size, 0.7)
        true = shown_segments(item["segments"], shown.view, size)
        wanted += confusion(told(shown.image), true, 3)
    np.testing.assert_array_equal(found.confusion, wanted)
    assert found.confusion.sum() == 6 * 8 * 12
    scores = found.as_scores()
    assert scores == {
        "miou": mean_iou(wanted),
        "pixel_accuracy": pixel_accuracy(wanted),
    }
    assert scores["miou"] > 0.8  # what the resizing blurs is lost
    part = score_segments(predict, Scenes(()), batch_size=4, limit=3, **options)
    assert part.confusion.sum() == 3 * 8 * 12


def test_sources_that_cannot_be_scored():
    options = {"image_size": (8, 12), "batch_size": 4}
    with pytest.raises(ValueError, match="no readable item"):
        score_segments(told, Scenes(range(7)), **options)
    with pytest.raises(ValueError, match="predicted classes must lie in"):
        score_segments(lambda images: told(images) + 1, Scenes(), **options)
    other = Scenes()
    other.pixel_classes = ()
    with pytest.raises(ValueError, match="no classes of pixels"):
        score_segments(told, other, **options)
