"""Mutual information between a factor and the noisy image, from the two heads of one network.

    I(factor; x_lambda) = ½ ∫_{-inf}^{lambda} E‖eps_cond - eps_uncond‖² d log_snr

(I-MMSE: Guo, Shamai & Verdú 2005; Kong et al. 2023, arXiv:2302.03792; the score-difference form of
MINDE, arXiv:2310.09031, and of Franzese et al., arXiv:2410.03368, with log-SNR as the clock).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite import Curve, Metric, NoiseSweep, NotApplicableError, Record
from benchsuite.contracts import FloatArray

#: above H by more than this (nats) the tail is flagged
EXCESS = 0.05


def cumulative_information(rate: FloatArray, log_snr: FloatArray) -> FloatArray:
    """∫ rate d log_snr from -infinity to every level.

    Args:
        rate: (..., T) information per unit log-SNR, nats.
        log_snr: (T,) ascending.

    Returns:
        (..., T) nats. Below the grid information is proportional to the SNR, so that the residual equals the
        rate at the lowest level; above it, the trapezoidal rule with its end correction h²/12 f' (fourth order:
        at low SNR, where items hardly differ, the plain rule's bias would exceed the sampling error).
    """
    h, slope = np.diff(log_snr), np.gradient(rate, log_snr, axis=-1, edge_order=2 if len(log_snr) > 2 else 1)
    steps = h * (rate[..., 1:] + rate[..., :-1]) / 2 - h**2 / 12 * np.diff(slope, axis=-1)
    residual = rate[..., :1]
    return np.concatenate([residual, residual + np.cumsum(steps, axis=-1)], axis=-1)


class MutualInformation(Metric):
    """I(factor; x) in nats against log-SNR; 0 = nothing known, H = entirely fixed.

    Published is the mse-difference form, whose integrand ‖eps - eps_uncond‖² - ‖eps - eps_cond‖² has the same
    expectation as the plug-in form for a perfect model but does not count disagreement of the heads as
    information. On an exact model's own population two forms with the same mean and less noise are at hand: the
    conditional expectation of either integrand given the noisy image (Rao–Blackwell), which is published for
    factors with few values, and otherwise the combination of the two forms with the smallest variance (their
    difference has mean zero: a control variate). The forms that are not published are kept as diagnostics.
    """

    name = "mutual-information"
    version = "1"
    paper = "arXiv:2410.03368"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (NoiseSweep(heads=True),)
    tolerance = 0.03

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """A published curve and its diagnostics per conditional head: every factor, and all of them jointly."""
        record = records["noise_sweep"]
        factors = record.meta["heads"]
        if not factors:
            raise NotApplicableError(
                "the model has no conditional head for any factor of this data set; mutual information by "
                "I-MMSE needs a conditional and an unconditional head"
            )
        return [curve for factor in factors for curve in self._factor(record, factor)]

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """H(factor) - E[H(p)], nats."""
        return float(_entropy(prior) - _entropy(posterior).mean())

    def _factor(self, record: Record, factor: str) -> list[Curve]:
        log_snr = record["log_snr"]
        difference = record["error/unconditional"] - record[f"error/{factor}"]
        rates = {"mse-difference": difference / 2, "plug-in": record[f"gap/{factor}"] / 2}
        forms = {form: cumulative_information(rate.astype(np.float64), log_snr) for form, rate in rates.items()}
        published = "mse-difference"
        if record.meta["exact"]:
            if f"spread/{factor}" in record.arrays:
                published, rate = "rao-blackwell", record[f"spread/{factor}"] / 2
                forms[published] = cumulative_information(rate.astype(np.float64), log_snr)
            else:
                published = "control-variate"
                forms[published] = _least_variance(forms["mse-difference"], forms["plug-in"], record["items"])
        entropy = float(record.meta["entropy"][factor])
        curves = []
        for form, information in forms.items():
            curves.append(
                Curve(
                    factor=factor,
                    log_snr=log_snr,
                    per_item=information,
                    items=tuple(record["items"]),
                    unit=self.unit,
                    ceiling=entropy,
                    variant="" if form == published else form,
                    flags=_flags(information.mean(axis=0), log_snr, entropy),
                    extra={"form": form, "residual_below_grid": float(information[:, 0].mean())},
                )
            )
        return sorted(curves, key=lambda curve: curve.variant)


def _entropy(p: FloatArray) -> FloatArray:
    entropy: FloatArray = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return entropy


def _least_variance(a: FloatArray, b: FloatArray, items: FloatArray) -> FloatArray:
    """The combination a + beta (b - a), beta per level, whose mean over items varies least: (M, T).

    Both have the same expectation, so any beta is unbiased; the fitted one costs a bias of order 1 / items.
    """
    _, inverse, counts = np.unique(items, return_inverse=True, return_counts=True)
    mean_a, mean_gap = np.zeros((2, len(counts), a.shape[1]))
    np.add.at(mean_a, inverse, a)
    np.add.at(mean_gap, inverse, b - a)
    mean_a, mean_gap = (m / counts[:, None] - (m / counts[:, None]).mean(axis=0) for m in (mean_a, mean_gap))
    spread = (mean_gap**2).sum(axis=0)
    beta = np.where(spread > 0, -(mean_a * mean_gap).sum(axis=0) / np.maximum(spread, 1e-300), 0.0)
    combined: FloatArray = a + beta * (b - a)
    return combined


def _flags(mean: FloatArray, log_snr: FloatArray, entropy: float) -> tuple[str, ...]:
    flags = []
    excess = float(mean.max()) - entropy
    if excess > EXCESS:
        flags.append(f"exceeds H by {excess:.2f} nats at log-SNR {log_snr[int(mean.argmax())]:.1f}")
    drop = float((np.maximum.accumulate(mean) - mean).max())
    if drop > EXCESS:
        flags.append(f"falls by {drop:.2f} nats though information cannot")
    return tuple(flags)
