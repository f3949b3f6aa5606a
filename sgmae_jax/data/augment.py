"""Crops, sizes and flips of single images; Pillow's bicubic filter throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from sgmae_jax.data.randaugment import RandAugment, rand_augment

Box = tuple[float, float, float, float]
# An array in any channels, or RGB as Pillow holds it: the same pixels for less work.
Picture = UInt8[np.ndarray, "H W C"] | Image.Image


@dataclass(frozen=True)
class AugmentConfig:
    """How training images vary.

    Attributes:
        scale: smallest and largest share of the area that a crop takes.
        ratio: smallest and largest width : height of a crop.
        flip: whether every second crop is mirrored left to right.
        clip: cut a crop that does not fit, instead of drawing again.
        rand_augment: what is done to a crop after that; None: nothing. Where it moves
            pixels, the view does not follow.
    """

    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    clip: bool = False
    rand_augment: RandAugment | None = None


class Shown(NamedTuple):
    """An image as it is shown, and where that lies in the source image.

    Attributes:
        image: pixels, 0 to 255.
        view: rows (vertical, horizontal), columns (offset, scale): what is shown at
            position p lies at offset + scale * p in the source image. Positions run
            from 0 to 1 along each axis; the scale of a mirrored axis is negative.
    """

    image: UInt8[np.ndarray, "h w C"]
    view: Float32[np.ndarray, "2 2"]


def _view(box: Box, height: int, width: int) -> Float32[np.ndarray, "2 2"]:
    """The view of a part (left, top, right, bottom) of an image; right may be left."""
    left, top, right, bottom = box
    rows = (top / height, (bottom - top) / height)
    return np.array((rows, (left / width, (right - left) / width)), np.float32)


def sides(image: Picture) -> tuple[int, int]:
    """Returns the height and width of an image, in pixels."""
    if isinstance(image, Image.Image):
        return image.height, image.width
    return image.shape[0], image.shape[1]


def _crop(image: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """Cuts out a part: a copy, beyond which no filter reaches."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _resize(
    image: Picture, size: tuple[int, int], box: Box | None = None
) -> UInt8[np.ndarray, "h w C"]:
    """Resizes the part (left, top, right, bottom) of an image, in any channels."""
    height, width = size
    if sides(image) == size and box in (None, (0, 0, width, height)):
        return np.asarray(image)
    if isinstance(image, Image.Image):
        return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box))
    if image.shape[2] == 3:
        part = Image.fromarray(image)
        return np.asarray(part.resize((width, height), Image.Resampling.BICUBIC, box))
    # One by one: Pillow knows no two or twelve channels, and would weigh the colours
    # by a fourth one.
    return np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(image[..., channel])).resize(
                    (width, height), Image.Resampling.BICUBIC, box
                )
            )
            for channel in range(image.shape[2])
        ],
        axis=-1,
    )


def crop_box(
    rng: np.random.Generator, height: int, width: int, config: AugmentConfig
) -> tuple[int, int, int, int]:
    """Draws the top, left, height and width of a random crop, in pixels.

    Ten tries at an area uniform in `scale` and a log-uniform ratio; if none fits into
    the image, the largest centred crop of an allowed ratio. With `clip`, the first one,
    whose sides are cut to those of the image.

    Reference:
        RandomResizedCrop of torchvision, as used by the authors of MAE; their own one,
        after BYOL, in util/crop.py, for the linear probe.
    """
    low, high = config.scale
    log_low, log_high = math.log(config.ratio[0]), math.log(config.ratio[1])
    # Drawn at once: ten calls into NumPy would cost more than the crop itself.
    draws = rng.random(40).tolist()
    for area, shape, down, right in zip(*[iter(draws)] * 4, strict=True):
        pixels = height * width * (low + (high - low) * area)
        ratio = math.exp(log_low + (log_high - log_low) * shape)
        crop_width = round(math.sqrt(pixels * ratio))
        crop_height = round(math.sqrt(pixels / ratio))
        if config.clip:
            crop_width, crop_height = min(crop_width, width), min(crop_height, height)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(down * (height - crop_height + 1))
            left = int(right * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_height, crop_width = height, width
    if width / height < config.ratio[0]:
        crop_height = max(1, round(width / config.ratio[0]))
    elif width / height > config.ratio[1]:
        crop_width = max(1, round(height * config.ratio[1]))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return top, left, crop_height, crop_width


def train_image(
    rng: np.random.Generator,
    image: Picture,
    image_size: tuple[int, int],
    config: AugmentConfig,
) -> Shown:
    """Returns a random crop, resized and perhaps mirrored and changed further.

    Args:
        rng: source of all chance; the caller derives it from the example's id.
        image: pixels, 0 to 255.
        image_size: (h, w) of the result, in pixels.
        config: how much crops vary.
    """
    top, left, height, width = crop_box(rng, *sides(image), config)
    resized = _resize(_crop(image, top, left, height, width), image_size)
    right = left + width
    if config.flip and rng.random() < 0.5:
        resized = resized[:, ::-1]
        left, right = right, left
    if config.rand_augment is not None:
        resized = rand_augment(rng, resized, config.rand_augment)
    box = (left, top, right, top + height)
    return Shown(resized, _view(box, *sides(image)))


def shown_segments(
    segments: UInt8[np.ndarray, "H W"],
    view: Float32[np.ndarray, "2 2"],
    image_size: tuple[int, int],
) -> UInt8[np.ndarray, "h w"]:
    """Returns the classes of the pixels that a view of an image shows.

    Each pixel shown has the class at its centre; classes are never mixed.

    Args:
        segments: class of every pixel of the source image.
        view: as in `Shown`.
        image_size: (h, w) of the result, in pixels.
    """
    places = []
    for (offset, scale), count, length in zip(
        view.astype(np.float64), image_size, segments.shape, strict=True
    ):
        centres = offset + scale * (np.arange(count) + 0.5) / count
        places.append(np.clip((centres * length).astype(np.intp), 0, length - 1))
    return segments[np.ix_(*places)]


def whole_image(image: Picture, image_size: tuple[int, int]) -> Shown:
    """Returns all of an image, stretched to (h, w) pixels."""
    height, width = sides(image)
    return Shown(
        _resize(image, image_size), _view((0, 0, width, height), height, width)
    )


def eval_image(
    image: Picture, image_size: tuple[int, int], crop: float = 0.875
) -> Shown:
    """Resizes an image to just cover (h, w) / crop and takes the centre.

    Args:
        image: pixels, 0 to 255.
        image_size: (h, w) of the result, in pixels.
        crop: share of the covered side that is kept, in (0, 1]; 0.875 makes 224 of
            256 pixels, 1.0 leaves an image of the right size as it is.

    Reference:
        Resize and CenterCrop of torchvision, as used by the authors of MAE.
    """
    height, width = sides(image)
    cover_height, cover_width = (int(side / crop) for side in image_size)
    if cover_height * width >= cover_width * height:
        cover_width = cover_height * width // height
    else:
        cover_height = cover_width * height // width
    top = round((cover_height - image_size[0]) / 2)
    left = round((cover_width - image_size[1]) / 2)
    # The crop is mapped back into the image and resized alone: the same pixels as
    # resizing all of it first, but a 1x20000 image needs no 256x5120000 one.
    box = (
        left * width / cover_width,
        top * height / cover_height,
        min(width, (left + image_size[1]) * width / cover_width),
        min(height, (top + image_size[0]) * height / cover_height),
    )
    return Shown(_resize(image, image_size, box), _view(box, height, width))
