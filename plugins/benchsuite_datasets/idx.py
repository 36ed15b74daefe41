"""Reader of IDX files, the format of MNIST: big-endian header, then unsigned bytes; plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchsuite_datasets.base import DataError

UNSIGNED_BYTE = 0x08
KINDS = {8: "uint8", 9: "int8", 11: "int16", 12: "int32", 13: "float32", 14: "float64"}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in the IDX file `path`, which must hold unsigned bytes in `dimensions` dimensions.

    The header is two zero bytes, one byte for the element type, one for the number of dimensions, and each
    dimension as a big-endian 32-bit integer (http://yann.lecun.com/exdb/mnist). Compression is recognised by
    its first bytes, not by the file's name.

    Raises:
        DataError: the file is damaged, of another type, or shorter or longer than its header says.
    """
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path}: damaged gzip file ({error})") from error
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in KINDS:
        raise DataError(f"{path}: not an IDX file, it starts with bytes {raw[:4].hex(' ') or '(none)'}")
    kind, count = raw[2], raw[3]
    if kind != UNSIGNED_BYTE:
        raise DataError(f"{path}: holds {KINDS[kind]} (IDX type 0x{kind:02x}), expected uint8 (0x08)")
    if count != dimensions:
        raise DataError(f"{path}: has {count} dimensions, expected {dimensions}")
    start = 4 + 4 * count
    if len(raw) < start:
        raise DataError(f"{path}: ends within its header, after {len(raw)} of {start} bytes")
    shape = struct.unpack(f">{count}I", raw[4:start])
    expected = math.prod(shape)
    if len(raw) - start != expected:
        raise DataError(f"{path}: {len(raw) - start} bytes of data, but its header {shape} asks for {expected}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_pair(images: Path, labels: Path, side: int, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (N, side, side) and labels (N,) in 0 … classes-1 from two IDX files that belong together.

    Raises:
        DataError: another image size, no images, unequal counts, or a label outside the range.
    """
    pixels, targets = read_idx(images, 3), read_idx(labels, 1)
    if pixels.shape[1:] != (side, side):
        raise DataError(f"{images}: images are {pixels.shape[1]}x{pixels.shape[2]}, expected {side}x{side}")
    if len(pixels) != len(targets):
        raise DataError(f"{images} has {len(pixels)} images, but {labels} has {len(targets)} labels")
    if not len(pixels):
        raise DataError(f"{images}: no images")
    if targets.max() >= classes:
        wrong = np.flatnonzero(targets >= classes)
        raise DataError(
            f"{labels}: label {targets[wrong[0]]} at position {wrong[0]} is outside 0 … {classes - 1}"
            f" ({len(wrong)} such labels)"
        )
    return pixels, targets
