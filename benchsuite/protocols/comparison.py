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
    """Collects, per layer, how similar what came back is to its own start and to another item's.

    Arrays ``similarity/``, ``unrelated/`` and ``distance/`` of `benchsuite.protocols.u_turn`.
    """

    def __init__(self, readout: Readout, starts: Iterable[torch.Tensor]) -> None:
        self.readout, self.standards = readout, Standards.of(readout, starts)
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, starts: torch.Tensor, others: torch.Tensor, ends: torch.Tensor) -> None:
        """Compare ends (U * B, *shape), level by level, with their starts and with other items (B, *shape)."""
        if not self.standards.layers:
            return
        own, other = (self.standards.standardised(self.readout, images) for images in (starts, others))
        columns: dict[str, list[torch.Tensor]] = {}
        for level in ends.split(len(starts)):  # hidden layers are large: no more than one level at a time
            for name, layer in self.standards.standardised(self.readout, level).items():
                columns.setdefault(f"similarity/{name}", []).append(cosine(own[name], layer))
                columns.setdefault(f"unrelated/{name}", []).append(cosine(other[name], layer))
                columns.setdefault(f"distance/{name}", []).append(relative_distance(own[name], layer))
        for name, found in columns.items():
            self._parts.setdefault(name, []).append(torch.stack(found, dim=1).float().cpu().numpy())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything collected so far, rows in the order they came."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    @property
    def layers(self) -> list[str]:
        """Names of the layers, shallow to deep."""
        return list(self.standards.layers)


class Changes:
    """Collects how much every position changed: array ``changed`` of `benchsuite.protocols.u_turn`."""

    def __init__(self, readout: Readout) -> None:
        self.readout = readout
        self.kind: str | None = None  #: "token", "field" or "embedding"; None if there are no positions
        self._parts: list[NDArray[Any]] = []

    def add(self, starts: torch.Tensor, ends: torch.Tensor) -> None:
        """Compare ends (U * B, *shape), level by level, with their starts (B, *shape)."""
        before = self.readout.positions(starts)
        if before is None:
            return
        columns = []
        for level in ends.split(len(starts)):
            after = self.readout.positions(level)
            assert after is not None
            self.kind, change = changed(before, after)
            columns.append(change)
        self._parts.append(torch.stack(columns, dim=1).cpu().numpy())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The array and, if the positions have a geometry, their distances; empty without positions."""
        if not self._parts:
            return {}
        found: dict[str, NDArray[Any]] = {"changed": np.concatenate(self._parts)}
        distances = self.readout.position_distances()
        if distances is not None:
            p = found["changed"].shape[2]
            if np.shape(distances) != (p, p):
                raise BenchsuiteError(
                    f"readout {self.readout.name} has {p} positions but distances {np.shape(distances)}"
                )
            found["position_distances"] = np.asarray(distances, dtype=np.float64)
        return found


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
