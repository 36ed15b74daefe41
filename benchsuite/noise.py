"""Noise coordinates: sigma ↔ alpha_bar ↔ log_snr, and grids on the log-SNR axis.

One clock for every family (variance-exploding coordinates, ``x = x0 + sigma n``):
``log_snr = 2 ln(alpha / sigma_native) = -2 ln sigma``, with ``alpha_bar = alpha²  = 1 / (1 + sigma²)`` for a
variance-preserving process. All functions take and return floats or arrays (numpy or torch) of one shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchsuite.contracts import FloatArray


def log_snr_from_sigma(sigma: Any) -> Any:
    """log_snr = -2 ln sigma, for sigma > 0."""
    return -2 * _log(sigma)


def sigma_from_log_snr(log_snr: Any) -> Any:
    """sigma = exp(-log_snr / 2)."""
    return _exp(-log_snr / 2)


def sigma_from_alpha_bar(alpha_bar: Any) -> Any:
    """sigma = sqrt((1 - alpha_bar) / alpha_bar) for alpha_bar in (0, 1): VP state divided by alpha."""
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def alpha_bar_from_sigma(sigma: Any) -> Any:
    """alpha_bar = 1 / (1 + sigma²)."""
    return 1 / (1 + sigma**2)


def log_snr_from_alpha_bar(alpha_bar: Any) -> Any:
    """log_snr = ln(alpha_bar / (1 - alpha_bar))."""
    return _log(alpha_bar) - _log(1 - alpha_bar)


def alpha_bar_from_log_snr(log_snr: Any) -> Any:
    """alpha_bar = sigmoid(log_snr)."""
    return 1 / (1 + _exp(-log_snr))


def log_snr_grid(low: float, high: float, nodes: int) -> FloatArray:
    """`nodes` equidistant levels from `low` (noise) to `high` (clean), ascending, float64.

    Raises:
        ValueError: unless low < high, both finite, and nodes >= 2.
    """
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"a log-SNR grid needs finite low < high, got {low} and {high}")
    if nodes < 2:
        raise ValueError(f"a log-SNR grid needs at least 2 nodes, got {nodes}")
    return np.linspace(low, high, nodes)


def _log(value: Any) -> Any:
    return value.log() if hasattr(value, "log") else np.log(value)


def _exp(value: Any) -> Any:
    return value.exp() if hasattr(value, "exp") else np.exp(value)
