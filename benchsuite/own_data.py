"""An exact model as its own data set: items drawn from it, judged by its own posterior."""

from __future__ import annotations

import torch

from benchsuite.contracts import Dataset, ExactModel, FloatArray, Readout, Split
from benchsuite.randomness import stream_key


class ExactReadout(Readout):
    """p(factor | x0) of the model at the smallest noise level: the judge that cannot be wrong."""

    exact = True

    def __init__(self, model: ExactModel) -> None:
        self.model = model
        self.name = f"posterior of {model.name}"
        self.accuracy = {}

    def to(self, device: str) -> ExactReadout:
        """The model stays where it was loaded."""
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Items (B, *shape) => {factor: (B, K)}."""
        sigma = images.new_full((len(images),), self.model.sigma_range[0])
        return self.model.posterior(images, sigma)

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The model's own layers of abstraction."""
        return self.model.features(images)

    def positions(self, images: torch.Tensor) -> torch.Tensor | None:
        """The model's own positions."""
        return self.model.positions(images)

    def position_distances(self) -> FloatArray | None:
        """Those of the model."""
        return self.model.position_distances()

    def fingerprint(self) -> str:
        """That of the model."""
        return self.model.fingerprint()


class OwnData(Dataset):
    """Splits of fresh draws from a loaded exact model: the population itself, so its oracle is the truth."""

    name = "own"
    enumerated = True

    def __init__(self, model: ExactModel, sizes: dict[str, int], seed: int) -> None:
        self.model, self.sizes, self.seed = model, sizes, seed
        self._splits: dict[str, Split] = {}

    def load(self) -> None:
        """Draw all splits, each from its own stream."""
        self.factors, self.shape = self.model.factors, self.model.shape
        for name, size in self.sizes.items():
            generator = torch.Generator().manual_seed(stream_key(self.seed, "own", name))
            x, labels = self.model.sample(size, generator)
            self._splits[name] = Split(
                x.float().cpu(), labels.cpu(), tuple(f"{name}/{i:07d}" for i in range(size))
            )

    def split(self, name: str) -> Split:
        """One of "train", "val", "test"."""
        return self._splits[name]

    def readout(self) -> Readout:
        """The model's own posterior."""
        return ExactReadout(self.model)

    def fingerprint(self) -> str:
        """The model, the sizes and the seed determine every item."""
        return f"{self.model.fingerprint()}/{self.seed}/{sorted(self.sizes.items())}"
