"""3D Shapes from a file of its format that the test writes: streaming, averaging, labels, refusals."""

import re
import sys

import numpy as np
import pytest
from benchsuite_datasets import shapes3d
from benchsuite_datasets.base import DataError
from benchsuite_datasets.shapes import Shapes
from benchsuite_datasets.shapes3d import Shapes3D

from benchsuite import MissingDataError, UsageError
from benchsuite.testing import assert_passed, check_dataset

h5py = pytest.importorskip("h5py", reason="reading HDF5 is an optional extra")

COUNT = 300
# the published values, column by column: hues in tenths, 8 sizes, 4 shapes, 15 angles
VALUES = (
    [k / 10 for k in range(10)],
    [k / 10 for k in range(10)],
    [k / 10 for k in range(10)],
    [0.75 + k / 14 for k in range(8)],
    [0.0, 1.0, 2.0, 3.0],
    [-30 + 30 * k / 7 for k in range(15)],
)


def write(path, **changes):
    """A file with `COUNT` random rooms; `changes` replace arrays, None leaves one out. Returns the arrays."""
    rng = np.random.default_rng(0)
    index = np.stack([np.resize(rng.permutation(len(v)), COUNT) for v in VALUES], axis=1)
    labels = np.stack([np.array(v)[column] for v, column in zip(VALUES, index.T, strict=True)], axis=1)
    images = rng.integers(0, 256, (COUNT, 64, 64, 3), dtype=np.uint8)
    with h5py.File(path, "w") as file:
        for key, array in ({"images": images, "labels": labels} | changes).items():
            if array is not None:
                file.create_dataset(key, data=array)
    return images, labels, index


@pytest.fixture
def file(tmp_path):
    return tmp_path / "3dshapes.h5"


@pytest.mark.parametrize(("resolution", "block"), [(64, 2048), (64, 7), (32, 40)])
def test_images_are_those_of_the_file(file, monkeypatch, resolution, block):
    images, _, index = write(file)
    monkeypatch.setattr(shapes3d, "BLOCK", block)
    data = Shapes3D(str(file), items=130, resolution=resolution)
    data.load()
    assert data.shape == (3, resolution, resolution)
    assert [f.name for f in data.factors] == list(Shapes().levels)[:6]
    seen = set()
    for name, size in (("train", 104), ("val", 13), ("test", 13)):
        part = data.split(name)
        assert len(part) == size
        for image, row, item in zip(part.images.numpy(), part.labels.numpy(), part.ids, strict=True):
            number = int(item.removeprefix("shapes3d/"))
            seen.add(number)
            expected = images[number].astype(float)
            if resolution == 32:
                expected = sum(expected[i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
            np.testing.assert_allclose(image, expected.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)
            np.testing.assert_array_equal(row, index[number])
    assert len(seen) == 130
    assert max(seen) > 250  # a random subset, not the beginning


def test_names_of_values(file):
    write(file)
    data = Shapes3D(str(file), items=100)
    data.load()
    names = {factor.name: factor.values for factor in data.factors}
    assert names["floor"] == ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9")
    assert names["shape"] == ("cube", "cylinder", "sphere", "capsule")
    assert (names["scale"][0], names["scale"][-1]) == ("0.75", "1.25")
    assert (names["orientation"][0], names["orientation"][7]) == ("-30°", "0°")


def test_the_kit_is_satisfied(file):
    write(file)
    options = {"path": str(file), "items": 280, "resolution": 32}
    assert_passed(check_dataset(Shapes3D(**options), options=options))


def test_a_directory_and_the_default_place(file, monkeypatch):
    write(file)
    direct = Shapes3D(str(file), items=50)
    direct.load()
    place = file.parent / "shapes3d"
    place.mkdir()
    file.rename(place / file.name)
    monkeypatch.setenv("BENCHSUITE_DATA", str(file.parent))
    for data in (Shapes3D(str(place), items=50), Shapes3D(items=50)):
        data.load()
        assert data.fingerprint() == direct.fingerprint()


def test_absence_says_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHSUITE_DATA", str(tmp_path))
    for data, place in (
        (Shapes3D(), tmp_path / "shapes3d" / "3dshapes.h5"),
        (Shapes3D(str(tmp_path)), tmp_path / "3dshapes.h5"),
        (Shapes3D(str(tmp_path / "other.h5")), tmp_path / "other.h5"),
    ):
        message = f"shapes3d: no file {place}; download 3dshapes.h5 (255 MB, bucket 3d-shapes"
        with pytest.raises(MissingDataError, match=re.escape(message)):
            data.load()


def test_without_h5py_the_extra_is_named(file, monkeypatch):
    write(file)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'benchsuite[shapes3d]'")) as missing:
        Shapes3D(str(file)).load()
    assert missing.value.name == "h5py"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no labels: it holds images, and is not 3D Shapes"),
        ({"labels": None, "images": None}, "has no images and no labels: it holds nothing"),
        (
            {"images": np.zeros((COUNT, 32, 32, 3), np.uint8)},
            "images are (300, 32, 32, 3) uint8, not (N, 64, 64, 3)",
        ),
        ({"images": np.zeros((COUNT, 64, 64, 3), np.float32)}, "images are (300, 64, 64, 3) float32"),
        ({"labels": np.zeros((COUNT, 5))}, "labels are (300, 5), not (300, 6) like the images"),
        ({"labels": np.zeros((200, 6))}, "labels are (200, 6), not (300, 6) like the images"),
        ({"labels": np.full((COUNT, 6), 0.75)}, "floor = 0.75 at position 0 is not a value of 3D Shapes"),
        ({"labels": np.full((COUNT, 6), np.nan)}, "floor = nan at position 0 is not a value of 3D Shapes"),
    ],
)
def test_another_file_is_refused(file, changes, message):
    write(file, **changes)
    with pytest.raises(DataError, match=re.escape(f"{file}") + ".*" + re.escape(message)):
        Shapes3D(str(file), items=100).load()


def test_what_is_no_hdf5_is_refused(file):
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=re.escape(f"{file} cannot be read as HDF5 (")):
        Shapes3D(str(file)).load()


def test_impossible_options(file):
    write(file)
    with pytest.raises(UsageError, match=re.escape(f"shapes3d: items=301, but {file} has 300 images")):
        Shapes3D(str(file), items=301).load()
    with pytest.raises(UsageError, match="items=9 is too few for three splits; take 10 or more"):
        Shapes3D(items=9)
    with pytest.raises(UsageError, match="resolution=48 is not offered; take 64 or 32"):
        Shapes3D(resolution=48)
