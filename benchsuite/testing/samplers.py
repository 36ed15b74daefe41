"""Checks of a reverse sampler, mostly exact: a linear denoiser maps noise linearly, so laws need no Monte Carlo.

With x0 ~ N(0, s²), D(x; sigma) = s² / (s² + sigma²) x. A trajectory is followed as its coefficients over the
independent normals it is made of (its start, and one per step); variances are sums of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch

from benchsuite.noise import sigma_from_log_snr
from benchsuite.samplers import Denoise, Noise
from benchsuite.testing.reference import ReferenceMixture
from benchsuite.testing.results import CheckResult, Checks, Observation, Skip, at_most, findings, worst

#: variance of the Gaussian data
S2 = 0.7
#: largest bias of retention, at so many log-SNR per step: fine enough for a sampler of order 1
BIAS, SPACING = 0.01, 0.0625


class Sampler(Protocol):
    """`benchsuite.samplers.reverse` with everything but these arguments fixed, or another loop in its place."""

    def __call__(
        self,
        denoise: Denoise,
        starts: Sequence[tuple[int, torch.Tensor]],
        sigmas: Sequence[float],
        *,
        noise: Noise,
    ) -> torch.Tensor:
        """Trajectories from several starting levels to sigma = 0, in the order of `starts`."""


@dataclass(frozen=True)
class SamplerCase:
    """A sampler and what it claims to be."""

    sampler: Sampler
    order: int
    stochastic: bool

    def needs_noise(self) -> None:
        """Raise Skip for an ODE, whose ends are not posterior draws."""
        if not self.stochastic:
            raise Skip("a deterministic sampler has no law given its start")

    def gaussian(self, sigmas: Sequence[float], start: float) -> torch.Tensor:
        """Coefficients (1 + steps,) of the result over its start and the noise of every step."""
        basis = torch.eye(len(sigmas), dtype=torch.float64)
        ends = self.sampler(
            _linear, [(0, start * basis[:1])], list(sigmas), noise=lambda i: basis[(i + 1) % len(basis)][None]
        )
        return ends[0]


SAMPLER = Checks[SamplerCase]()


def check_sampler(
    sampler: Sampler,
    *,
    order: int,
    stochastic: bool = True,
    name: str = "sampler",
    only: Iterable[str] | None = None,
    expected_failed: Mapping[str, str] | None = None,
) -> list[CheckResult]:
    """Hold a reverse sampler to its order and to the laws of the reverse SDE.

    Args:
        sampler: such as ``functools.partial(reverse, method="sde-2m")``.
        order: claimed weak order of convergence in the step of ln sigma.
        stochastic: whether it integrates the SDE; an ODE is spared the laws given the start.
        name: what to call it in the results.
        only: names of the checks to run; all of `SAMPLER_CHECKS` by default.
        expected_failed: {check: reason} of known failures. Strict: one that passes is not ok either.

    Raises:
        UsageError: an unknown check.
    """
    return SAMPLER.run(name, SamplerCase(sampler, order, stochastic), only, expected_failed)


def levels(low: float, high: float, steps: int) -> list[float]:
    """Descending sigmas, equidistant in log-SNR."""
    return [float(sigma_from_log_snr(low + (high - low) * i / steps)) for i in range(steps + 1)]


def _linear(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x * (S2 / (S2 + sigma**2))[:, None]


def _left(sigma: float) -> float:
    """Variance of x0 given x."""
    return S2 * sigma**2 / (S2 + sigma**2)


@SAMPLER.add("input-unchanged", "the starting points are not modified")
def _input(case: SamplerCase) -> Observation:
    start = torch.ones(2, 3, dtype=torch.float64)
    case.sampler(_linear, [(0, start)], levels(-2, 4, 8), noise=_fixed(2, 3))
    return findings([] if torch.equal(start, torch.ones_like(start)) else ["they were"], "no change")


@SAMPLER.add("entry-level", "a group joins at its own level: D first sees its x there, at that sigma")
def _entry(case: SamplerCase) -> Observation:
    sigmas = levels(-3, 5, 12)
    starts = [(i, torch.full((2, 3), 1.5 + i, dtype=torch.float64)) for i in (0, 4, 9)]
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        asked.append((x.clone(), sigma.clone()))
        return _linear(x, sigma)

    case.sampler(denoise, starts, sigmas, noise=_fixed(6, 3))
    wrong = []
    for index, x in starts:
        seen = [float(s[rows][0]) for y, s in asked if (rows := (y == x[0]).all(dim=1)).any()]
        if not seen:
            wrong.append(f"the group of level {index} is never asked about as it starts")
        elif not math.isclose(seen[0], sigmas[index], rel_tol=1e-6):
            wrong.append(f"the group of sigma = {sigmas[index]:.4g} is first taken for sigma = {seen[0]:.4g}")
    return findings(wrong, "D(x; sigma) of every start at its own level")


@SAMPLER.add("batch-invariance", "groups that share a batch come back as if alone")
def _batch(case: SamplerCase) -> Observation:
    sigmas = levels(-3, 5, 12)
    generator = torch.Generator().manual_seed(0)
    starts = [(i, torch.randn(2, 3, generator=generator, dtype=torch.float64)) for i in (0, 4, 9)]
    noise = torch.randn(len(sigmas), 6, 3, generator=generator, dtype=torch.float64)
    together = case.sampler(_linear, starts, sigmas, noise=lambda i: noise[i])
    found = []
    for number, start in enumerate(starts):
        rows = slice(2 * number, 2 * number + 2)
        alone = case.sampler(_linear, [start], sigmas, noise=lambda i, rows=rows: noise[i, rows])  # type: ignore[misc]
        found.append((f"of the group of level {start[0]}", float((together[rows] - alone).abs().max()), 1e-9))
    return worst("difference", found)


@SAMPLER.add("fresh-noise", "every step of every row has noise of its own")
def _fresh(case: SamplerCase) -> Observation:
    case.needs_noise()
    steps, asked = 12, list[int]()
    noise = torch.randn(steps, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def watched(step: int) -> torch.Tensor:
        asked.append(step)
        return noise[step]

    rows = case.sampler(_linear, [(0, torch.ones(2, 3, dtype=torch.float64))], levels(-3, 5, steps), noise=watched)
    missing = sorted(set(range(steps)) - set(asked))
    wrong = [f"none is drawn for steps {missing}"] if missing else []
    wrong += [f"that of step {step} is used again" for step in sorted(set(asked)) if asked.count(step) > 1]
    wrong += ["two rows share theirs"] if torch.allclose(rows[0], rows[1]) else []
    return findings(wrong, f"one draw for each of {steps} steps, another one in every row")


@SAMPLER.add("gaussian-variance", "Gaussian data come back with their variance (what is left at sigma_min less)")
def _variance(case: SamplerCase) -> Observation:
    sigmas = levels(-4, 8, 400)
    variance = float(case.gaussian(sigmas, math.sqrt(S2 + sigmas[0] ** 2)).square().sum())
    truth = S2 - _left(sigmas[-1])
    return at_most("relative error", abs(variance / truth - 1), 0.02)


@SAMPLER.add("empirical-order", "the error falls with the step as fast as the claimed weak order")
def _order(case: SamplerCase) -> Observation:
    errors = []
    for steps in (80, 160, 320):
        sigmas = levels(-4, 8, steps)
        variance = float(case.gaussian(sigmas, math.sqrt(S2 + sigmas[0] ** 2)).square().sum())
        errors.append(abs(variance - (S2 - _left(sigmas[-1]))))
    if max(errors) < 1e-10:
        return Observation(True, "no error at all", f"order {case.order}")
    order = min(math.log2(a / b) for a, b in pairwise(errors))
    return Observation(order >= case.order - 0.15, f"order {order:.2f}", f"at least {case.order} (to 0.15)")


@SAMPLER.add("conditional-law", "given its start, what comes back has the posterior's mean and variance")
def _conditional(case: SamplerCase) -> Observation:
    case.needs_noise()
    sigmas = levels(0, 8, 400)
    start, *noise = case.gaussian(sigmas, 1.0).tolist()
    gain, variance = S2 / (S2 + sigmas[0] ** 2), _left(sigmas[0]) - _left(sigmas[-1])
    drawn = sum(c**2 for c in noise)
    return worst(
        "relative error",
        [("of the mean", abs(start / gain - 1), 0.02), ("of the variance", abs(drawn / variance - 1), 0.02)],
    )


@SAMPLER.add("retention-bias", "at small steps a class is kept as often as the posterior says")
def _retention(case: SamplerCase) -> Observation:
    case.needs_noise()
    model, n = ReferenceMixture(), 4000
    sigmas = levels(0, 7, round(7 / SPACING))
    generator = torch.Generator().manual_seed(1)
    x = model.sample(n, generator)[0].double()
    x = x + sigmas[0] * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(sigmas), *x.shape, generator=generator, dtype=torch.float64)
    ends = case.sampler(model.denoise, [(0, x)], sigmas, noise=lambda i: noise[i])
    p = model.posterior(x, x.new_full((n,), sigmas[0]))["class"]
    back = model.posterior(ends, ends.new_full((n,), model.sigma_range[0]))["class"]
    excess = (p * back).sum(dim=1) - p.square().sum(dim=1)
    bias, error = float(excess.mean()), float(excess.std()) / math.sqrt(n)
    return at_most(f"bias {bias:+.4f}, beyond three standard errors:", abs(bias) - 3 * error, BIAS)


def _fixed(rows: int, width: int) -> Callable[[int], torch.Tensor]:
    """Noise (rows, width) of every step."""
    return lambda i: torch.randn(rows, width, generator=torch.Generator().manual_seed(i), dtype=torch.float64)


#: {name: promise} of everything that `check_sampler` runs
SAMPLER_CHECKS = SAMPLER.promises
