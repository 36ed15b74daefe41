"""The IDX reader against files written by the tests' own writer."""

import gzip
import re

import numpy as np
import pytest
from benchsuite_datasets.base import DataError
from benchsuite_datasets.idx import read_idx, read_pair
from idx_files import idx_bytes, write_idx

IMAGES = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251


def refused(message):
    return pytest.raises(DataError, match=re.escape(message))


@pytest.mark.parametrize("name", ["a-idx3-ubyte", "a-idx3-ubyte.gz"])
def test_round_trip(tmp_path, name):
    found = read_idx(write_idx(tmp_path / name, IMAGES), 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGES)


def test_compression_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "a-idx3-ubyte"
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


def test_truncated_and_overlong_files(tmp_path):
    path, data = tmp_path / "a", idx_bytes(IMAGES)
    path.write_bytes(data[:-1])
    with refused(f"{path}: 2351 bytes of data, but its header (3, 28, 28) asks for 2352"):
        read_idx(path, 3)
    path.write_bytes(data + b"xx")
    with refused(f"{path}: 2354 bytes of data, but its header (3, 28, 28) asks for 2352"):
        read_idx(path, 3)
    path.write_bytes(data[:10])
    with refused(f"{path}: ends within its header, after 10 of 16 bytes"):
        read_idx(path, 3)


def test_damaged_gzip(tmp_path):
    path, data = tmp_path / "a.gz", gzip.compress(idx_bytes(IMAGES))
    for broken in (data[:-20], data[:40] + b"\xff" * 40 + data[80:]):
        path.write_bytes(broken)
        with refused(f"{path}: damaged gzip file"):
            read_idx(path, 3)


def test_wrong_magic_type_and_dimensions(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\x89PNG\r\n")
    with refused(f"{path}: not an IDX file, it starts with bytes 89 50 4e 47"):
        read_idx(path, 3)
    path.write_bytes(b"")
    with refused(f"{path}: not an IDX file, it starts with bytes (none)"):
        read_idx(path, 3)
    write_idx(path, IMAGES, kind=0x0D)
    with refused(f"{path}: holds float32 (IDX type 0x0d), expected uint8 (0x08)"):
        read_idx(path, 3)
    write_idx(path, IMAGES)
    with refused(f"{path}: has 3 dimensions, expected 1"):
        read_idx(path, 1)


def test_pairs_that_do_not_belong_together(tmp_path):
    images = write_idx(tmp_path / "images", IMAGES)
    labels = write_idx(tmp_path / "labels", np.array([0, 9]))
    with refused(f"{images} has 3 images, but {labels} has 2 labels"):
        read_pair(images, labels, 28, 10)
    write_idx(labels, np.array([0, 12, 255]))
    with refused(f"{labels}: label 12 at position 1 is outside 0 … 9 (2 such labels)"):
        read_pair(images, labels, 28, 10)
    write_idx(images, IMAGES[:, :27])
    with refused(f"{images}: images are 27x28, expected 28x28"):
        read_pair(images, labels, 28, 10)
    write_idx(images, IMAGES[:0])
    write_idx(labels, np.array([]))
    with refused(f"{images}: no images"):
        read_pair(images, labels, 28, 10)
