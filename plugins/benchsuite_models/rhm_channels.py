"""Noise channels of a Random Hierarchy Model: what is known of every token, and what mean field makes of it.

* ``epsilon``: belief 1 - epsilon + epsilon / v on the true symbol, epsilon / v on the others (arXiv 2410.13770,
  eq. 17). Always centred on the truth, so no noise channel in the strict sense: the process of the theory.
* ``masking``: every token is hidden with probability f, else certain (eq. 16; absorbing diffusion).
* ``gaussian``: one-hot tokens plus Gaussian noise, the channel of all other protocols, at log-SNR.

Mean field is exact (on average over rules, for large v) for the epsilon-process. For the other two it is evaluated
at the epsilon of equal mean leaf belief, which is qualitative only: their evidence differs from leaf to leaf and
may point to a wrong symbol, and the class is lost earlier.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchsuite import NoiseChannel, UsageError
from benchsuite_models.rhm_theory import mean_field

if TYPE_CHECKING:
    import torch

Curve = NDArray[np.float64]

CHANNELS = (
    NoiseChannel("gaussian", "log_snr", -5.0, 5.0),
    NoiseChannel("masking", "masked fraction"),
    NoiseChannel("epsilon", "epsilon", random=False),
)
#: what mean field is called on each of them
THEORIES = {
    "epsilon": "mean field",
    "masking": "mean field at equal leaf belief",
    "gaussian": "mean field at equal leaf belief",
}
#: noise draws behind the mean leaf belief under Gaussian noise (standard error below 0.005)
BELIEF_DRAWS = 4096


def log_evidence(channel: str, level: float, tokens: torch.Tensor, v: int, keys: torch.Tensor) -> torch.Tensor:
    """What a channel says of every token: log-likelihoods (B, d, v) float64, -inf = excluded.

    Args:
        level: log-SNR, masked fraction or epsilon.
        tokens: (B, d) int64, the truth.
        keys: (B,) int64 stream keys; at another level the noise is the same.

    Raises:
        UsageError: an unknown channel, or a loss outside [0, 1].
    """
    import torch

    from benchsuite.randomness import normal, uniform

    if channel == "epsilon":
        return epsilon_beliefs(tokens, v, level).log()
    if channel == "masking":
        if not 0 <= level <= 1:
            raise UsageError(f"the masked fraction must be in [0, 1], got {level:g}")
        # uniforms lie strictly inside (0, 1): nothing is masked at 0 and everything at 1
        masked = uniform(keys, 0, (tokens.shape[1],)).to(tokens.device) < level
        return masking_beliefs(tokens, v, masked).log()
    if channel == "gaussian":
        sigma = math.exp(-level / 2)
        noise = normal(keys, 0, (tokens.shape[1], v)).to(tokens.device).double()
        return (torch.nn.functional.one_hot(tokens, v) + sigma * noise) / sigma**2
    raise UsageError(f"unknown noise channel {channel!r}; known: {', '.join(c.name for c in CHANNELS)}")


def epsilon_beliefs(tokens: torch.Tensor, v: int, epsilon: float) -> torch.Tensor:
    """1 - epsilon + epsilon / v on the true symbol, epsilon / v on the others: (B, d) => (B, d, v) float64."""
    import torch

    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon must be in [0, 1], got {epsilon:g}")
    return (1 - epsilon) * torch.nn.functional.one_hot(tokens, v).double() + epsilon / v


def masking_beliefs(tokens: torch.Tensor, v: int, masked: torch.Tensor) -> torch.Tensor:
    """Certainty of the visible symbols, 1 / v where `masked` (B, d) bool: (B, d) => (B, d, v) float64."""
    import torch

    visible = torch.nn.functional.one_hot(tokens, v).double()
    return torch.where(masked[:, :, None], torch.full_like(visible, 1 / v), visible)


def equivalent_epsilon(channel: str, levels: Curve, v: int) -> Curve:
    """The epsilon whose leaf belief is the mean one of the channel at `levels` (S,): values in [0, 1]."""
    if channel in ("epsilon", "masking"):  # a masked fraction f: 1 - f + f / v
        return np.asarray(levels, dtype=float)
    # softmax of (one-hot + sigma n) / sigma² at the true symbol; the same draws at all levels
    n = np.random.default_rng(0).standard_normal((BELIEF_DRAWS, v))
    beliefs = []
    for level in levels:
        sigma = math.exp(-level / 2)
        against = (n[:, 1:] - n[:, :1]) / sigma - 1 / sigma**2
        beliefs.append((1 / (1 + np.exp(np.minimum(against, 700)).sum(axis=1))).mean())
    return np.clip((1 - np.array(beliefs)) / (1 - 1 / v), 0.0, 1.0)


def mean_field_curves(channel: str, levels: Curve, v: int, m: int, s: int, L: int) -> dict[str, Curve]:
    """Mean field at `levels` (S,): ``kept/class`` and ``kept/level-l``, and ``susceptibility`` if it is exact."""
    points = [mean_field(float(epsilon), v, m, s, L) for epsilon in equivalent_epsilon(channel, levels, v)]
    retention = np.array([point.retention for point in points])  # (S, L + 1), leaves first
    curves = {f"kept/level-{level}": retention[:, level] for level in range(L)}
    curves["kept/class"] = retention[:, L]
    if channel == "epsilon":
        # at epsilon = 0 nothing changes: the limit, a token alone
        curves["susceptibility"] = np.array([p.susceptibility() if p.retention[0] < 1 else 1.0 for p in points])
    return curves
