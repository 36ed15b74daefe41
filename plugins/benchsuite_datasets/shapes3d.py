"""3D Shapes from its HDF5 file, streamed: a fixed random subset of the 480 000 images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import Factor, MissingDataError, Split, UsageError
from benchsuite_datasets.base import DataError, ImageDataset
from benchsuite_datasets.splits import cut, stratified_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "3dshapes.h5"
SIDE = 64
BLOCK = 2048  # images read at a time: 25 MB
HELD_OUT = 10  # one in ten for "val", as many for "test"
TOLERANCE = 1e-3  # of a stored factor value, in units of the factor
#: columns of ``labels`` and the values in them
GRID: dict[str, NDArray[np.float64]] = {
    "floor": np.arange(10) / 10,
    "wall": np.arange(10) / 10,
    "object": np.arange(10) / 10,
    "scale": np.linspace(0.75, 1.25, 8),
    "shape": np.arange(4.0),
    "orientation": np.linspace(-30, 30, 15),
}
SHAPES = ("cube", "cylinder", "sphere", "capsule")


class Shapes3D(ImageDataset):
    """3D Shapes (Burgess & Kim 2018): rooms with one object, (3, 64, 64) or (3, 32, 32), factors as in `shapes`.

    ``floor``, ``wall``, ``object`` (10 hues each), ``scale`` (8), ``shape`` (4) and ``orientation`` (15); item ids
    are positions in the file, ``shapes3d/000000`` …. The file is read in blocks; only the chosen images are kept.

    Args:
        path: the file ``3dshapes.h5`` or its directory; by default ``$BENCHSUITE_DATA/shapes3d``
            (``~/.cache/benchsuite/shapes3d`` if the variable is not set).
        items: how many images, chosen by hashes of their ids and balanced in the floor hue; 8 in 10 are "train",
            one in 10 "val" and "test" each.
        resolution: 64, or 32 by averaging 2 x 2 pixels.
        dummy_factor: see `ImageDataset`.
        readout: likewise; none ships.
    """

    name = "shapes3d"
    paper = "https://github.com/google-deepmind/3d-shapes"

    def __init__(
        self, path: str = "", items: int = 12_000, resolution: int = 64, dummy_factor: int = 0, readout: str = ""
    ) -> None:
        super().__init__(dummy_factor, readout)
        if resolution not in (SIDE, SIDE // 2):
            raise UsageError(f"{self.name}: resolution={resolution} is not offered; take {SIDE} or {SIDE // 2}")
        if items < HELD_OUT:
            raise UsageError(f"{self.name}: items={items} is too few for three splits; take {HELD_OUT} or more")
        self.path = path
        self.items = items
        self.resolution = resolution

    def find(self) -> Path:
        """The file.

        Raises:
            MissingDataError: it is not there; says where it looked and how to get it.
        """
        root = Path(os.environ.get("BENCHSUITE_DATA") or "~/.cache/benchsuite").expanduser() / self.name
        place = Path(self.path).expanduser() if self.path else root
        file = place / FILE if place.is_dir() or not self.path else place
        if not file.is_file():
            raise MissingDataError(
                f"{self.name}: no file {file}; download {FILE} (255 MB, bucket 3d-shapes of Google Cloud Storage) "
                f"there, or name it: {self.name}:FILE"
            )
        return file

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`.

        Raises:
            ModuleNotFoundError: h5py is not installed.
            DataError: not an HDF5 file, or one without the arrays of 3D Shapes.
            UsageError: more items than images.
        """
        import torch

        file = self.find()
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{self.name} reads HDF5 with h5py: pip install 'benchsuite[shapes3d]'", name=error.name
            ) from error
        try:
            with h5py.File(file, "r") as data:
                check_arrays(file, data)
                labels = to_indices(file, data["labels"][:])
                ids = [f"{self.name}/{i:06d}" for i in range(len(labels))]
                if self.items > len(ids):
                    raise UsageError(f"{self.name}: items={self.items}, but {file} has {len(ids)} images")
                order = stratified_order(ids, labels[:, 0])[: self.items]
                pixels = self._pixels(data["images"], order)
        except OSError as error:
            raise DataError(f"{file} cannot be read as HDF5 ({' '.join(str(error).split())})") from error
        tenth = self.items // HELD_OUT
        sizes = {"val": tenth, "test": tenth, "train": self.items - 2 * tenth}
        place = {int(i): k for k, i in enumerate(order)}
        splits = {}
        for name, index in cut(order, sizes).items():
            images = torch.from_numpy(pixels[[place[int(i)] for i in index]])
            splits[name] = Split(images, torch.from_numpy(labels[index]), tuple(ids[i] for i in index))
        return factors(), splits

    def _pixels(self, images: Any, order: NDArray[np.int64]) -> NDArray[np.float32]:
        """The images at `order`, (n, 3, R, R) in [-1, 1], from one pass over the stored array."""
        side = self.resolution
        out = np.empty((len(order), 3, side, side), dtype=np.float32)
        rank = np.argsort(order)  # places in `out`, by position in the file
        stored = order[rank]
        for start in range(0, int(stored[-1]) + 1, BLOCK):
            low, high = np.searchsorted(stored, [start, start + BLOCK])
            if low == high:
                continue
            block = images[start : int(stored[high - 1]) + 1]  # (n, 64, 64, 3) uint8
            part = block[stored[low:high] - start].reshape(-1, side, SIDE // side, side, SIDE // side, 3)
            out[rank[low:high]] = part.mean(axis=(2, 4), dtype=np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
        return out


def factors() -> tuple[Factor, ...]:
    """The six factors: hues as fractions of the circle, orientations in degrees."""
    names = {factor: tuple(f"{value:.4g}" for value in values) for factor, values in GRID.items()}
    names["shape"] = SHAPES
    names["orientation"] = tuple(f"{name}°" for name in names["orientation"])
    return tuple(Factor(factor, values) for factor, values in names.items())


def check_arrays(file: Path, data: Any) -> None:
    """Raise DataError unless `data` holds ``images`` (N, 64, 64, 3) uint8 and ``labels`` (N, 6)."""
    absent = [key for key in ("images", "labels") if key not in data]
    if absent:
        found = ", ".join(sorted(data)) or "nothing"
        raise DataError(f"{file} has no {' and no '.join(absent)}: it holds {found}, and is not 3D Shapes")
    images, labels = data["images"], data["labels"]
    if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3) or images.dtype != np.uint8:
        raise DataError(f"{file}: images are {images.shape} {images.dtype}, not (N, {SIDE}, {SIDE}, 3) uint8")
    if labels.shape != (len(images), len(GRID)):
        raise DataError(f"{file}: labels are {labels.shape}, not ({len(images)}, {len(GRID)}) like the images")


def to_indices(file: Path, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Stored factor values (N, 6) => labels (N, 6); DataError for a value that 3D Shapes does not have."""
    columns = []
    for (factor, grid), column in zip(GRID.items(), values.T, strict=True):
        distance = np.abs(column[:, None] - grid)
        nearest = distance.argmin(axis=1)
        off = ~(distance.min(axis=1) < TOLERANCE)
        if off.any():
            row = int(off.argmax())
            raise DataError(f"{file}: {factor} = {column[row]:g} at position {row} is not a value of 3D Shapes")
        columns.append(nearest)
    return np.stack(columns, axis=1).astype(np.int64)
