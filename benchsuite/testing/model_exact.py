"""Checks of exact models: identities that tie denoiser, heads, posterior, draws and samples together.

All follow from one joint law of (x0, labels, x): a model that is right in every part but not in all of them
together fails here. Statistical ones use fixed seeds and a limit of five standard errors, because each looks at up
to a hundred means.
"""

from __future__ import annotations

import math

import torch

from benchsuite.contracts import ExactModel
from benchsuite.testing.model_case import MANY, Level, ModelCase, posterior
from benchsuite.testing.results import Checks, Observation, Skip, findings, worst
from benchsuite.testing.state import changed_by

SIGMAS = 5.0
#: one reverse step of the default schedules, in ln sigma
STEP = 0.125
#: rows with one and the same x
DRAWS = 400

EXACT = Checks[ModelCase]()


@EXACT.add("posterior-normalised", "posterior has a column per value of every factor; rows are >= 0 and sum to 1")
def _normalised(case: ModelCase) -> Observation:
    wrong = []
    sizes = {factor.name: factor.size for factor in case.model.factors}
    ends = [Level(case, level.model, sigma) for level in case.levels[:1] for sigma in case.model.sigma_range]
    for level in (*case.levels, *ends):
        if set(level.posterior) != set(sizes):
            return findings([f"factors {sorted(level.posterior)}"], f"factors {sorted(sizes)}")
        for name, p in level.posterior.items():
            where = f"{name} at sigma = {level.sigma:.3g}"
            if tuple(p.shape) != (MANY, sizes[name]):
                wrong.append(f"{where} has shape {tuple(p.shape)}")
            elif not (float(p.min()) >= 0 and float((p.sum(dim=1) - 1).abs().max()) <= 1e-6):
                wrong.append(f"{where}: least {float(p.min()):.3g}, sums up to {float(p.sum(dim=1).max()):.6g}")
    return findings(wrong, "probabilities")


@EXACT.add("joint-information", "x tells at least as much of all factors together as of any of them")
def _joint_information(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        joint = level.model.joint_information(level.x, level.x.new_full((len(level.x),), level.sigma))
        if joint is None:
            raise Skip("not stated")
        for name, p in level.posterior.items():
            known = torch.special.entr(case.prior[name]).sum() - torch.special.entr(p).sum(dim=1)
            missing = known - joint
            error = float(missing.std()) / math.sqrt(MANY) + 1e-6
            found.append((f"beyond {name} at sigma = {level.sigma:.3g}", float(missing.mean()) / error, SIGMAS))
    return worst("standard errors missing", found)


@EXACT.add("posterior-calibrated", "the true labels are as surprising as the posterior says: E[NLL] = E[H(p)]")
def _calibrated(case: ModelCase) -> Observation:
    found = []
    labels = case.data[1]
    for level in case.levels:
        for column, factor in enumerate(case.model.factors):
            p = level.posterior[factor.name].clamp_min(1e-300)
            surprise = -p.gather(1, labels[:, column : column + 1])[:, 0].log()
            found.append(
                _z(surprise + (p * p.log()).sum(dim=1), f"for {factor.name} at sigma = {level.sigma:.3g}")
            )
    return worst("standard errors of NLL - entropy", found)


@EXACT.add("prior-frequencies", "labels are drawn, and are expected given x, as often as the prior says")
def _prior(case: ModelCase) -> Observation:
    found = []
    levels, labels = case.levels, case.data[1]
    for column, factor in enumerate(case.model.factors):
        prior = case.prior[factor.name]
        # of a mean of MANY numbers in [0, 1], of which none varies more than a label itself
        error = (prior * (1 - prior) / MANY).sqrt() + 1e-9
        drawn = torch.nn.functional.one_hot(labels[:, column], factor.size).double()
        means = {"drawn": drawn.mean(dim=0)}
        means |= {f"expected at sigma = {v.sigma:.3g}": v.posterior[factor.name].mean(dim=0) for v in levels}
        for how, mean in means.items():
            found.append((f"of {factor.name}, {how}", float(((mean - prior).abs() / error).max()), SIGMAS))
    return worst("standard errors from the prior", found)


@EXACT.add("heads-mixture", "the heads mix to the whole: sum_k p(k | x) D(x | k) = D(x)")
def _mixture(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        x = level.x[:24]
        for index, factor in enumerate(case.model.factors):
            p = level.posterior[factor.name][:24]
            total = torch.zeros_like(x)
            for k in case.values(index):
                head = case.denoise(x, level.sigma, case.labels(len(x), index, k))
                total += p[:, k].view(-1, *[1] * (x.dim() - 1)) * head
            gap = float((total - level.denoised[:24]).abs().max())
            found.append((f"for {factor.name} at sigma = {level.sigma:.3g}", gap, 1e-6 * max(1.0, level.sigma)))
    return worst("difference", found)


@EXACT.add(
    "denoise-optimal", "the error has its minimum where D is told the true noise level, not a reverse step off"
)
def _optimal(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        # the slope of E|x0 - D|² in the told level: what D misses must not point along D's change with it
        noisier, cleaner = (
            case.denoise(level.x, case.within(level.sigma * math.exp(off))) for off in (STEP, -STEP)
        )
        slope = ((level.x0 - level.denoised) * (noisier - cleaner)).flatten(1).sum(dim=1)
        found.append(_z(slope, f"at sigma = {level.sigma:.3g}"))
    return worst("standard errors from 0 of the slope in ln sigma", found)


@EXACT.add("orthogonality", "what D misses is uncorrelated with D: E<x0 - D, D> = 0")
def _orthogonality(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        missed, d = (level.x0 - level.denoised).flatten(1), level.denoised.flatten(1)
        found.append(_z((missed * d).sum(dim=1), f"at sigma = {level.sigma:.3g}"))
        found.append(_z(missed.sum(dim=1), f"of the plain mean at sigma = {level.sigma:.3g}"))
    return worst("standard errors from 0", found)


@EXACT.add("draws-match-denoise", "posterior draws average to D(x)")
def _draws_mean(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        excess = (level.drawn - level.denoised).flatten(1)
        for name, direction in (("D", level.denoised), ("x", level.x)):
            found.append(
                _z((excess * direction.flatten(1)).sum(dim=1), f"along {name} at sigma = {level.sigma:.3g}")
            )
        found.append(_z(excess.sum(dim=1), f"of the plain mean at sigma = {level.sigma:.3g}"))
    return worst("standard errors from 0 of E<draw - D, .>", found)


@EXACT.add("draws-match-posterior", "draws carry each label as often as the posterior says")
def _draws_labels(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        judged = posterior(level.model, level.drawn, case.model.sigma_range[0])
        for name, p in level.posterior.items():
            where, excess = f"for {name} at sigma = {level.sigma:.3g}", judged[name] - p
            found += [_z(excess[:, k], f"{where}, value {k}") for k in range(p.shape[1])]
            found.append(_z((excess * p).sum(dim=1), f"{where}, agreement"))
    return worst("standard errors from the posterior", found)


@EXACT.add("draws-spread", "a draw is as far from D(x) as the clean item: given x they are exchangeable")
def _draws_spread(case: ModelCase) -> Observation:
    found = []
    for level in case.levels:
        excess = _square(level.drawn - level.denoised) - _square(level.x0 - level.denoised)
        found.append(_z(excess, f"at sigma = {level.sigma:.3g}"))
    return worst("standard errors between the squared distances", found)


@EXACT.add("draws-independent", "rows with the same x get draws of their own")
def _draws_independent(case: ModelCase) -> Observation:
    level = case.levels[-1]
    sigma = case.within(10 * case.std * math.sqrt(level.x0[0].numel()))
    noisy = Level(case, level.model, sigma)
    rows = noisy.draws(noisy.x[:1].expand(DRAWS, *case.model.shape).contiguous())
    share = float(rows.var(dim=0).sum() / level.x0.var(dim=0).sum())
    return Observation(share > 0.5, f"spread over rows {share:.3g} of the prior's", "more than 0.5 in pure noise")


@EXACT.add("seed-honoured", "draws follow from the generator that is given, and from nothing else")
def _seed(case: ModelCase) -> Observation:
    level = case.levels[-1]
    x, model = level.x[:64], level.model

    def sample(seed: int) -> torch.Tensor:
        return model.sample(64, case.generator(seed))[0]

    wrong = []
    for name, draw in (("sample_posterior", lambda seed: level.draws(x, seed)), ("sample", sample)):
        if not torch.equal(draw(1), draw(1)):
            wrong.append(f"{name} differs for one seed")
        if torch.equal(draw(1), draw(2)):
            wrong.append(f"{name} is the same for two seeds")
        wrong += [f"{name} changed {state}" for state in changed_by(lambda draw=draw: draw(1))]  # type: ignore[misc]
    return findings(wrong, "equal for equal seeds, different for different ones, global state untouched")


@EXACT.add("samples-valid", "sample gives n finite items and int64 labels within their ranges")
def _samples(case: ModelCase) -> Observation:
    case.ready()
    if not isinstance(case.model, ExactModel):
        raise Skip("not an exact model")
    try:
        x0, labels = case.model.sample(50, case.generator(3))
    except NotImplementedError as error:
        raise Skip(str(error)) from error
    wrong = []
    if tuple(x0.shape) != (50, *case.model.shape) or not bool(torch.isfinite(x0).all()):
        wrong.append(f"x0 {tuple(x0.shape)}, {int((~torch.isfinite(x0)).sum())} numbers not finite")
    if labels.dtype != torch.int64 or tuple(labels.shape) != (50, len(case.model.factors)):
        wrong.append(f"labels {labels.dtype} {tuple(labels.shape)}")
    else:
        for column, factor in zip(labels.T, case.model.factors, strict=True):
            if int(column.min()) < 0 or int(column.max()) >= factor.size:
                wrong.append(f"{factor.name} from {int(column.min())} to {int(column.max())}")
    return findings(wrong, f"(50, {', '.join(map(str, case.model.shape))}) and labels in 0 … K-1")


def _square(difference: torch.Tensor) -> torch.Tensor:
    """(n, *shape) => squared norms (n,)."""
    return difference.flatten(1).square().sum(dim=1)


def _z(samples: torch.Tensor, where: str) -> tuple[str, float, float]:
    """(where, |mean| in standard errors, limit) of samples whose mean should be 0."""
    error = float(samples.std()) / math.sqrt(len(samples)) + 1e-9  # below that, rounding is all there is
    return where, abs(float(samples.mean())) / error, SIGMAS
