"""What exact models must give, by quadrature: written from the formulas, independent of the code under test."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import roots_hermitenorm
from scipy.stats import norm

Array = NDArray[np.float64]


def gauss(points: int) -> tuple[Array, Array]:
    """Nodes and weights of E f(Z), Z standard normal."""
    z, w = roots_hermitenorm(points)
    return z, w / w.sum()


def two_gaussians(rho: float) -> tuple[float, float, float]:
    """(I in nats, E sum p² = agreement = retention, Bayes accuracy) for classes ±m at rho = ‖m‖² / Γ.

    I = ln 2 - E ln(1 + e^{-2 rho - 2 √rho Z}), agreement = (1 + E tanh(rho + √rho Z)) / 2, accuracy = Φ(√rho).
    """
    z, w = gauss(160)
    information = np.log(2) - w @ np.logaddexp(0, -2 * rho - 2 * np.sqrt(rho) * z)
    return float(information), float((1 + w @ np.tanh(rho + np.sqrt(rho) * z)) / 2), float(norm.cdf(np.sqrt(rho)))


def rho_where(information_share: float) -> float:
    """rho at which I / ln 2 of two Gaussians is `information_share`."""
    return float(brentq(lambda rho: two_gaussians(rho)[0] / np.log(2) - information_share, 1e-4, 30))


def simplex(classes: int, c: float) -> tuple[float, float]:
    """(I in nats, E sum p²) of K equally likely, equidistant Gaussian classes, c = (distance / √2) / √Γ.

    With class 1 true, the logits are independent: l_1 = c² + c Z, l_k = c Z. With S = sum e^{l_k} and
    L_k(t) = E exp(-t e^{l_k}),

        E ln S = ∫ (e^{-t} - prod_k L_k) dt / t,    E p_k² = ∫ t E[e^{2 l_k} exp(-t e^{l_k})] prod_{j≠k} L_j dt,

    which are one-dimensional integrals over ln t.
    """
    z, w = gauss(100)
    true, other = c**2 + c * z, c * z
    log_t = np.linspace(-(c**2) - 14 * c - 40, 14 * c + 12, 1201)[:, None]
    t = np.exp(log_t)
    small = {"true": np.exp(-t * np.exp(true)) @ w, "other": np.exp(-t * np.exp(other)) @ w}
    square = {
        "true": np.exp(2 * (true + log_t) - t * np.exp(true)) @ w,
        "other": np.exp(2 * (other + log_t) - t * np.exp(other)) @ w,
    }
    step = log_t[1, 0] - log_t[0, 0]
    log_sum = (np.exp(-t[:, 0]) - small["true"] * small["other"] ** (classes - 1)).sum() * step
    hit = (square["true"] * small["other"] ** (classes - 1)).sum() * step
    miss = (square["other"] * small["true"] * small["other"] ** (classes - 2)).sum() * step
    return float(np.log(classes) - (log_sum - c**2)), float(hit + (classes - 1) * miss)
