"""The contenders of `benchmarks.input`: one epoch of batches each, and one window.

Every one draws a crop of 20 to 100 % of the area, ratio 3/4 to 4/3, resizes it with an
antialiased bicubic filter to 224 pixels and mirrors half of them.
"""

from __future__ import annotations

import io
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from sgmae_jax.data import AugmentConfig, ImageRows, Loader, open_source
from sgmae_jax.data.augment import crop_box

SIZE, BATCH = 224, 32
AUGMENT = AugmentConfig()
Window = tuple[int, int, int, int]  # top, left, height, width


def plain_window(data: bytes, window: Window) -> np.ndarray:
    """The reference: Pillow decodes all, cuts the window out and resizes it."""
    top, left, height, width = window
    image = Image.open(io.BytesIO(data)).convert("RGB")
    part = image.crop((left, top, left + width, top + height))
    return np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


class Ours:
    """This project's loader.

    Args:
        root: holds train/CLASS/….jpg.
        options: of `open_source`.
    """

    def __init__(self, root: pathlib.Path, **options: Any):
        self._source = open_source("folder", path=str(root), **options)
        self._step = 0

    def batches(self, workers: int) -> tuple[Iterator[Any], int]:
        """An epoch; with threads also the batches that are ahead before and after it.

        The second number says how many to leave out of the timing in front: then as
        many are ready at the end as at the start.
        """
        loader = Loader(
            self._source,
            ImageRows((SIZE, SIZE), AUGMENT),
            batch_size=BATCH,
            seed=0,
            threads=workers,
        )
        first, count = self._step, loader.steps_per_epoch
        self._step += count
        if workers == 1:
            return map(loader.batch_at, range(first, first + count)), 0
        return itertools.islice(loader.iterate(first), count + 3), 3

    def mean_difference(self) -> float:
        """Mean absolute difference from the reference on the same windows, in 1/255."""
        loader = Loader(
            self._source,
            ImageRows((SIZE, SIZE), AUGMENT),
            batch_size=BATCH,
            seed=0,
        )
        batch = loader.batch_at(0)
        names = self._source._items  # type: ignore[attr-defined]
        files = self._source._files  # type: ignore[attr-defined]
        prefix = self._source._prefix  # type: ignore[attr-defined]
        found = []
        for image, view, place in zip(
            batch["image"], batch["view"], batch["id"], strict=True
        ):
            data = files.read(prefix + names[place])
            width, height = Image.open(io.BytesIO(data)).size
            (top, tall), (left, wide) = view.astype(float)
            if wide < 0:
                image, left, wide = image[:, ::-1], left + wide, -wide
            window = (top * height, left * width, tall * height, wide * width)
            whole = plain_window(data, tuple(round(side) for side in window))
            found.append(np.abs(image.astype(float) - whole).mean())
        return float(np.mean(found))


class Draws:
    """Random access to files with a crop drawn, for Grain."""

    def __init__(self, files: list[pathlib.Path]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> bytes:
        return self._files[index].read_bytes()


def grain_crop(data: bytes, rng: np.random.Generator) -> np.ndarray:
    """Pillow plain: what a user of Grain writes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    top, left, height, width = crop_box(rng, image.height, image.width, AUGMENT)
    part = image.crop((left, top, left + width, top + height))
    pixels = np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


class Grain:
    """Grain's data sets over Pillow; workers are its reading threads."""

    def __init__(self, root: pathlib.Path):
        import grain

        files = sorted(root.glob("train/*/*"))
        self._grain = grain
        self._set = grain.MapDataset.source(Draws(files)).seed(0).shuffle()
        self._set = self._set.random_map(grain_crop).batch(BATCH, drop_remainder=True)

    def batches(self, workers: int) -> tuple[Iterator[Any], int]:
        """An epoch."""
        threads = 0 if workers == 1 else workers
        options = self._grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=2 * threads
        )
        return iter(self._set.to_iter_dataset(options)), 0


class Torch:
    """PyTorch's DataLoader over torchvision's ImageFolder and transforms."""

    def __init__(self, root: pathlib.Path):
        import torch
        from torchvision import datasets
        from torchvision.transforms import InterpolationMode, v2

        torch.set_num_threads(1)
        steps = [
            v2.RandomResizedCrop(
                SIZE, scale=(0.2, 1.0), interpolation=InterpolationMode.BICUBIC
            ),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
        images = datasets.ImageFolder(str(root / "train"), v2.Compose(steps))

        def loader(workers: int):
            return torch.utils.data.DataLoader(
                images,
                BATCH,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )

        self._loaders = {1: loader(0), 2: loader(2)}
        # Forked before other libraries have threads, and kept.
        next(iter(self._loaders[2]))

    def batches(self, workers: int) -> tuple[Iterator[Any], int]:
        """An epoch: in this process for one worker, else in processes of its own."""
        return iter(self._loaders[workers]), 0

    def window(self, data: bytes, window: Window) -> np.ndarray:
        """A given window."""
        from torchvision.transforms import InterpolationMode, functional

        image = Image.open(io.BytesIO(data)).convert("RGB")
        bicubic = InterpolationMode.BICUBIC
        shown = functional.resized_crop(image, *window, [SIZE, SIZE], bicubic)
        return np.asarray(shown)


class Tfds:
    """TFDS' ImageFolder, or its files through tf.data with decoding of the crop alone.

    Args:
        root: as for `Ours`.
        cropped: decode no more than the window (`decode_and_crop_jpeg`).
    """

    def __init__(self, root: pathlib.Path, *, cropped: bool):
        import tensorflow as tf
        import tensorflow_datasets as tfds

        self._tf, self._cropped = tf, cropped
        if cropped:
            files = sorted(map(str, root.glob("train/*/*")))
            self._set = tf.data.Dataset.from_tensor_slices(files)
        else:
            builder = tfds.folder_dataset.ImageFolder(str(root))
            self._set = builder.as_dataset(split="train", shuffle_files=True)
            # Decoded pixels; TFDS reads and decodes them in parallel by itself.

    def _resized(self, part: Any) -> Any:
        tf = self._tf
        shown = tf.image.resize(part, (SIZE, SIZE), "bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(shown), 0, 255), tf.uint8)

    def _varied(self, item: Any) -> Any:
        tf = self._tf
        data = tf.io.read_file(item) if self._cropped else item["image"]
        shape = tf.io.extract_jpeg_shape(data) if self._cropped else tf.shape(data)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.zeros((1, 0, 4)),
            area_range=(0.2, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        (top, left, _), (height, width, _) = (tf.unstack(x) for x in (begin, size))
        if self._cropped:
            window = tf.stack([top, left, height, width])
            part = tf.image.decode_and_crop_jpeg(
                data, window, channels=3, dct_method="INTEGER_ACCURATE"
            )
        else:
            part = data[top : top + height, left : left + width]
        return tf.image.random_flip_left_right(self._resized(part))

    def batches(self, workers: int) -> tuple[Iterator[Any], int]:
        """An epoch, in so many threads."""
        tf = self._tf
        options = tf.data.Options()
        options.threading.private_threadpool_size = workers
        options.threading.max_intra_op_parallelism = 1
        made = self._set.shuffle(256).map(self._varied, num_parallel_calls=workers)
        made = made.batch(BATCH, drop_remainder=True).prefetch(1)
        return made.with_options(options).as_numpy_iterator(), 0

    def window(self, data: bytes, window: Window) -> np.ndarray:
        """A given window."""
        tf, (top, left, height, width) = self._tf, window
        if self._cropped:
            part = tf.image.decode_and_crop_jpeg(
                data, window, channels=3, dct_method="INTEGER_ACCURATE"
            )
        else:
            whole = tf.io.decode_image(data, channels=3)
            part = whole[top : top + height, left : left + width]
        return self._resized(part).numpy()
