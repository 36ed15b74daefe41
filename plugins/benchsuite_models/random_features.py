"""Random features under gradient flow in closed form: what a network's bias and training time do to samples."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import Codec, Dataset, DiffusionModel, Split, UsageError, fingerprint_state
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_common import check_labels, check_query

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from benchsuite_models.feature_flow import ErrorSplit, FeatureFlow, FlowSettings

WEIGHTS = ("1", "1/h", "1/h2")
#: training times that errors are drawn at
TAUS = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
#: most coordinates that errors are split in: frames are full eigendecompositions
MOST_DIM = 64


class RandomFeatures(DiffusionModel):
    """A random-feature denoiser of the points of a data set at training time tau, or at the end of training.

    p frozen ReLU features of x_t and of harmonics of t are combined linearly to the posterior mean; the loss is
    quadratic, so gradient flow from a random start is known in closed form at every tau (He, Qiu, Tao,
    arXiv:2602.06021). What is left at tau = inf is the *architectural bias* of the features, what is above it the
    *optimisation error*; `error_split` parts both along and across the ridge of the data.

    The clock is the Ornstein-Uhlenbeck time t in [0.001, T]: sigma² = e^{2t} - 1. Arithmetic is float64.

    Args:
        tau: training time, >= 0, or inf.
        features: p.
        weight: W(t) of the loss, "1", "1/h" or "1/h2" (plain score matching), h = 1 - e^{-2t}.
        frequencies: K, number of harmonics of t; the public code of the paper has 128.
        horizon: T; that code has 10 for two modes and 40 for three.
        draws: noisy items per time (about 600 times) that the loss is averaged over.
        dim: d*, dimension of the ridge that errors are split by.
        seed: of features, start and draws.

    Raises:
        UsageError: a value out of range.
    """

    name = "random-features"
    family = "random-features"
    paper = "arXiv:2602.06021"

    def __init__(
        self,
        tau: float = math.inf,
        features: int = 500,
        weight: str = "1/h",
        frequencies: int = 32,
        horizon: float = 10.0,
        draws: int = 128,
        dim: int = 1,
        seed: int = 0,
    ) -> None:
        if not tau >= 0:
            raise UsageError(f"tau must be at least 0, or inf, got {tau}")
        for key, value in {"features": features, "draws": draws, "dim": dim}.items():
            if value < 1:
                raise UsageError(f"{key} must be at least 1, got {value}")
        if weight not in WEIGHTS:
            raise UsageError(f"weight must be one of {', '.join(WEIGHTS)}, got {weight!r}")
        if frequencies < 0:
            raise UsageError(f"frequencies must not be negative, got {frequencies}")
        if not 1 <= horizon <= 40:
            raise UsageError(f"horizon must lie in [1, 40], got {horizon:g}")
        self.tau, self.dim = float(tau), dim
        self._settings = (features, weight, frequencies, float(horizon), draws, seed)
        self.horizon = float(horizon)
        # rounded inwards, so that a level told in float32 stays inside
        self.sigma_range = (
            math.sqrt(math.expm1(2e-3)) * (1 + 1e-6),
            math.sqrt(math.expm1(2 * self.horizon)) * (1 - 1e-6),
        )
        self._points = EmpiricalBayes()

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Take the points of `dataset`, as `EmpiricalBayes` does."""
        self._points.bind(dataset, codec)
        self.shape, self.space = self._points.shape, self._points.space  # type: ignore[misc]

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Fit: a few seconds for 500 features, shared by models that differ in tau and dim only."""
        from benchsuite_models.feature_flow import FlowSettings

        self._points.load(device, dtype)
        self.shape = self._points.shape
        population = self._points.population.flatten(1).double().cpu().numpy()
        self._flow = _fit(population.tobytes(), population.shape[1], FlowSettings(*self._settings))
        self._features, self._rows = self._flow.features.to(device), self._flow.rows(self.tau).to(device)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """E[x0 | x] as the features have it: (B, *shape), dtype and device of `x`; labels (B, 0) or None."""
        check_query(self.name, self.shape, x, sigma)
        check_labels(self.name, self.factors, labels, x)
        t = sigma.double().square().log1p() / 2
        scale = (-t).exp()[:, None]  # a = 1 / sqrt(1 + sigma²)
        features = self._features(scale * x.flatten(1).double(), t)
        return (features @ self._rows.T / scale).to(x.dtype).view(x.shape)

    def error_split(self, taus: Sequence[float]) -> ErrorSplit:
        """Excess loss over the exact denoiser along and across the ridge, at any training times. After `load`.

        Raises:
            UsageError: `dim` does not suit the points, or the space has too many coordinates for frames.
        """
        count, width = self._flow.points.shape
        if not self.dim < min(count, width) or width > MOST_DIM:
            raise UsageError(
                f"{self.name} splits errors in at most {MOST_DIM} coordinates and by a dim less than these and "
                f"than the number of points; got dim {self.dim}, {width} coordinates and {count} points"
            )
        return self._flow.error_split(taus, self.dim)

    def facts(self) -> dict[str, Any]:
        """The split of the error at tau, and its drawing over training times (`benchsuite.report.drawings`)."""
        count, width = self._flow.points.shape
        if not self.dim < min(count, width) or width > MOST_DIM:
            return {}
        split = self.error_split((self.tau, *TAUS))
        tangent, normal = split.tangent[1:], split.normal[1:]
        own = {
            "tau": None if math.isinf(self.tau) else self.tau,
            "architectural_tangent": split.tangent_floor,
            "architectural_normal": split.normal_floor,
            "optimisation_tangent": split.tangent[0] - split.tangent_floor,
            "optimisation_normal": split.normal[0] - split.normal_floor,
        }
        layers = [
            _layer("along the ridge", "c0", TAUS, tangent),
            _layer("across the ridge", "c1", TAUS, normal),
            _layer("architectural bias along", "grey", TAUS, [split.tangent_floor] * len(TAUS)),
        ]
        if not math.isinf(self.tau):
            layers.append(_layer("this model", "ink", (self.tau,), split.tangent[:1], "dots"))
            layers.append(_layer("this model", "ink", (self.tau,), split.normal[:1], "dots"))
        x, y = {"name": "training time tau", "log": True}, {"log": True}
        panel = {"title": "Excess loss over the exact denoiser", "x": x, "y": y, "layers": layers}
        return {
            "error_split": own,
            "drawing errors": {"title": "Error split against training time", "panels": [panel]},
        }

    def training_points(self) -> Split:
        """The points of the data set."""
        return self._points.training_points()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """As the bound codec does."""
        return self._points.encode(images)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """As the bound codec does."""
        return self._points.decode(x)

    def native_time(self, log_snr: NDArray[Any]) -> NDArray[Any]:
        """t / T."""
        return np.asarray(np.log1p(np.exp(-np.asarray(log_snr, dtype=float))) / (2 * self.horizon))

    def fingerprint(self) -> str:
        """Digest of the points, the options and the fitted rows."""
        options = (self.tau, self.dim, self._settings)
        return fingerprint_state({"options": options, "points": self._points.fingerprint(), "rows": self._rows})


def _layer(
    name: str, style: str, taus: Sequence[float], errors: Sequence[float], kind: str = "line"
) -> dict[str, Any]:
    # what is below the rounding of the fit is no error
    shown = [error if error > 1e-12 else None for error in errors]
    return {"kind": kind, "name": name, "style": style, "x": list(taus), "y": shown}


@lru_cache(maxsize=1)
def _fit(points: bytes, width: int, settings: FlowSettings) -> FeatureFlow:
    """The flow on points (N, width) float64; models of one suite that differ in tau share it."""
    import torch

    from benchsuite_models.feature_flow import FeatureFlow

    array = np.frombuffer(points, dtype=np.float64).reshape(-1, width)
    return FeatureFlow(torch.from_numpy(array.copy()), settings)
