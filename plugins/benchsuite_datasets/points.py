"""Small sets of points in a few dimensions, on which geometry can be drawn and checked against formulas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import Dataset, Factor, Readout, Split, UsageError, fingerprint_state
from benchsuite_datasets.point_sets import CURVES, MODES, NAMES, Array, circle, orthants, planar_13, sphere

if TYPE_CHECKING:
    import torch

#: default number of points of the sets that can have any
COUNT = {"circle": 200, "sphere": 1000}
#: items of the validation and test splits where points are drawn
DRAWN = {"val": 100, "test": 200}
#: most values a factor "mode" may have: beyond that, single points are no abstraction
MODES_MOST = 64


class Points(Dataset):
    """N points in d dimensions, in their own coordinates (not [-1, 1]); items are vectors (d,).

    The points are the whole population (`enumerated`), and the three splits hold the same items. With `std`
    they are the modes of a Gaussian mixture instead: the training split is `per_mode` draws from each, the
    other splits are fresh draws, and nothing is enumerated.

    Sets: "two-modes" (default), "three-modes", "four-modes", "five-modes", "nine-modes", "planar-13", "circle"
    and "sphere". Any other set comes from Python, as `points`. The factor is ``mode``, a value per point (or
    per mode); on the circle and the sphere, and on more than 64 points, it is ``orthant``. The readout is exact:
    the nearest point's value, or the mixture's posterior.

    Args:
        which: name of a set.
        count: points on the circle (200) or the sphere (1000).
        radius: of the circle or the sphere, 2.
        dim: number of coordinates; those that the set lacks are 0.
        std: standard deviation of a mode, > 0 for a mixture.
        per_mode: training points drawn from each mode of a mixture, 100.
        seed: of the draws of a mixture.
        points: (N, d) array-like, instead of a named set; N >= 2 distinct rows.

    Raises:
        UsageError: unknown set, an option that the set does not have, or a value out of range.
    """

    name = "points"
    paper = "arXiv:2602.06021"
    enumerated = True

    def __init__(
        self,
        which: str | None = None,
        count: int | None = None,
        radius: float | None = None,
        dim: int | None = None,
        std: float = 0.0,
        per_mode: int | None = None,
        seed: int | None = None,
        points: Any = None,
    ) -> None:
        if points is not None and (which is not None or count is not None or radius is not None):
            raise UsageError("points are given: which, count and radius describe named sets")
        centres = _named(which or "two-modes", count, radius) if points is None else _given(points)
        self._centres = _padded(centres, dim)
        self.shape = (self._centres.shape[1],)
        if not (np.isfinite(std) and std >= 0):
            raise UsageError(f"std must be finite and not negative, got {std:g}")
        if not std and (per_mode is not None or seed is not None):
            raise UsageError("per_mode and seed belong to a mixture: give std > 0 too")
        self.std, self.seed = float(std), 0 if seed is None else seed
        self.per_mode = 100 if per_mode is None else per_mode
        if self.per_mode < 1:
            raise UsageError(f"per_mode must be at least 1, got {per_mode}")
        self.enumerated = std == 0  # type: ignore[misc] # the instance decides which it is
        if len(centres) > MODES_MOST or which in CURVES:
            flat = self._centres[:, np.ptp(self._centres, axis=0) > 0][:, :6]
            values, self._labels = np.unique(orthants(flat), return_inverse=True)
            self._factor = Factor("orthant", tuple(f"{value:0{flat.shape[1]}b}"[::-1] for value in values))
        else:
            self._labels = np.arange(len(centres))
            self._factor = Factor("mode", tuple(str(k) for k in self._labels))
        self._splits: dict[str, Split] | None = None

    def load(self) -> None:
        """Make the splits."""
        import torch

        self.factors = (self._factor,)
        labels = torch.from_numpy(self._labels)[:, None]
        centres = torch.from_numpy(self._centres)
        if not self.std:
            if self._factor.name == "orthant":  # in a fixed random order, so that every prefix is spread out
                order = torch.randperm(len(centres), generator=torch.Generator().manual_seed(0))
                labels, centres = labels[order], centres[order]
            ids = tuple(f"point/{i:06d}" for i in range(len(centres)))
            self._splits = dict.fromkeys(("train", "val", "test"), Split(centres.float(), labels, ids))
            return
        generator = torch.Generator().manual_seed(self.seed)
        self._splits = {}
        for name, size in {"train": self.per_mode * len(centres), **DRAWN}.items():
            mode = torch.arange(size) % len(centres)  # every prefix holds the modes equally often
            z = torch.randn(size, *self.shape, generator=generator, dtype=torch.float64)
            ids = tuple(f"{name}/{i:06d}" for i in range(size))
            self._splits[name] = Split((centres[mode] + self.std * z).float(), labels[mode], ids)

    def split(self, name: str) -> Split:
        """One of "train", "val", "test"."""
        if self._splits is None:
            raise UsageError(f"{self.name}: call load() before asking for data")
        if name not in self._splits:
            raise UsageError(f"{self.name} has no split {name!r}; known: {', '.join(self._splits)}")
        return self._splits[name]

    def readout(self) -> Readout:
        """The value of the nearest point, or the posterior of the mixture."""
        import torch

        return ModeReadout(self._factor, torch.from_numpy(self._centres), torch.from_numpy(self._labels), self.std)


class ModeReadout(Readout):
    """p(value | x0) in closed form: the nearest centre's value, or the posterior of N(centre, std²)."""

    name = "nearest mode"
    exact = True

    def __init__(self, factor: Factor, centres: torch.Tensor, labels: torch.Tensor, std: float) -> None:
        self.factor, self.centres, self.labels, self.std = factor, centres, labels, std
        self.accuracy = {}

    def to(self, device: str) -> ModeReadout:
        """Move to `device` and return self."""
        self.centres, self.labels = self.centres.to(device), self.labels.to(device)
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Items (B, d) => {factor: (B, K)}; of centres at the same distance the first is the nearest."""
        import torch

        offsets = images.double()[:, None] - self.centres
        square = offsets.square().sum(dim=2)  # (B, N)
        if self.std:
            weights = (-square / (2 * self.std**2)).softmax(dim=1)
        else:
            weights = torch.nn.functional.one_hot(square.argmin(dim=1), len(self.centres)).double()
        values = torch.nn.functional.one_hot(self.labels, self.factor.size).double()
        return {self.factor.name: (weights @ values).float()}

    def fingerprint(self) -> str:
        """Digest of centres, values and spread."""
        return fingerprint_state({"centres": self.centres, "labels": self.labels, "std": self.std})


def _named(name: str, count: int | None, radius: float | None) -> Array:
    if name not in NAMES:
        raise UsageError(f"unknown point set {name!r}; known: {', '.join(NAMES)}; others come from Python")
    if name not in CURVES:
        if count is not None or radius is not None:
            raise UsageError(f"point set {name!r} has no option count or radius; circle and sphere have")
        return np.array(MODES[name], dtype=np.float64) if name in MODES else planar_13()
    count, radius = COUNT[name] if count is None else count, 2.0 if radius is None else radius
    if count < 4:
        raise UsageError(f"count must be at least 4, got {count}")
    if not (np.isfinite(radius) and radius > 0):
        raise UsageError(f"radius must be finite and positive, got {radius:g}")
    return circle(count, radius) if name == "circle" else sphere(count, radius)


def _given(points: Any) -> Array:
    array = np.array(points, dtype=np.float64)
    if array.ndim != 2 or len(array) < 2 or not array.shape[1]:
        raise UsageError(f"points must be (N, d) with N >= 2 and d >= 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError("points hold values that are not finite")
    if len(np.unique(array, axis=0)) < len(array):
        raise UsageError(f"points hold {len(array) - len(np.unique(array, axis=0))} rows twice; give each once")
    return array


def _padded(points: Array, dim: int | None) -> Array:
    if dim is None:
        return points
    if dim < points.shape[1]:
        raise UsageError(f"dim must be at least {points.shape[1]} for these points, got {dim}")
    return np.pad(points, ((0, 0), (0, dim - points.shape[1])))
