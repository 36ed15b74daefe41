"""The 1797 handwritten digits (8 x 8) that ship with scikit-learn."""

from __future__ import annotations

from pathlib import Path

from benchsuite import Factor, Split
from benchsuite_datasets.base import READOUTS, ImageDataset, take
from benchsuite_datasets.splits import cut, stratified_order

SIZES = {"train": 1200, "val": 200, "test": 397}
FEW = 150


class Digits(ImageDataset):
    """Handwritten digits, (1, 8, 8), grey values 0 … 16 mapped to [-1, 1]; one factor, ``class`` ("0" … "9").

    The images are scikit-learn's `load_digits`, the test part (13 writers) of the UCI "Optical Recognition of
    Handwritten Digits" set (Alpaydin & Kaynak 1998). Splits are stratified by class, 1200 / 200 / 397, and
    fixed by hashes of the item ids ``digits/0000`` … ``digits/1796`` (scikit-learn's order). Writers, who are
    not named in the data, occur in all splits. No two images are equal. The closest pair across splits (1585
    in train, 1648 in test, both ones) is 5.3 grey levels apart in Euclidean distance; the median distance from
    a test image to the train split is 16.8.
    """

    name = "digits"
    paper = "10.24432/C50P49"

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`."""
        import torch
        from sklearn.datasets import load_digits

        data = load_digits()
        images = torch.from_numpy(data.images).float()[:, None] / 8 - 1  # (1797, 1, 8, 8) in [-1, 1]
        labels = torch.from_numpy(data.target).long()[:, None]  # (1797, 1)
        ids = tuple(f"digits/{i:04d}" for i in range(len(images)))
        parts = cut(stratified_order(ids, data.target), SIZES)
        splits = {name: take(images, labels, ids, torch.from_numpy(index)) for name, index in parts.items()}
        return (Factor("class", tuple(str(k) for k in range(10))),), splits


class FewDigits(Digits):
    """`Digits` of which only 150 are for training: so few that a small network comes to know them by heart.

    The 150 are the first of the train split of `Digits`, 15 of each class; "val" and "test" are those of `Digits`,
    and so is the readout.
    """

    name = "few-digits"

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`."""
        import torch

        factors, splits = super().read()
        train = splits["train"]
        return factors, {**splits, "train": take(train.images, train.labels, train.ids, torch.arange(FEW))}

    def readout_path(self) -> Path | None:
        """See `ImageDataset.readout_path`; the shipped one is that of all digits."""
        return super().readout_path() or READOUTS / Digits.name
