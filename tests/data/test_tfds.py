"""Prepared TFDS sets in array_record files, without TensorFlow."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time

import numpy as np
import pytest
from PIL import Image

from sgmae_jax.data import BadImage, DataError, open_source
from sgmae_jax.data.tfds import find_prepared


def picture(index: int) -> np.ndarray:
    shape = (4, 5 + index, 3)
    return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data folder with the set "tiny": 10 and 4 images; image 2 is cut short."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(None, None, 3))
            label = tfds.features.ClassLabel(names=["even", "odd"])
            features = tfds.features.FeaturesDict(
                {"image": image, "label": label, "number": np.int64}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._examples(0, 10), "test": self._examples(10, 14)}

        def _examples(self, first, last):
            for index in range(first, last):
                buffer = io.BytesIO()
                Image.fromarray(picture(index)).save(buffer, "PNG")
                cut = -30 if index == 2 else None
                data = io.BytesIO(buffer.getvalue()[:cut])
                yield index, {"image": data, "label": index % 2, "number": index}

        _generate_examples = _examples

    folder = tmp_path_factory.mktemp("tfds")
    builder = Tiny(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder


def test_examples_equal_what_was_written(prepared):
    assert "tensorflow" not in sys.modules
    train = open_source("tfds:tiny", path=str(prepared), split="train")
    test = open_source("tfds:tiny", path=str(prepared), split="test")
    assert (len(train), len(test)) == (10, 4)
    assert train.classes == ("even", "odd")
    assert train.fingerprint() != test.fingerprint()
    numbers = []
    for source in (train, test):
        for index in range(len(source)):
            try:
                example = source[index]
            except BadImage as bad:
                assert bad.name == f"tiny/1.0.0/train[{index}]"
                numbers.append(2)
                continue
            number = example["image"].shape[1] - 5
            np.testing.assert_array_equal(example["image"], picture(number))
            assert example["label"] == number % 2
            numbers.append(number)
    assert sorted(numbers) == list(range(14))
    part = open_source("tfds:tiny", path=str(prepared), split="train[:3]", channels=1)
    assert len(part) == 3
    assert "tensorflow" not in sys.modules


def test_versions_configs_and_the_folder_itself(prepared, tmp_path):
    home = prepared / "tiny" / "1.0.0"
    assert find_prepared("tiny", str(prepared)) == home
    assert find_prepared("tiny:1.0.0", str(prepared)) == home
    assert find_prepared("tiny", str(home)) == home
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        shutil.copytree(home, tmp_path / "tiny" / version)
    assert find_prepared("tiny", str(tmp_path)).name == "1.10.0"
    for config in ("big", "small"):
        shutil.copytree(home, tmp_path / "two" / config / "2.0.0")
    with pytest.raises(DataError, match="give two/big, two/small"):
        find_prepared("two", str(tmp_path))
    assert find_prepared("two/big", str(tmp_path)).parent.name == "big"


def test_wrong_names_fail_at_once_and_name_what_is_there(prepared):
    start = time.perf_counter()
    for spec, message in (
        ("tfds:cifar10", "no prepared TFDS data set 'cifar10'"),
        ("tfds:tiny:9.0.0", "no prepared TFDS data set 'tiny:9.0.0'"),
        ("tfds:tiny/other", "no prepared TFDS data set 'tiny/other'"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_source(spec, path=str(prepared))
        assert "tiny" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no split 'val'; it has"):
        open_source("tfds:tiny", path=str(prepared), split="val")
    with pytest.raises(DataError, match="holds 'tiny', not 'other'"):
        open_source("tfds:other", path=str(prepared / "tiny" / "1.0.0"))
    assert time.perf_counter() - start < 5


def test_the_usual_folder(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(open_source("tfds:tiny")) == 10


def test_other_formats_and_features_are_refused(prepared, tmp_path):
    home = tmp_path / "tiny" / "1.0.0"
    shutil.copytree(prepared / "tiny" / "1.0.0", home)
    info = json.loads((home / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (home / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match=r"as tfrecord.*array_record"):
        open_source("tfds:tiny", path=str(tmp_path))
    shutil.rmtree(home)
    shutil.copytree(prepared / "tiny" / "1.0.0", home)
    features = json.loads((home / "features.json").read_text())
    fields = features["featuresDict"]["features"]
    fields["picture"] = fields.pop("image")
    (home / "features.json").write_text(json.dumps(features))
    with pytest.raises(DataError, match=r"no feature 'image'.*picture"):
        open_source("tfds:tiny", path=str(tmp_path))
    (home / "features.json").write_text("{")
    with pytest.raises(DataError, match=r"TFDS set .*tiny"):
        open_source("tfds:tiny", path=str(tmp_path))
