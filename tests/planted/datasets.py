"""Data sets and readouts with one mistake each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchsuite import Dataset, Factor, Readout, Split
from benchsuite.contracts import FloatArray
from planted import Bug

SIZES = {"train": 60, "val": 20, "test": 40}


class Halves(Readout):
    """Which half of the image is brighter."""

    name = "halves"

    def __init__(self) -> None:
        self.accuracy = {"side": 1.0}

    def to(self, device: str) -> Halves:
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        tilt = (images[..., 2:] - images[..., :2]).flatten(1).mean(dim=1)
        return {"side": torch.stack([-tilt, tilt], dim=1).mul(5.0).softmax(dim=1)}

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"rows": images.mean(dim=-1).flatten(1)}

    def fingerprint(self) -> str:
        return "halves"


class Healthy(Dataset):
    """4 × 4 images whose left or right half is bright: the correct counterpart of what follows."""

    name = "halves"

    def load(self) -> None:
        self.factors, self.shape = (Factor("side", ("left", "right")),), (1, 4, 4)
        generator = torch.Generator().manual_seed(5)
        self.parts = {}
        for name, size in SIZES.items():
            labels = torch.arange(size)[:, None] % 2
            images = 0.3 * torch.rand(size, 1, 4, 4, generator=generator) - 0.5
            images[labels[:, 0] == 0, :, :, :2] += 0.8
            images[labels[:, 0] == 1, :, :, 2:] += 0.8
            self.parts[name] = Split(images, labels, tuple(f"{name}/{i}" for i in range(size)))

    def split(self, name: str) -> Split:
        return self.parts[name]

    def readout(self) -> Readout | None:
        return Halves()


class PixelsFromZero(Healthy):
    """Grey values in [0, 1]."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        return replace(part, images=(part.images + 1) / 2)


class TestInTrain(Healthy):
    """The test images are also trained on, under other names."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        if name != "train":
            return part
        test = self.parts["test"]
        ids = tuple(f"train/t{i}" for i in range(len(test)))
        return Split(torch.cat([part.images, test.images]), torch.cat([part.labels, test.labels]), part.ids + ids)


class LabelsFromOne(Healthy):
    """Labels 1 … K."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        return replace(part, labels=part.labels + 1)

    def readout(self) -> Readout | None:
        return None


class OtherEveryTime(Healthy):
    """Splits follow from a counter of the process."""

    loads = 0

    def load(self) -> None:
        super().load()
        OtherEveryTime.loads += 1
        shift = OtherEveryTime.loads % 7
        self.parts = {
            k: replace(p, images=p.images.roll(shift, 0), labels=p.labels.roll(shift, 0))
            for k, p in self.parts.items()
        }


class SeedsEverybody(Healthy):
    """Makes itself repeatable by seeding torch for the whole process."""

    def load(self) -> None:
        torch.manual_seed(0)
        super().load()


class OptionIgnored(Healthy):
    """Takes a number of dummy values and adds no factor."""

    def __init__(self, dummy_factor: int = 0) -> None:
        pass


class DoubleIds(Healthy):
    """Two items of one name."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        return replace(part, ids=(part.ids[1], *part.ids[1:]))


class Missing(Healthy):
    """Not where it looks."""

    def load(self) -> None:
        raise FileNotFoundError("images.idx")


class Judge(Halves):
    """A readout that is replaced below."""


class Boasting(Judge):
    """States the accuracy of its training split."""

    def __init__(self) -> None:
        self.accuracy = {"side": 0.9}


class Logits(Judge):
    """Forgets the softmax."""

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: 4 * p - 2 for name, p in super().probabilities(images).items()}


class BatchNormLeftOn(Judge):
    """Normalises by the batch it is given."""

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().probabilities(images - 0.5 * images.mean(dim=0))


class FeaturesWithoutChannels(Judge):
    """One number per image."""

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"brightness": images.flatten(1).mean(dim=1)}


class SkewedDistances(Judge):
    """It is further from a pixel to the next than back."""

    def positions(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def position_distances(self) -> FloatArray:
        place = np.arange(16)  # of 4 x 4 pixels
        return np.maximum(place[:, None] - place, 0).astype(float)


def judged_by(judge: type[Readout]) -> type[Dataset]:
    return type(f"JudgedBy{judge.__name__}", (Healthy,), {"readout": lambda self: judge()})


DATASET_BUGS: dict[str, Bug] = {
    cls.__name__: Bug(cls, caught_by, also)
    for cls, caught_by, also in [
        (PixelsFromZero, "pixel-range", ()),
        (TestInTrain, "splits-disjoint", ()),
        (LabelsFromOne, "labels-in-range", ()),
        (OtherEveryTime, "deterministic", ()),
        (SeedsEverybody, "no-global-state", ()),
        (OptionIgnored, "ignored-option", ()),
        (DoubleIds, "splits-valid", ()),
        (Missing, "loads", ()),
        (judged_by(Boasting), "readout-accuracy", ()),
        (judged_by(Logits), "readout-normalised", ()),
        (judged_by(BatchNormLeftOn), "readout-invariance", ()),
        (judged_by(FeaturesWithoutChannels), "readout-features", ()),
        (judged_by(SkewedDistances), "readout-positions", ()),
    ]
}
