"""What a U-turn did to the judge's hidden layers and to the positions of an item.

Hidden layers are standardised before they are compared: from every channel its mean over the clean items of the
run (and over the channel's places) is taken, and its centred standard deviation divided out, so that no channel
counts for more because it is large, or for being never zero. A channel that does not vary is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import Readout
from benchsuite.errors import BenchsuiteError

#: a channel whose deviation is below this part of its mean varies by rounding only
CONSTANT = 1e-6


@dataclass
class Moments:
    """Running mean and centred second moment of the channels of one layer."""

    count: int
    mean: torch.Tensor  #: (C,) float64
    square: torch.Tensor  #: (C,) float64, sum of squared deviations

    @classmethod
    def of(cls, layer: torch.Tensor) -> Moments:
        """Of a layer (B, C, …)."""
        values = layer.double().transpose(0, 1).flatten(1)  # (C, B * places)
        mean = values.mean(dim=1)
        return cls(values.shape[1], mean, (values - mean[:, None]).square().sum(dim=1))

    def merged(self, other: Moments) -> Moments:
        """Of both samples together (Chan, Golub & LeVeque 1979): no cancellation, unlike sums of squares."""
        count = self.count + other.count
        gap = other.mean - self.mean
        mean = self.mean + gap * (other.count / count)
        square = self.square + other.square + gap.square() * (self.count * other.count / count)
        return Moments(count, mean, square)


@dataclass(frozen=True)
class Standards:
    """Per layer and channel, what is subtracted and what is multiplied by."""

    layers: dict[str, tuple[torch.Tensor, torch.Tensor]]  #: mean and 1 / deviation (0 = left out), (C,) each

    @classmethod
    def of(cls, readout: Readout, batches: Iterable[torch.Tensor]) -> Standards:
        """Estimated from batches of images (B, *shape); without layers if the readout shows none."""
        moments: dict[str, Moments] = {}
        for images in batches:
            for name, layer in readout.features(images).items():
                found = Moments.of(layer)
                moments[name] = moments[name].merged(found) if name in moments else found
        layers = {}
        for name, m in moments.items():
            deviation = (m.square / m.count).sqrt()
            varies = deviation > CONSTANT * m.mean.abs()
            layers[name] = (m.mean, torch.where(varies, 1 / deviation.clamp_min(1e-300), 0.0))
        return cls(layers)

    def standardised(self, readout: Readout, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """{layer: (B, D)} of images, flattened."""
        found = {}
        for name, layer in readout.features(images).items():
            mean, scale = (v.view(1, -1, *[1] * (layer.dim() - 2)) for v in self.layers[name])
            found[name] = ((layer.double() - mean) * scale).flatten(1)
        return found


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle between rows of a and b (B, D) => (B,); 0 where one of them vanishes."""
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 0, (a * b).sum(dim=1) / norms.clamp_min(1e-300), 0.0)


def relative_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """‖a - b‖² / ‖a‖‖b‖ of rows (B, D) => (B,): 2 (1 - cosine) if both are equally long; 0 where one vanishes."""
    norms = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(norms > 0, (a - b).square().sum(dim=1) / norms.clamp_min(1e-300), 0.0)


class Similarities:
    """Measures, per layer, how similar what came back is to its own start and to another item's."""

    def __init__(self, readout: Readout, starts: Iterable[torch.Tensor]) -> None:
        self.readout, self.standards = readout, Standards.of(readout, starts)

    def compare(self, starts: torch.Tensor, others: torch.Tensor, ends: torch.Tensor) -> dict[str, NDArray[Any]]:
        """Ends (U * B, *shape), level by level, against their starts and against other items (B, *shape).

        Returns:
            Arrays ``similarity/``, ``unrelated/`` and ``distance/`` of `benchsuite.protocols.u_turn`, (B, U).
        """
        if not self.standards.layers:
            return {}
        own, other = (self.standards.standardised(self.readout, images) for images in (starts, others))
        columns: dict[str, list[torch.Tensor]] = {}
        for level in ends.split(len(starts)):  # hidden layers are large: no more than one level at a time
            for name, layer in self.standards.standardised(self.readout, level).items():
                columns.setdefault(f"similarity/{name}", []).append(cosine(own[name], layer))
                columns.setdefault(f"unrelated/{name}", []).append(cosine(other[name], layer))
                columns.setdefault(f"distance/{name}", []).append(relative_distance(own[name], layer))
        return {name: torch.stack(found, dim=1).float().cpu().numpy() for name, found in columns.items()}

    @property
    def layers(self) -> list[str]:
        """Names of the layers, shallow to deep."""
        return list(self.standards.layers)


def position_changes(readout: Readout, starts: torch.Tensor, ends: torch.Tensor) -> dict[str, NDArray[Any]]:
    """Ends (U * B, *shape), level by level, against their starts (B, *shape).

    Returns:
        The array ``changed`` of `benchsuite.protocols.u_turn`, (B, U, P); nothing without positions.
    """
    before = readout.positions(starts)
    if before is None:
        return {}
    columns = []
    for level in ends.split(len(starts)):
        after = readout.positions(level)
        assert after is not None
        columns.append(changed(before, after)[1])
    return {"changed": torch.stack(columns, dim=1).cpu().numpy()}


def geometry(readout: Readout, images: torch.Tensor) -> tuple[str | None, dict[str, NDArray[Any]]]:
    """The kind of the readout's positions on `images` (None if it has none), and their distances, if any.

    Raises:
        BenchsuiteError: as many distances as there are not positions.
    """
    positions = readout.positions(images)
    if positions is None:
        return None, {}
    kind, count = changed(positions, positions)[0], positions.shape[1]
    distances = readout.position_distances()
    if distances is None:
        return kind, {}
    if np.shape(distances) != (count, count):
        raise BenchsuiteError(f"readout {readout.name} has {count} positions but distances {np.shape(distances)}")
    return kind, {"position_distances": np.asarray(distances, dtype=np.float64)}


def changed(before: torch.Tensor, after: torch.Tensor) -> tuple[str, torch.Tensor]:
    """How much every position changed, and what kind of positions they are.

    Args:
        before, after: from `Readout.positions`: (B, P) integers, (B, P) floats or (B, P, E) floats.

    Returns:
        ("token", 0 or 1 uint8), ("field", after - before float32) or ("embedding", ‖after - before‖ / √E
        float32), each (B, P).
    """
    if not before.is_floating_point():
        return "token", (after != before).to(torch.uint8)
    if before.dim() == 2:
        return "field", (after - before).float()
    gap = (after.double() - before.double()).norm(dim=2) / math.sqrt(before.shape[2])
    return "embedding", gap.float()
