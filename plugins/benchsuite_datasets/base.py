"""What the image data sets share: splits in memory, the dummy control, the readout, a cached fingerprint."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from benchsuite import Dataset, Factor, Readout, Split, UsageError
from benchsuite_datasets.splits import item_hash

if TYPE_CHECKING:
    import torch

READOUTS = Path(__file__).parent / "readouts"


class ImageDataset(Dataset):
    """Labelled images held in memory. A subclass implements `read` and, if it has a judge, `readout_path`.

    Args:
        dummy_factor: if K >= 2, append a factor ``dummy`` with K values drawn independently of the image from
            the item's id. Nothing can know it from the image, so whatever a metric reports for it is bias.
    """

    def __init__(self, dummy_factor: int = 0) -> None:
        if dummy_factor != 0 and dummy_factor < 2:
            raise UsageError(
                f"{self.name}: dummy_factor={dummy_factor} is not a number of values: 0 (off) or >= 2"
            )
        self.dummy_factor = dummy_factor
        self._splits: dict[str, Split] | None = None
        self._fingerprint: str | None = None
        self._readout: Readout | None = None

    @abstractmethod
    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """Factors and the splits "train", "val", "test", without the dummy factor."""

    def readout_path(self) -> Path | None:
        """Directory with the trained readout, or None if there is none."""
        return READOUTS / self.name

    def load(self) -> None:
        """Read the data once; later calls do nothing."""
        if self._splits is not None:
            return
        factors, splits = self.read()
        if self.dummy_factor:
            factors += (Factor("dummy", tuple(str(k) for k in range(self.dummy_factor))),)
            splits = {name: with_dummy(part, self.dummy_factor) for name, part in splits.items()}
        self.factors = factors
        self.shape = tuple(splits["train"].images.shape[1:])
        self._splits = splits

    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test"; any prefix of it is balanced in the first factor."""
        if self._splits is None:
            raise UsageError(f"{self.name}: call load() before split({name!r})")
        if name not in self._splits:
            raise UsageError(f"{self.name} has no split {name!r}; known: {', '.join(self._splits)}")
        return self._splits[name]

    def fingerprint(self) -> str:
        """Hex digest of images, labels and splits; computed once: data do not change after `load`."""
        if self._fingerprint is None:
            self._fingerprint = super().fingerprint()
        return self._fingerprint


def with_dummy(part: Split, values: int) -> Split:
    """`part` with a last label column in 0 … values-1 that depends on nothing but the item's id."""
    import torch

    column = torch.tensor([item_hash(f"dummy:{i}") % values for i in part.ids], dtype=torch.int64)
    return Split(part.images, torch.cat([part.labels, column[:, None]], dim=1), part.ids)


def take(images: torch.Tensor, labels: torch.Tensor, ids: tuple[str, ...], index: torch.Tensor) -> Split:
    """The items at `index` (n,) of images (N, C, H, W), labels (N, F) and ids."""
    return Split(
        images[index].contiguous(), labels[index].contiguous(), tuple(ids[i] for i in index.tolist())
    )
