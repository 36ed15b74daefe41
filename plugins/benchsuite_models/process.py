"""Native noise processes: what a network sees at a given sigma and what its output means.

A process works in its own data range. With ``x = x0 + sigma n`` there (variance-exploding coordinates), it
builds the network's input and time from (x, sigma) and turns the output into the posterior mean E[x0 | x].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.noise import sigma_from_alpha_bar, sigma_from_log_snr

FloatArray = NDArray[np.floating[Any]]

if TYPE_CHECKING:
    import torch

    Forward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  #: (input (B, *shape), time (B,)) => output

#: diffusers' names of what the networks of discrete variance-preserving models predict.
PREDICTIONS = ("epsilon", "v_prediction", "sample")
#: What the networks of variance-exploding models return, see `VarianceExploding`.
SCORES = ("score", "denoised")


class Process(ABC):
    """Maps one family's conventions to ``denoise``; immutable, holds no weights."""

    sigma_range: tuple[float, float]  #: (low, high) in the process's own data range

    @abstractmethod
    def denoise(self, forward: Forward, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """E[x0 | x0 + sigma n = x] through one call of `forward`; x (B, *shape), sigma (B,)."""

    @abstractmethod
    def native_time(self, sigma: FloatArray) -> FloatArray:
        """The family's clock t/T in [0, 1], 1 = noise, clipped to its ends; sigma (T,)."""

    @abstractmethod
    def describe(self) -> str:
        """Everything `denoise` depends on, as text for the fingerprint."""


class VariancePreserving(Process):
    """Discrete-time DDPM (arXiv:2006.11239): the state is ``alpha x`` with ``alpha = 1 / sqrt(1 + sigma²)``.

    Between two training steps the time passed to the network is interpolated linearly in ln sigma (sinusoidal
    embeddings take any real t); at the sigma of step t it is t. Outside the table it is held at the ends.

    Args:
        alpha_bars: (T,) the scheduler's cumulative products, decreasing in (0, 1). Levels with alpha_bar = 0
            ("zero terminal SNR") have no finite sigma and are left out.
        prediction: "epsilon", "v_prediction" or "sample".
        whole_steps: round t to the nearest step, for networks that look t up in a learned table.
    """

    def __init__(self, alpha_bars: FloatArray, prediction: str, whole_steps: bool = False) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction {prediction!r} has no known mapping; known: {', '.join(PREDICTIONS)}")
        alpha_bars = np.asarray(alpha_bars, dtype=np.float64)
        proper = alpha_bars.ndim == 1 and np.all((alpha_bars >= 0) & (alpha_bars < 1))
        if not (proper and np.all(np.diff(alpha_bars) < 0) and (alpha_bars > 0).sum() >= 2):
            raise ValueError("cumulative alphas must decrease within (0, 1)")
        self.steps = len(alpha_bars)
        self.levels = sigma_from_alpha_bar(alpha_bars[alpha_bars > 0])
        self.prediction = prediction
        self.whole_steps = whole_steps
        self.sigma_range = (float(self.levels[0]), float(self.levels[-1]))
        self._tables: dict[torch.device, torch.Tensor] = {}  # ln sigma of each step, where it is needed

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        """Real-valued step index t(sigma), (B,) float32, or int64 with `whole_steps`."""
        import torch

        if sigma.device not in self._tables:
            self._tables[sigma.device] = torch.as_tensor(self.levels).log().to(sigma.device)
        table = self._tables[sigma.device]
        query = sigma.double().log().clamp(table[0], table[-1])
        right = torch.searchsorted(table, query).clamp(1, len(table) - 1)
        left = right - 1
        t = left + (query - table[left]) / (table[right] - table[left])
        return t.round().long() if self.whole_steps else t.float()

    def denoise(self, forward: Forward, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `Process.denoise`."""
        s = _column(sigma, x)
        alpha = 1 / (1 + s**2).sqrt()
        state = alpha * x
        output = forward(state, self.timestep(sigma))
        if self.prediction == "epsilon":
            return x - s * output
        if self.prediction == "v_prediction":  # v = alpha eps - alpha sigma x0 (arXiv:2202.00512)
            return alpha * state - alpha * s * output
        return output

    def native_time(self, sigma: FloatArray) -> FloatArray:
        """t/T with t the scheduler's index 0 … T-1."""
        steps = np.arange(len(self.levels))
        return np.asarray(np.interp(np.log(sigma), np.log(self.levels), steps) / self.steps)

    def describe(self) -> str:
        """See `Process.describe`."""
        return f"vp {self.prediction} {self.whole_steps} {self.steps} {self.levels.tobytes().hex()}"


class VarianceExploding(Process):
    """Score-SDE with ``sigma(u) = sigma_min (sigma_max / sigma_min)^u`` (arXiv:2011.13456, eq. 9).

    The network takes sigma itself as its time. What it returns is the score, and E[x0 | x] = x + sigma² score; or
    ("denoised") E[x0 | x] / sigma for an input scaled to x / sqrt(1 + sigma²), and the score is Tweedie's
    (E[x0 | x] - x) / sigma². The second form need not carry the noise through the network, which matters where
    pixels are folded into more channels than it is wide.
    """

    def __init__(self, sigma_min: float, sigma_max: float, prediction: str = "score") -> None:
        if not 0 < sigma_min < sigma_max < np.inf:
            raise ValueError(f"needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        if prediction not in SCORES:
            raise ValueError(f"prediction {prediction!r} has no known mapping; known: {', '.join(SCORES)}")
        self.sigma_range = (float(sigma_min), float(sigma_max))
        self.prediction = prediction

    def denoise(self, forward: Forward, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `Process.denoise`; sigma must be positive: a 'fourier' network divides its output by it."""
        s = _column(sigma, x)
        if self.prediction == "denoised":
            return s * forward(x / (1 + s**2).sqrt(), sigma)
        return x + s**2 * forward(x, sigma)

    def native_time(self, sigma: FloatArray) -> FloatArray:
        """u in [0, 1]."""
        low, high = self.sigma_range
        return np.asarray(np.clip(np.log(sigma / low) / np.log(high / low), 0.0, 1.0))

    def describe(self) -> str:
        """See `Process.describe`."""
        return f"ve {self.sigma_range!r}" + ("" if self.prediction == "score" else f" {self.prediction}")


class DataRange:
    """Affine map between [-1, 1] and the range [low, high] in which a network was trained."""

    def __init__(self, low: float, high: float) -> None:
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"a data range needs finite low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        self.scale, self.shift = (high - low) / 2, (high + low) / 2

    def sigma_range(self, process: Process) -> tuple[float, float]:
        """The process's range of noise levels, seen from [-1, 1]."""
        low, high = process.sigma_range
        return low / self.scale, high / self.scale

    def denoise(self, process: Process, forward: Forward, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """E[x0 | x] in [-1, 1] coordinates: x (B, *shape), sigma (B,)."""
        inner = process.denoise(forward, self.scale * x + self.shift, self.scale * sigma)
        return (inner - self.shift) / self.scale

    def native_time(self, process: Process, log_snr: FloatArray) -> FloatArray:
        """The process's clock at `log_snr` (T,) of [-1, 1] coordinates."""
        return process.native_time(self.scale * sigma_from_log_snr(np.asarray(log_snr, dtype=np.float64)))


def _column(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) => (B, 1, …, 1), to broadcast over x (B, *shape)."""
    return sigma.view(-1, *[1] * (x.dim() - 1))
