"""An IDX writer of the tests' own, so that the reader is not checked against itself."""

import gzip
from pathlib import Path

import numpy as np

NAMES = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("t10k", "images"): "t10k-images-idx3-ubyte",
    ("t10k", "labels"): "t10k-labels-idx1-ubyte",
}


def idx_bytes(array: np.ndarray, kind: int = 8) -> bytes:
    header = bytes([0, 0, kind, array.ndim])
    for length in array.shape:
        header += int(length).to_bytes(4, "big")
    return header + array.astype(np.uint8).tobytes(order="C")


def write_idx(path: Path, array: np.ndarray, kind: int = 8) -> Path:
    data = idx_bytes(array, kind)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_mnist(place: Path, train: int = 240, test: int = 40, suffix: str = "") -> dict[str, np.ndarray]:
    """Four files of random images and labels (each class equally often) in `place`; returns the arrays."""
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels"] = rng.permutation(np.arange(count) % 10).astype(np.uint8)
        for what in ("images", "labels"):
            write_idx(place / (NAMES[part, what] + suffix), arrays[f"{part}-{what}"])
    return arrays
