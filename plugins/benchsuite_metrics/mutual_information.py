"""Mutual information between a factor and the noisy image, from the heads of one network.

    I(factor; x_lambda) = ½ ∫_{-inf}^{lambda} E‖eps_cond - eps_uncond‖² d log_snr

(I-MMSE: Guo, Shamai & Verdú 2005; Kong et al. 2023, arXiv:2302.03792; the score-difference form of
MINDE, arXiv:2310.09031, and of Franzese et al., arXiv:2410.03368, with log-SNR as the clock).

A trained network's heads err, and the integral adds up squares of their errors over the whole axis. Replace the
unconditional head by the mixture sum_k pi(k) eps_k, with pi the filter of the label along the item's own path
(see `benchsuite.protocols.label_filter`). Then the mse difference of mixture and true head is the increment of
ln pi(true label), and its integral is known without integrating:

    ½ ∫ E[‖eps - eps_pi‖² - ‖eps - eps_true‖²] d log_snr = H + E[ln pi_lambda(true label)].

This is a log score: it never exceeds H, is at most I whatever the heads' errors, and misses I by the mean
divergence of pi from the exact posterior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite import Curve, LabelFilter, Metric, NoiseSweep, NotApplicableError, Record
from benchsuite.contracts import FloatArray

#: above H, or below what it has been, by more than this (nats) beyond two standard errors: flagged
EXCESS = 0.05
#: chance that a filter which is right gives up a value it was all but certain of, in any path
FALSE_ALARM = 0.05


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

    Published is H + E[ln pi(true label)] of the label filter, extrapolated to steps of length 0 (the error is
    proportional to the length: to the fine filter is added what it is ahead of the coarse one, see `_ahead`).
    Diagnostics, which with exact heads have the same mean:

    * `filter-bound`: the fine filter alone, whose mean is at most I at any step length;
    * `mixture`: the integral of sum_k pi(k) ‖eps_k - eps_pi‖² / 2, where heads that disagree count as informed;
    * `mse-difference`: the integral of (‖eps - eps_uncond‖² - ‖eps - eps_cond‖²) / 2, off by the integral of the
      difference between the two heads' errors;
    * `plug-in`: the integral of ‖eps_cond - eps_uncond‖² / 2, which counts every disagreement as information.

    Factors with too many values to filter, and all factors jointly, publish the mse difference. On an exact
    model's own population the true label is replaced by its posterior given the noisy image (Rao–Blackwell: the
    same mean with less noise), and what is not filtered publishes the combination with the smallest variance of
    two forms that have the same mean: of the integral (of the rate's conditional expectation, `rao-blackwell`, or
    failing that of the mse difference) and H - H(posterior), which has no noise left where the value is certain;
    where the joint posterior is not known, of mse difference and plug-in. The oracle of a data set, on the items
    of other models, publishes H + ln p(true label | x) at the points of the filter's paths.
    """

    name = "mutual-information"
    version = "4"
    paper = "arXiv:2410.03368"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (NoiseSweep(heads=True), LabelFilter())
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
        return [curve for factor in factors for curve in self._factor(record, records["label_filter"], factor)]

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """H(factor) - E[H(p)], nats."""
        return float(_entropy(prior) - _entropy(posterior).mean())

    def _factor(self, sweep: Record, filtered: Record, factor: str) -> list[Curve]:
        entropy = float(sweep.meta["entropy"][factor])
        forms = _integrals(sweep, factor)
        if f"filter/{factor}" in filtered.arrays:
            forms = _filter_forms(filtered, factor, entropy) | forms
        elif sweep.meta["exact"]:
            forms = _quietest(sweep, factor, entropy, forms) | forms
        published = next(iter(forms))
        curves = []
        for form, (record, information) in forms.items():
            log_snr = record["log_snr"]
            curves.append(
                Curve(
                    factor=factor,
                    log_snr=log_snr,
                    per_item=information,
                    items=tuple(record["items"]),
                    unit=self.unit,
                    ceiling=entropy,
                    variant="" if form == published else form,
                    flags=_flags(_by_item(information, record["items"]), log_snr, entropy)
                    + (_given_up(filtered, factor) if form == "filter" else ()),
                    extra={"form": form, "first_level": float(information[:, 0].mean())},
                )
            )
        return sorted(curves, key=lambda curve: curve.variant)


def _integrals(sweep: Record, factor: str) -> dict[str, tuple[Record, FloatArray]]:
    """{form: (record, (M, T) nats)} of what is integrated over the noise sweep, the best one first."""
    difference = sweep["error/unconditional"] - sweep[f"error/{factor}"]
    rates = {"mse-difference": difference / 2, "plug-in": sweep[f"gap/{factor}"] / 2}
    if sweep.meta["exact"] and f"spread/{factor}" in sweep.arrays:
        rates = {"rao-blackwell": sweep[f"spread/{factor}"] / 2} | rates
    return {
        form: (sweep, cumulative_information(rate.astype(np.float64), sweep["log_snr"]))
        for form, rate in rates.items()
    }


def _quietest(
    sweep: Record, factor: str, entropy: float, forms: Mapping[str, tuple[Record, FloatArray]]
) -> dict[str, tuple[Record, FloatArray]]:
    """{form: (record, (M, T) nats)}, the least noisy combination of two forms that have the same mean."""
    integral = next(iter(forms.values()))[1]
    name, other = "posterior", forms["plug-in"][1]
    if f"information/{factor}" in sweep.arrays:
        other = sweep[f"information/{factor}"].astype(np.float64)
    elif "rao-blackwell" in forms:
        other = entropy - _entropy(sweep[f"posterior/{factor}"].astype(np.float64))
    else:
        name = "control-variate"
    return {name: (sweep, _least_variance(integral, other, sweep["items"]))}


def _filter_forms(record: Record, factor: str, entropy: float) -> dict[str, tuple[Record, FloatArray]]:
    """{form: (record, (M, T) nats)} of what the label filter knows."""
    fine = record[f"filter/{factor}"].astype(np.float64)
    if record.meta["exact"]:
        truth = record[f"posterior/{factor}"].astype(np.float64)
    else:
        truth = np.eye(fine.shape[2])[record[f"labels/{factor}"]][:, None]
    bound = entropy + (truth * fine).sum(axis=2)
    if record.meta.get("stated"):
        return {"posterior": (record, bound)}
    rough = entropy + (truth * record[f"coarse/{factor}"].astype(np.float64)).sum(axis=2)
    rate = record[f"mixture/{factor}"].astype(np.float64) / 2
    return {
        "filter": (record, bound + _ahead(bound, rough, record)),
        "filter-bound": (record, bound),
        "mixture": (record, cumulative_information(rate, record["log_snr"])),
    }


def _ahead(fine: FloatArray, rough: FloatArray, record: Record) -> FloatArray:
    """How much more the fine filter knows than one of twice its steps, (M, T) nats.

    The coarse filter's steps leave one level out, so that neighbouring levels are of two chains of them, each with
    luck of its own; a chain alone would put it into every other level. Their mean is taken: of a level and of both
    its neighbours, as what one filter is ahead of the other changes slowly.
    """
    ahead = fine - rough
    log_snr = record["log_snr"]
    if len(log_snr) < 3 or round((log_snr[1] - log_snr[0]) / record.meta["spacing"]) % 2 == 0:
        return ahead  # all levels that were kept are of one chain
    both = ahead.copy()
    both[:, 1:-1] = (ahead[:, :-2] + 2 * ahead[:, 1:-1] + ahead[:, 2:]) / 4
    both[:, -1] = (ahead[:, -2] + ahead[:, -1]) / 2
    return both


def _given_up(record: Record, factor: str) -> tuple[str, ...]:
    """What a filter of the label cannot do, in as few as one path, which the mean over all would hide.

    Given the true value, the odds of all others against it are a martingale of the exact filter: once they are
    below some odds, the chance that they ever come to 1 : 1 is no more than those (Ville 1939). So a filter that
    was that certain of the true value, and later prefers others, errs with all the confidence there is.
    """
    if record.meta["exact"]:
        return ()
    p = np.exp(record[f"filter/{factor}"].astype(np.float64))
    p = np.take_along_axis(p, record[f"labels/{factor}"][:, None, None], axis=2)[:, :, 0]
    certain = np.maximum.accumulate(p >= 1 - FALSE_ALARM / len(p), axis=1)
    lost = (certain & (p < 0.5)).any(axis=1)
    if not lost.any():
        return ()
    return (f"gives up the true value in {lost.sum()} of {len(p)} paths where it had been all but certain",)


def _entropy(p: FloatArray) -> FloatArray:
    entropy: FloatArray = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return entropy


def _least_variance(a: FloatArray, b: FloatArray, items: FloatArray) -> FloatArray:
    """The combination a + beta (b - a), beta per level, whose mean over items varies least: (M, T).

    Both have the same expectation, so any beta is unbiased; the fitted one costs a bias of order 1 / items.
    """
    means = _by_item(a, items), _by_item(b - a, items)
    mean_a, mean_gap = (m - m.mean(axis=0) for m in means)
    spread = (mean_gap**2).sum(axis=0)
    beta = np.where(spread > 0, -(mean_a * mean_gap).sum(axis=0) / np.maximum(spread, 1e-300), 0.0)
    combined: FloatArray = a + beta * (b - a)
    return combined


def _by_item(values: FloatArray, items: FloatArray) -> FloatArray:
    """Rows of one item averaged: (M, T) => (N, T)."""
    _, inverse, counts = np.unique(items, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, inverse, values)
    return sums / counts[:, None]


def _flags(information: FloatArray, log_snr: FloatArray, entropy: float) -> tuple[str, ...]:
    """What cannot be, by more than `EXCESS` and sampling error; information (N, T) by item.

    More than twice H is flagged whatever the error: a few items may carry it, and the error with it.
    """

    def beyond_chance(values: FloatArray) -> bool:
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        return bool(values.mean() - 2 * error > EXCESS)

    flags, mean = [], information.mean(axis=0)
    top = int(mean.argmax())
    if beyond_chance(information[:, top] - entropy) or mean[top] > 2 * entropy + EXCESS:
        flags.append(f"exceeds H by {mean[top] - entropy:.2f} nats at log-SNR {log_snr[top]:.1f}")
    after = int((np.maximum.accumulate(mean) - mean).argmax())
    before = int(mean[: after + 1].argmax())
    if beyond_chance(information[:, before] - information[:, after]):
        flags.append(f"falls by {mean[before] - mean[after]:.2f} nats though information cannot")
    return tuple(flags)
