"""Exact models with one mistake each: a Gaussian mixture of four classes, wrong in one place."""

from __future__ import annotations

import math

import torch
from benchsuite_models.exact_mixture import ExactMixture

from planted import Bug

Labels = torch.Tensor | None
#: 0.25 log-SNR
ONE_STEP = math.exp(0.125)


class Healthy(ExactMixture):
    """The correct counterpart of everything below."""

    def __init__(self) -> None:
        super().__init__(preset="simplex", classes=4, dim=6, distance=2.5, std=0.3)


class ReversedTime(Healthy):
    """Native time runs the other way: noise is taken for its reciprocal."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, 1 / sigma, labels)


class SigmaOffByOneStep(Healthy):
    """The level of the previous step, 0.25 log-SNR noisier, is used."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, sigma * ONE_STEP, labels)


class SigmaOffEverywhere(Healthy):
    """The same one step off in the posterior and its draws: consistent, and wrong."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, sigma * ONE_STEP, labels)

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().posterior(x, sigma * ONE_STEP)

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return super().sample_posterior(x, sigma * ONE_STEP, generator)


class CoarseTable(Healthy):
    """Native time is an int: the level is rounded down to one of a few, a factor 8 apart."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, 8 ** (sigma.log() / math.log(8)).floor(), labels)


class ScoreSign(Healthy):
    """x - sigma² score instead of x + sigma² score."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return 2 * x - super().denoise(x, sigma, labels)


class WrongDataRange(Healthy):
    """Data are taken to lie in [0, 1] on the way in, and are not brought back on the way out."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise((x + 1) / 2, sigma / 2, labels)


class NaNAtTheEnd(Healthy):
    """0 / 0 at the smallest noise level."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        out = super().denoise(x, sigma, labels)
        return torch.where((sigma <= self.sigma_range[0])[:, None], float("nan"), out)


class MutatedInput(Healthy):
    """Scales x in place before the network sees it."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        out = super().denoise(x, sigma, labels)
        x /= (1 + sigma[:, None] ** 2).sqrt()
        return out


class BatchDependent(Healthy):
    """Normalises by a statistic of the batch."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        out = super().denoise(x, sigma, labels)
        return out + 0.01 * x.mean(dim=0)


class GlobalGenerator(Healthy):
    """Advances torch's global generator, though nothing depends on it."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        torch.rand(1)
        return super().denoise(x, sigma, labels)


class GradModeLeak(Healthy):
    """Turns autograd off for everybody."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return super().denoise(x, sigma, labels)


class Stochastic(Healthy):
    """Dropout left on."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        out = super().denoise(x, sigma, labels)
        return out * (1 + 0.01 * torch.randn_like(out))


class DtypeLeak(Healthy):
    """Returns the float64 it computes in."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x.double(), sigma.double(), labels)


class SwappedHeads(Healthy):
    """The conditional pass comes first in the stack, the unconditional one second."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        labels = torch.full((len(x), 1), -1) if labels is None else labels
        known = (labels >= 0) & (labels < self.factors[0].size)
        return super().denoise(x, sigma, torch.where(labels == -1, 0, torch.where(known, -1, labels)))


class LabelsOffByOne(Healthy):
    """Label k is looked up in row k - 1, the last one first."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        if labels is not None:
            size = self.factors[0].size
            labels = torch.where((labels >= 0) & (labels < size), (labels - 1) % size, labels)
        return super().denoise(x, sigma, labels)


class NullIsClassZero(Healthy):
    """-1 is clamped to 0: "not told" becomes the first class."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, sigma, None if labels is None else labels.masked_fill(labels == -1, 0))


class LabelsClamped(Healthy):
    """A label out of range silently becomes another one."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        return super().denoise(x, sigma, None if labels is None else labels.clamp(-1, self.factors[0].size - 1))


class LabelsIgnored(Healthy):
    """One head for all labels."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        super().denoise(x, sigma, labels)  # labels are still checked
        return super().denoise(x, sigma)


class MostProbableComponent(Healthy):
    """The mean of the most probable component instead of the mean over components."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Labels = None) -> torch.Tensor:
        labels = torch.full((len(x), 1), -1) if labels is None else labels
        best = super().posterior(x, sigma)["class"].argmax(dim=1, keepdim=True)
        return super().denoise(x, sigma, torch.where(labels == -1, best, labels))


class Unnormalised(Healthy):
    """Likelihoods without the division by their sum."""

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: 0.9 * p for name, p in super().posterior(x, sigma).items()}


class Overconfident(Healthy):
    """A posterior at half the temperature: normalised, and wrong."""

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        squared = {name: p**2 for name, p in super().posterior(x, sigma).items()}
        return {name: p / p.sum(dim=1, keepdim=True) for name, p in squared.items()}


class ColumnsRolled(Healthy):
    """The posterior of value k stands in column k + 1."""

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: p.roll(1, dims=1) for name, p in super().posterior(x, sigma).items()}


class WrongPrior(Healthy):
    """States a prior that its samples do not follow."""

    def prior(self) -> dict[str, torch.Tensor]:
        return {"class": torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64)}


class SeedBlind(Healthy):
    """The same noise for every row of a batch of draws."""

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        k = super().posterior(x, sigma)["class"].cumsum(dim=1)
        u = torch.rand(1, generator=generator, dtype=x.dtype)
        labels = (k < u).sum(dim=1, keepdim=True).clamp(max=3)
        mean = super().denoise(x, sigma, labels)
        spread = sigma[:, None] * 0.3 / (0.3**2 + sigma[:, None] ** 2).sqrt()
        return mean + spread * torch.randn(1, x.shape[1], generator=generator, dtype=x.dtype)


class NoSpread(Healthy):
    """Draws a component and returns its mean: the component's own width is forgotten."""

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        p = super().posterior(x, sigma)["class"]
        return super().denoise(x, sigma, torch.multinomial(p, 1, generator=generator))


class RowsMixedUp(Healthy):
    """Draws come back in another order than the rows of x."""

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return super().sample_posterior(x.flip(0), sigma.flip(0), generator)


class TemperedDraws(Healthy):
    """Components are drawn from a posterior at half the temperature."""

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        p = super().posterior(x, sigma)["class"] ** 2
        mean = super().denoise(x, sigma, torch.multinomial(p, 1, generator=generator))
        spread = sigma[:, None] * 0.3 / (0.3**2 + sigma[:, None] ** 2).sqrt()
        return mean + spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)


class LabelsFromOne(Healthy):
    """Samples carry labels 1 … K."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        x0, labels = super().sample(n, generator)
        return x0, labels + 1


class GeneratorIgnored(Healthy):
    """Draws from the global generator whatever it is given."""

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        return super().sample_posterior(x, sigma)


class LessThanItsPart(Healthy):
    """Says of all factors together half of what it says of the only one."""

    def joint_information(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        p = super().posterior(x, sigma)["class"]
        return (math.log(4) - torch.special.entr(p).sum(dim=1)) / 2


class OptionIgnored(ExactMixture):
    """Takes the distance between classes and leaves it at its default."""

    def __init__(self, distance: float = 2.5) -> None:
        super().__init__(preset="simplex", classes=4, dim=6, distance=2.5, std=0.3)


#: a wrong D(x) shows in all of these
DENOISER = ("denoise-optimal", "draws-match-denoise", "heads-mixture", "orthogonality")
#: limits that a grossly wrong one misses too
LIMITS = ("denoises", "low-snr-limit", "noise-level")
EXACT_BUGS: dict[str, Bug] = {
    cls.__name__: Bug(cls, caught_by, also, tuple(marginal))
    for cls, caught_by, also, *marginal in [
        (
            ReversedTime,
            "noise-level",
            ("error-monotone", "high-snr-limit", *LIMITS, *DENOISER),
        ),
        (
            CoarseTable,  # a step off rounds to the same level, so that denoise-optimal sees no slope
            "error-monotone",
            ("draws-match-denoise", "heads-mixture", "noise-level", "orthogonality"),
            "low-snr-limit",
        ),
        (SigmaOffByOneStep, "denoise-optimal", DENOISER),
        (SigmaOffEverywhere, "denoise-optimal", ("orthogonality", "posterior-calibrated"), "draws-spread"),
        (ScoreSign, "denoises", (*LIMITS, "denoise-optimal", "draws-match-denoise", "orthogonality")),
        (WrongDataRange, "high-snr-limit", ("denoises", "noise-level", *DENOISER), "error-monotone"),
        (NaNAtTheEnd, "finite", ()),
        (MutatedInput, "input-unchanged", ()),
        (BatchDependent, "batch-invariance", ("heads-mixture",)),
        (GlobalGenerator, "no-global-state", ()),
        (GradModeLeak, "no-global-state", ()),
        (Stochastic, "deterministic", ("batch-invariance", "heads-mixture", "no-global-state", "null-labels")),
        (DtypeLeak, "shape-dtype", ()),
        (SwappedHeads, "heads-mixture", ("labels-used", *LIMITS, *DENOISER)),
        (LabelsOffByOne, "heads-mixture", ()),
        (NullIsClassZero, "null-labels", ()),
        (LabelsClamped, "label-range", ()),
        (LabelsIgnored, "labels-used", ()),
        (MostProbableComponent, "orthogonality", ("low-snr-limit", *DENOISER), "denoises"),
        (Unnormalised, "posterior-normalised", ("heads-mixture",), "posterior-calibrated"),
        (Overconfident, "posterior-calibrated", ("draws-match-posterior", "heads-mixture")),
        (ColumnsRolled, "posterior-calibrated", ("heads-mixture",)),
        (WrongPrior, "prior-frequencies", ()),
        (LessThanItsPart, "joint-information", ()),
        (LabelsFromOne, "samples-valid", ()),
        (SeedBlind, "draws-independent", ("draws-match-denoise", "draws-match-posterior", "draws-spread")),
        (RowsMixedUp, "draws-match-denoise", ("draws-match-posterior", "draws-spread")),
        (TemperedDraws, "draws-match-posterior", ("draws-match-denoise", "draws-spread")),
        (NoSpread, "draws-spread", ()),
        (GeneratorIgnored, "seed-honoured", ()),
        (OptionIgnored, "ignored-option", ()),
    ]
}
