"""Items with labelled factors, their splits, and the frozen judge of generated ones."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Factor:
    """One labelled property of the data (``class``, ``hue``, a hierarchy level) and its values' names."""

    name: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of values K; labels are 0 … K-1."""
        return len(self.values)


@dataclass(frozen=True)
class Split:
    """Part of a data set. Item ids are stable, so that noise and bootstrap belong to the item."""

    images: torch.Tensor  #: (N, *shape) float32 in [-1, 1]
    labels: torch.Tensor  #: (N, F) int64, one column per factor
    ids: tuple[str, ...]  #: N unique names

    def __len__(self) -> int:
        return len(self.ids)


class Readout(ABC):
    """The frozen judge of a data set: maps images to factor probabilities and hidden features."""

    name: str
    exact: bool = False  #: probabilities are the exact posterior p(factor | x0), not a classifier's opinion
    accuracy: Mapping[str, float]  #: factor -> accuracy on the held-out split, in [0, 1]

    @abstractmethod
    def to(self, device: str) -> Readout:
        """Move to `device` and return self."""

    @abstractmethod
    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, *shape) in [-1, 1] => {factor: (B, K)}, rows sum to 1."""

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Hidden layers from shallow to deep, {layer: (B, C) or (B, C, …)}, channels on axis 1.

        Empty if there are none. What follows the channels are places that share their statistics.
        """
        return {}

    def positions(self, images: torch.Tensor) -> torch.Tensor | None:
        """What stands at each of P positions of an image, so that changes can be correlated; None if nothing.

        Integers (B, P): tokens, which change or not. Floats (B, P): a scalar field, whose change is a
        difference. Floats (B, P, E): embeddings (of patches), whose change is ‖difference‖ / √E.
        """
        return None

    def position_distances(self) -> FloatArray | None:
        """Distances (P, P) between the positions; None if they have no geometry."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the judge's weights."""


class Dataset(ABC):
    """Images with labelled factors, fixed splits ("train", "val", "test") and a readout."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    enumerated: ClassVar[bool] = False  #: the images are the whole population, so its oracle is the truth

    factors: tuple[Factor, ...]  #: after `load`
    shape: tuple[int, ...]  #: (C, H, W), after `load`

    @abstractmethod
    def load(self) -> None:
        """Read the data. Raise MissingDataError saying where it looked and the command that fetches them."""

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test"; always the same items in the same order."""

    def readout(self) -> Readout | None:
        """The frozen judge, or None if there is none (then U-turn metrics do not apply)."""
        return None

    def fingerprint(self) -> str:
        """Hex digest of images, labels and splits."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("train", "val", "test"):
            part = self.split(name)
            digest.update(f"{name}:{len(part)}:{tuple(part.images.shape)}".encode())
            digest.update(part.images.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()
