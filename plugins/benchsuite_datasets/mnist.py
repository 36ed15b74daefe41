"""MNIST and Fashion-MNIST from their four IDX files, at 28 x 28 or padded (32 x 32 by default)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchsuite import Factor, MissingDataError, Split, UsageError
from benchsuite_datasets.base import DataError, ImageDataset
from benchsuite_datasets.idx import read_pair
from benchsuite_datasets.splits import cut, stratified_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 28
CLASSES = 10
VAL_FRACTION = 12  # one in twelve of the training file: 5 000 of 60 000
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


class IdxDataset(ImageDataset):
    """Grey 28 x 28 images in the four files of MNIST, (1, size, size), 0 … 255 mapped to [-1, 1].

    The files may be gzipped (``.gz``). "test" is the ``t10k`` pair; "val" is a twelfth of the ``train`` pair
    (5 000 of 60 000), stratified by class and fixed by hashes of the item ids ``NAME/train/00000`` ….

    Args:
        directory: where the files are; by default ``$BENCHSUITE_DATA/NAME`` (``~/.cache/benchsuite/NAME`` if
            the variable is not set), then the system's directory if the data set has one.
        size: side of the images in pixels, at least 28: they are centred on a background of -1.
        dummy_factor: see `ImageDataset`.
        readout: likewise.
        only: name or number of the one class whose items are kept, in every split; the factors stay as they are.
    """

    system_directory: ClassVar[str] = ""
    how_to_get: ClassVar[str]
    class_names: ClassVar[tuple[str, ...]]

    def __init__(
        self, directory: str = "", size: int = 32, dummy_factor: int = 0, readout: str = "", only: str = ""
    ) -> None:
        super().__init__(dummy_factor, readout)
        numbers = {name: k for k, name in enumerate(self.class_names)} | {str(k): k for k in range(CLASSES)}
        if only and only not in numbers:
            raise UsageError(
                f"{self.name}: only={only!r} is no class; known: 0 … {CLASSES - 1}, {', '.join(self.class_names)}"
            )
        self.only = numbers[only] if only else None
        if size < SIDE:
            raise UsageError(f"{self.name}: size={size} would cut the images; it must be at least {SIDE}")
        self.directory = directory
        self.size = size

    def label_columns(self, targets: NDArray[np.uint8]) -> tuple[tuple[Factor, ...], NDArray[np.int64]]:
        """Factors and their labels (N, F) from class labels (N,); by default the class alone."""
        return (Factor("class", self.class_names),), targets.astype(np.int64)[:, None]

    def candidates(self) -> list[Path]:
        """Directories that are searched, in order."""
        if self.directory:
            return [Path(self.directory).expanduser()]
        default = os.environ.get("BENCHSUITE_DATA") or "~/.cache/benchsuite"
        places = [Path(default).expanduser() / self.name]
        if self.system_directory:
            places.append(Path(self.system_directory))
        return places

    def find(self) -> dict[str, tuple[Path, Path]]:
        """The image and label file of "train" and "test", in the first directory that has one of the four.

        Raises:
            MissingDataError: none has one (says where it looked), or some of the four are missing there.
        """
        wanted = [name for pair in FILES.values() for name in pair]
        for place in self.candidates():
            found = {name: path for name in wanted if (path := locate(place, name)) is not None}
            if len(found) == len(wanted):
                return {part: (found[images], found[labels]) for part, (images, labels) in FILES.items()}
            if found:
                absent = ", ".join(name for name in wanted if name not in found)
                raise MissingDataError(f"{self.name}: {place} lacks {absent} (plain or .gz)")
        places = ", ".join(map(str, self.candidates()))
        raise MissingDataError(f"{self.name}: no data in {places}; {self.how_to_get}")

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`."""
        files = self.find()
        splits: dict[str, Split] = {}
        factors: tuple[Factor, ...] = ()
        for source, (images, labels) in files.items():
            pixels, targets = read_pair(images, labels, SIDE, CLASSES)
            ids = [f"{self.name}/{source}/{i:05d}" for i in range(len(pixels))]
            factors, columns = self.label_columns(targets)
            order = stratified_order(ids, targets)
            sizes = {"test": len(order)}
            if source == "train":
                held = len(order) // VAL_FRACTION
                if not held:
                    raise DataError(f"{images}: {len(order)} images are too few for a train and a val split")
                sizes = {"train": len(order) - held, "val": held}
            for name, index in cut(order, sizes).items():
                if self.only is not None:
                    index = index[targets[index] == self.only]
                    if not len(index):
                        raise DataError(f"{labels}: no item of class {self.only} in split {name!r}")
                splits[name] = self._split(pixels[index], columns[index], [ids[i] for i in index])
        return factors, splits

    def _split(self, pixels: NDArray[np.uint8], columns: NDArray[np.int64], ids: list[str]) -> Split:
        import torch

        images = torch.full((len(pixels), 1, self.size, self.size), -1.0)
        start = (self.size - SIDE) // 2
        inner = slice(start, start + SIDE)
        images[:, 0, inner, inner] = torch.from_numpy(pixels).float() / 127.5 - 1
        return Split(images, torch.from_numpy(columns), tuple(ids))


class MNIST(IdxDataset):
    """Handwritten digits of MNIST; one factor, ``class`` ("0" … "9"). See `IdxDataset` for options and splits.

    The readout that ships was trained on 7 334 images of MNIST's training file and has never seen the test file
    (``t10k``). `benchsuite train mnist-readout --out DIR` makes a better one from all 55 000; ``readout=DIR`` uses
    it.
    """

    name = "mnist"
    paper = "10.1109/5.726791"
    class_names = tuple(str(k) for k in range(CLASSES))
    how_to_get = (
        "put the four MNIST files ("
        + ", ".join(f"{name}.gz" for pair in FILES.values() for name in pair)
        + ") there, or name their directory: mnist:DIR"
    )


class FashionMNIST(IdxDataset):
    """Zalando's articles of clothing; factors ``class`` (10) and ``garment`` (5). See `IdxDataset`.

    ``garment`` groups the classes by what they cover: *top* (T-shirt/top, Pullover, Coat, Shirt), *trousers*
    (Trouser), *dress* (Dress), *footwear* (Sandal, Sneaker, Ankle boot), *bag* (Bag). Coats go with the tops
    because at this resolution they differ from pullovers and shirts only in detail; a group of their own would
    not be coarser than the class.
    """

    name = "fashion-mnist"
    paper = "arXiv:1708.07747"
    system_directory = "/usr/share/datasets/fashion-mnist"
    how_to_get = (
        "install it with `apt-get install dataset-fashion-mnist`, or name its directory: fashion-mnist:DIR"
    )
    class_names = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    garments = ("top", "trousers", "dress", "footwear", "bag")
    garment_of_class = (0, 1, 0, 2, 0, 3, 0, 3, 4, 3)

    def label_columns(self, targets: NDArray[np.uint8]) -> tuple[tuple[Factor, ...], NDArray[np.int64]]:
        """See `IdxDataset.label_columns`."""
        factors, columns = super().label_columns(targets)
        garment: NDArray[Any] = np.array(self.garment_of_class, dtype=np.int64)[columns]
        return (*factors, Factor("garment", self.garments)), np.concatenate([columns, garment], axis=1)


def locate(place: Path, name: str) -> Path | None:
    """The file `name` or ``name.gz`` in `place`, also spelt with a dot before ``idx``; None if absent."""
    dotted = name.replace("-idx", ".idx")
    for variant in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (place / variant).is_file():
            return place / variant
    return None
