"""Checks of a denoiser against clean data: limits and inequalities that hold for any useful one."""

from __future__ import annotations

import math

import numpy as np

from benchsuite.testing.model_case import ITEMS, ModelCase
from benchsuite.testing.results import Checks, Observation, Skip, at_most, worst

#: a trained network's error at sigma is a fraction of sigma; in pure noise this much of it is forgiven
LEARNED = 0.1
#: sampling error of a ratio of two errors on the same items and noise
SLACK = 0.03

LIMITS = Checks[ModelCase]()


@LIMITS.add("high-snr-limit", "D(x; sigma_min) is the clean item, to within the noise")
def _high_snr_limit(case: ModelCase) -> Observation:
    case.ready()
    low = case.model.sigma_range[0]
    return at_most("rms error", math.sqrt(case.error(low)), 1.5 * low + 0.01 * case.scale[1])


@LIMITS.add("low-snr-limit", "in pure noise D is the mean of the data, whatever x is")
def _low_snr_limit(case: ModelCase) -> Observation:
    mean, std = case.scale
    dim = mean.numel()
    sigma = case.within(10 * std * math.sqrt(dim))
    if sigma < 3 * std:
        raise Skip(f"sigma_range ends at {sigma:.3g}, where data of rms {std:.2g} still show")
    x0 = case.data[0][:ITEMS]
    out = case.denoise(x0 + sigma * case.noise(x0), sigma)
    # a perfect denoiser keeps at most std² √dim / sigma of x, reached if all variance lies in one direction
    limit = std**2 * math.sqrt(dim) / sigma + 0.1 * std + (0 if case.model.exact else LEARNED * sigma)
    gap = float((out - mean).double().square().mean().sqrt())
    return at_most(f"rms distance from the mean at sigma = {sigma:.3g}:", gap, limit)


@LIMITS.add("denoises", "D errs less than x itself and less than the mean of the data")
def _denoises(case: ModelCase) -> Observation:
    found = []
    for sigma in _middle(case):
        idle = min(sigma, case.scale[1]) ** 2
        found.append((f"at sigma = {sigma:.3g}", case.error(sigma) / idle, 1 - SLACK))
    return worst("error relative to doing nothing", found)


@LIMITS.add("error-monotone", "the error does not fall as the noise grows")
def _error_monotone(case: ModelCase) -> Observation:
    std = case.scale[1]
    low, high = case.within(0.05 * std), case.within(5 * std)
    sigmas = np.geomspace(low, high, 9)
    errors = np.array([case.error(float(sigma)) for sigma in sigmas])
    # falls of what is next to nothing compared with the data do not count
    falls = errors[:-1] / np.maximum(errors[1:], (0.01 * std) ** 2)
    found = [(f"at sigma = {s:.3g}:", float(f), 1 + SLACK) for s, f in zip(sigmas[:-1], falls, strict=True)]
    return worst("error relative to that at the next level,", found)


@LIMITS.add("noise-level", "D errs least when it is told the true noise level, not half or twice it")
def _noise_level(case: ModelCase) -> Observation:
    found = []
    for sigma in _middle(case):
        errors = {factor: case.error(sigma, case.within(factor * sigma)) for factor in (0.5, 1.0, 2.0)}
        floor = (0.05 * case.scale[1]) ** 2  # where next to nothing is left, so is the difference
        for factor in (0.5, 2.0):
            ratio = (errors[1.0] + floor) / (errors[factor] + floor)
            found.append((f"told {factor:g} sigma at sigma = {sigma:.3g}:", ratio, 1 + SLACK))
    return worst("error when told the truth relative to", found)


def _middle(case: ModelCase) -> list[float]:
    """Levels at which data and noise are comparable and that the model accepts."""
    std = case.scale[1]
    low, high = case.model.sigma_range
    levels = [sigma for sigma in (0.5 * std, std, 2 * std) if 2 * low <= sigma <= high / 2]
    if not levels:
        raise Skip(f"sigma_range [{low:g}, {high:g}] does not hold the scale {std:.2g} of the data")
    return levels
