"""Prepared TFDS image data sets, read at random without TensorFlow."""

from __future__ import annotations

import functools
import os
import pathlib
import re
from typing import Any

from sgmae_jax.data.errors import BadImage, DataError
from sgmae_jax.data.folder import UNLABELLED
from sgmae_jax.data.images import decode_image
from sgmae_jax.data.segments import count_classes, read_segments
from sgmae_jax.data.source import Example, digest

INFO = "dataset_info.json"
DEFAULT_FOLDER = "~/tensorflow_datasets"


def find_prepared(name: str, path: str) -> pathlib.Path:
    """Returns the folder of a prepared data set: [path/]name[/config]/version.

    Args:
        name: "set", "set/config", either with ":version" behind. The newest version
            is taken where none is named.
        path: the TFDS data folder, or the folder of the version itself; if empty,
            what $TFDS_DATA_DIR names, or `DEFAULT_FOLDER`.

    Raises:
        DataError: not there, or in several configs of which none is named.
    """
    usual = os.environ.get("TFDS_DATA_DIR", DEFAULT_FOLDER)
    root = pathlib.Path(path or usual).expanduser()
    if (root / INFO).is_file():
        return root
    plain, _, version = name.partition(":")
    home = root / plain
    folders = [file.parent for file in home.glob(f"*/{INFO}")]
    if "/" not in plain:
        folders += [file.parent for file in home.glob(f"*/*/{INFO}")]
    if version:
        folders = [folder for folder in folders if folder.name == version]
    if not folders:
        there = sorted(file.name for file in root.glob("*") if file.is_dir())
        raise DataError(
            f"no prepared TFDS data set {name!r} in {str(root)!r} (it has "
            f"{', '.join(there[:10]) or 'none'}); nothing is downloaded: prepare it "
            'with download_and_prepare(file_format="array_record")'
        )
    configs = sorted({folder.parent for folder in folders})
    if len(configs) > 1:
        known = ", ".join(f"{plain}/{c.name}" for c in configs)
        raise DataError(f"TFDS data set {name!r} has several configs: give {known}")
    return max(folders, key=lambda folder: _version(folder.name))


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


class Tfds:
    """An image data set prepared by TFDS in the array_record format.

    The one image feature of one channel and 8 bits beside "image", if there is one,
    holds the classes of its pixels (255: unlabelled). What it does not say of their
    names is counted: then the masks of all splits are read once.

    Args:
        name: as for `find_prepared`.
        path: as for `find_prepared`.
        split: a split of the data set.
        channels: 1, 3 or 4.

    Raises:
        DataError: nothing prepared there, another file format, no feature "image",
            several that may be masks, no such split.
    """

    def __init__(
        self, name: str, *, path: str = "", split: str = "train", channels: int = 3
    ):
        folder = find_prepared(name, path)
        # Imported after the check: it takes a quarter of a second and warns.
        import tensorflow_datasets as tfds

        try:
            builder = tfds.builder_from_directory(folder)
        # A damaged description surfaces as JSON, protobuf or key errors.
        except Exception as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"TFDS set {str(folder)!r}: {reason}") from error
        info = builder.info
        if info.name != name.partition(":")[0].partition("/")[0]:
            raise DataError(f"{str(folder)!r} holds {info.name!r}, not {name!r}")
        kind = info.file_format.value if info.file_format else "unknown"
        if kind != "array_record":
            raise DataError(
                f"TFDS data set {name!r} was prepared as {kind}, which cannot be read "
                'at random: prepare it with file_format="array_record"'
            )
        features = dict(info.features or {})
        image = features.get("image")
        whole = isinstance(image, tfds.features.Image) and image.np_dtype.kind == "u"
        if not whole:
            raise DataError(
                f"TFDS data set {name!r} has no feature 'image' of 8 or 16 bits, only "
                f"{', '.join(features)}"
            )
        if split not in info.splits or not info.splits[split].num_examples:
            there = ", ".join(info.splits)
            raise DataError(f"TFDS {name!r} has no split {split!r}; it has {there}")
        label = features.get("label")
        self._labelled = isinstance(label, tfds.features.ClassLabel)
        self.name: str = info.full_name
        self.classes: tuple[str, ...] = (UNLABELLED,)
        if isinstance(label, tfds.features.ClassLabel):
            self.classes = tuple(label.names)
        self._split = split
        self._channels = channels
        self._shards = [pathlib.Path(file) for file in info.splits[split].filepaths]
        self._mask = _mask_feature(features, tfds.features.Image, name)
        # The encoded bytes, so that odd and damaged images are treated as in folders.
        encoded = ("image", self._mask) if self._mask else ("image",)
        decoders = {feature: tfds.decode.SkipDecoding() for feature in encoded}
        self._records = builder.as_data_source(split=split, decoders=decoders)
        self.pixel_classes: tuple[str, ...] = ()
        if self._mask:
            self.pixel_classes = _mask_classes(builder, self._mask, decoders)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        name = f"{self.name}/{self._split}[{index}]"
        try:
            record = self._records[index]
        # A damaged shard surfaces as whatever array_record's C++ made of it.
        except Exception as error:
            raise BadImage(name, f"{type(error).__name__}: {error}") from error
        image = decode_image(record["image"], name=name, channels=self._channels)
        label = int(record["label"]) if self._labelled else -1
        if self._mask is None:
            return {"image": image, "label": label}
        segments = read_segments(
            record[self._mask],
            name=f"{name}.{self._mask}",
            size=image.shape[:2],
            classes=len(self.pixel_classes),
        )
        return {"image": image, "label": label, "segments": segments}

    def fingerprint(self) -> str:
        shards = [(shard.name, shard.stat().st_size) for shard in self._shards]
        return digest((self.name, self._split, len(self), *self.classes, *shards))


def _mask_feature(features: dict[str, Any], image: Any, name: str) -> str | None:
    """The feature that holds the classes of pixels, if there is one."""
    found = [
        key
        # In the order of their names: TFDS gives its own in one that varies.
        for key, feature in sorted(features.items())
        if key != "image" and isinstance(feature, image) and feature.shape[-1] == 1
        # Depth and the like have more bits.
        if feature.np_dtype == "uint8"
    ]
    if len(found) > 1:
        raise DataError(
            f"TFDS data set {name!r} has several features that may hold the classes of "
            f"pixels ({', '.join(found)}), and there must be one at most"
        )
    return found[0] if found else None


def _mask_classes(builder: Any, mask: str, decoders: dict[str, Any]) -> tuple[str, ...]:
    """The names a labelled image has, or numbers up to the highest in any split."""
    feature = builder.info.features[mask]
    if getattr(feature, "num_classes", None):
        return tuple(feature.names)

    def masks():
        for split in builder.info.splits:
            records = builder.as_data_source(split=split, decoders=decoders)
            for index in range(len(records)):
                yield f"{split}[{index}]", functools.partial(read, records, index)

    def read(records, index: int) -> bytes:
        try:
            return records[index][mask]
        except Exception as error:  # as when it is read as an example
            raise BadImage(f"[{index}]", str(error)) from error

    return count_classes(masks(), source=f"TFDS data set {builder.info.full_name!r}")
