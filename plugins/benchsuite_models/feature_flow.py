"""Random features under gradient flow, solved in closed form (He, Qiu, Tao, arXiv:2602.06021).

In the variance-preserving process x_t = a x_0 + sqrt(h) z, a = e^{-t}, h = 1 - e^{-2t}, the posterior mean
a E[x_0] is fitted by m(t, x) = B f(t, x) with p frozen features f = ReLU(W_x x + W_t φ(t) + b) and the trained
rows B = A / sqrt(p). The loss ∫ W(t) E‖a x_0 - m(t, x_t)‖² dt is quadratic in B, so with

    U = ∫ W E[f fᵀ] dt / p,    V = ∫ W E[a x_0 fᵀ] dt / p

gradient flow from B_0 is B(tau) = V U⁺ + (B_0 - V U⁺) exp(-2 tau U): every training time costs one product.
All of it is float64; nothing here touches global random state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from benchsuite_models.tangent_frame import along, tangent_frame

#: earliest time of the process: sigma = 0.045
T_MIN = 1e-3
#: largest cells of the time grid: in ln t, and as a share of the shortest period of φ
LOG_STEP, PERIOD_SHARE = 0.05, 0.25
#: eigenvalues of U below this fraction of the largest are taken for 0 at tau = inf. Rounding leaves p · 2e-16.
CUT = 1e-10
#: noisy items per time that errors are evaluated on, fresh ones
EVALUATED = 16
#: numbers held at a time (8 MB): larger blocks cost more in page faults than they save
CHUNK = 2**20


@dataclass(frozen=True)
class FlowSettings:
    """What the features, the loss and its quadrature are."""

    features: int  #: p
    weight: str  #: W(t): "1", "1/h" or "1/h2"
    frequencies: int  #: K, pairs of harmonics in φ(t)
    horizon: float  #: T, last time
    draws: int  #: noisy items per time in U and V
    seed: int


@dataclass(frozen=True)
class ErrorSplit:
    """Excess loss ∫ W E‖m - m*‖² dt over the exact denoiser m*, along and across the ridge, at training times.

    `tangent` and `normal` are (n,), for each of `taus`; the two floors are their values at tau = inf, the
    *architectural bias*; what is above them is the *optimisation error*. Standard errors are of the evaluation.
    """

    taus: tuple[float, ...]
    tangent: tuple[float, ...]
    normal: tuple[float, ...]
    tangent_error: tuple[float, ...]  #: standard errors
    normal_error: tuple[float, ...]
    tangent_floor: float
    normal_floor: float


@dataclass(frozen=True)
class Features:
    """The frozen features f(t, x) = ReLU(W_x x + W_t φ(t) + b)."""

    settings: FlowSettings
    space_weights: torch.Tensor  #: W_x, (p, d)
    time_weights: torch.Tensor  #: W_t, (p, 2K + 1)
    bias: torch.Tensor  #: b, (p,)

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """f of x (B, d) in variance-preserving coordinates and t (B,), both float64: (B, p)."""
        times, place = torch.unique(t, return_inverse=True)
        clock = harmonics(times, self.settings) @ self.time_weights.T + self.bias
        return torch.relu(x @ self.space_weights.T + clock[place])

    def to(self, device: str) -> Features:
        """The same features on `device`."""
        weights = (self.space_weights, self.time_weights, self.bias)
        return Features(self.settings, *(weight.to(device) for weight in weights))


class FeatureFlow:
    """The fit to a set of points, for all training times at once.

    Args:
        points: (N, d) float64, the training set; every point is equally likely.
        settings: of features and loss.
    """

    def __init__(self, points: torch.Tensor, settings: FlowSettings) -> None:
        self.points, self.settings = points, settings
        p, width = settings.features, points.shape[1]
        generator = torch.Generator().manual_seed(settings.seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        harmonic = 2 * settings.frequencies + 1
        self.features = Features(
            settings, normal(p, width) / math.sqrt(width), normal(p, harmonic) / math.sqrt(harmonic), normal(p)
        )
        self.start = normal(width, p) / math.sqrt(p)  # B_0
        self.times, self.weights = time_grid(settings)
        self.gram = self.start.new_zeros(p, p)  # U
        self.cross = self.start.new_zeros(width, p)  # V
        for noisy in self._noisy(settings.draws, generator):
            features = self.features(noisy.x, noisy.t)
            weighted = features * (noisy.weight / p)[:, None]
            self.gram += weighted.T @ features
            self.cross += noisy.clean.T @ weighted
        values, self._axes = torch.linalg.eigh(self.gram)
        self._values = values.clamp_min(0)
        self._cross, self._start = self.cross @ self._axes, self.start @ self._axes

    def rows(self, tau: float) -> torch.Tensor:
        """B(tau): (d, p), for tau >= 0 or inf."""
        if math.isinf(tau):
            kept = self._values > CUT * self._values.max()
            gain = torch.where(kept, 1 / self._values, 0.0)
            left = (~kept).double()
        else:
            rate = 2 * tau * self._values
            left = (-rate).exp()
            # (1 - e^{-2 tau λ}) / λ, which is 2 tau where λ vanishes
            gain = torch.where(self._values > 0, -torch.expm1(-rate) / self._values, 2 * tau)
        found: torch.Tensor = (self._start * left + self._cross * gain) @ self._axes.T
        return found

    def error_split(self, taus: Sequence[float], dim: int) -> ErrorSplit:
        """Errors along and across the ridge of dimension `dim`, at each of `taus` and at tau = inf."""
        rows = torch.stack([self.rows(tau) for tau in (*taus, math.inf)])  # (n, d, p)
        generator = torch.Generator().manual_seed(self.settings.seed + 1)
        parts = []
        for noisy in self._noisy(EVALUATED, generator):
            scale = (-noisy.t).exp()[:, None]
            x, sigma = noisy.x / scale, torch.expm1(2 * noisy.t).sqrt()
            exact = scale * posterior_mean(x, sigma, self.points)
            frame = tangent_frame(x, sigma, self.points, dim)
            off = torch.einsum("bp,ndp->nbd", self.features(noisy.x, noisy.t), rows) - exact
            ahead = torch.stack([along(frame, part) for part in off])
            parts.append(torch.stack([ahead.square().sum(2), (off - ahead).square().sum(2)]))
        error = torch.cat(parts, dim=2).unflatten(2, (-1, EVALUATED))  # (2, n, times, draws)
        tangent, normal = (error.mean(3) @ self.weights).tolist()
        spread = (error.var(3) / EVALUATED @ self.weights.square()).sqrt().tolist()
        return ErrorSplit(
            taus=tuple(taus),
            tangent=tuple(tangent[:-1]),
            normal=tuple(normal[:-1]),
            tangent_error=tuple(spread[0][:-1]),
            normal_error=tuple(spread[1][:-1]),
            tangent_floor=tangent[-1],
            normal_floor=normal[-1],
        )

    def _noisy(self, draws: int, generator: torch.Generator) -> Iterator[_Noisy]:
        """`draws` noisy items at every time, in chunks of whole times."""
        count, width = self.points.shape
        widest = max(self.settings.features, count, width**2)
        step = max(1, CHUNK // (widest * draws))
        for times, weights in zip(self.times.split(step), self.weights.split(step), strict=True):
            # the points in turn, from a random one on: each is met equally often
            first = torch.randint(count, (len(times), 1), generator=generator)
            stride = max(1, count // draws)
            chosen = (first + stride * torch.arange(draws)) % count
            t = times.repeat_interleave(draws)
            z = torch.randn(len(t), width, generator=generator, dtype=torch.float64)
            clean = (-t).exp()[:, None] * self.points[chosen.flatten()]
            noise = (-torch.expm1(-2 * t)).sqrt()[:, None] * z
            yield _Noisy(clean, clean + noise, t, weights.repeat_interleave(draws) / draws)


@dataclass(frozen=True)
class _Noisy:
    """Noisy items of the quadrature."""

    clean: torch.Tensor  #: a x_0, (B, d)
    x: torch.Tensor  #: (B, d)
    t: torch.Tensor  #: (B,)
    weight: torch.Tensor  #: (B,), what each contributes to ∫ W E[.] dt


def harmonics(t: torch.Tensor, settings: FlowSettings) -> torch.Tensor:
    """φ(t) = (1, sin 2πkt/T, cos 2πkt/T for k = 1 … K) of t (B,): (B, 2K + 1)."""
    k = torch.arange(1, settings.frequencies + 1, dtype=t.dtype, device=t.device)
    angle = 2 * math.pi / settings.horizon * t[:, None] * k
    return torch.cat([torch.ones_like(t)[:, None], angle.sin(), angle.cos()], dim=1)


def time_grid(settings: FlowSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Times (J,) and the exact integrals of W over their cells (J,), which cover [T_MIN, T].

    Cells grow in proportion to t until they would miss the oscillation of φ, and have one length from there on.
    """
    longest = PERIOD_SHARE * settings.horizon / max(settings.frequencies, 1)
    edges = [T_MIN]
    while edges[-1] < settings.horizon:
        edges.append(edges[-1] + min(LOG_STEP * edges[-1], longest))
    edges[-1] = settings.horizon
    edge = torch.tensor(edges, dtype=torch.float64)
    integral = weight_integral(edge, settings.weight)
    return (edge[1:] * edge[:-1]).sqrt(), integral[1:] - integral[:-1]


def weight_integral(t: torch.Tensor, weight: str) -> torch.Tensor:
    """An antiderivative of W(t), h = 1 - e^{-2t}: t, ln(e^{2t} - 1) / 2, and that minus 1 / (2 (e^{2t} - 1))."""
    if weight == "1":
        return t
    log = t + (-torch.expm1(-2 * t)).log() / 2
    return log if weight == "1/h" else log - 1 / (2 * torch.expm1(2 * t))


def posterior_mean(x: torch.Tensor, sigma: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """E[x_0 | x_0 + sigma n = x] over equally likely points (N, d), for x (B, d) and sigma (B,): (B, d)."""
    logits = (x @ points.T - points.square().sum(1) / 2) / sigma[:, None] ** 2
    return logits.softmax(1) @ points
