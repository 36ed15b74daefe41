"""Linear probe: what a multinomial logistic regression reads off pooled activations.

H - NLL of the probe on held-out items is a lower bound of I(factor; x) in nats, so that the probe shares an axis
with mutual information; accuracy is kept beside it (Alain & Bengio 2016, arXiv:1610.01644; along the noise axis:
Franzese et al., arXiv:2410.03368).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve, Metric, NoiseSweep, NotApplicableError, Record
from benchsuite.contracts import FloatArray
from benchsuite.errors import UsageError
from benchsuite_metrics import logistic
from benchsuite_metrics.stratified import stratified

if TYPE_CHECKING:
    import torch

#: what a probe finds without the network, and how the variant is called; judged apart from the network's own taps
BASELINES = {"input": "raw input", "denoised": "denoised", "log-posterior": "log-posterior"}
#: descending: each fit starts from the one before it, which is smoother
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)
#: so many nats below the best so far on validation is clearly worse: smaller ridges are not tried
CLEARLY = 0.05
#: largest number of feature values in one batch of fits
BLOCK = 2**25

PRESETS = ("", "paper-a")
#: the published protocol: so many images learn, choose and are tested …
PAPER_A = {"train": 246, "val": 150, "test": 371}
#: … at tau in {.01, .1, …, .9, .99} of a VE process from sigma 90 (tau = 0) to 0.01 (tau = 1) with pixels in
#: [0, 1], whose sigma doubles in [-1, 1]
PAPER_A_LEVELS = tuple(
    round(-2 * math.log(2 * 0.01 * 9000 ** (1 - tau)), 4) for tau in (0.01, *(k / 10 for k in range(1, 10)), 0.99)
)


@dataclass(frozen=True)
class Probed:
    """Outcome on the test items at every tapped level for one tap, ridge chosen on validation."""

    tap: str
    validation_nll: FloatArray  #: (S,)
    log_p: FloatArray  #: (N_test, S) log-probability of the true label
    correct: FloatArray  #: (N_test, S) 1 where the most probable value is the true one, else 0


class LinearProbe(Metric):
    """H - NLL of the best tap, in nats; at most I(factor; x) for the features at hand; may be negative.

    Features are standardised on the training items; ridge and tap are chosen on the validation items, and only
    then is the test split read, so that choosing costs no optimism: the curve is that of the tap which validation
    preferred, at most that of the best one. (What validation itself says of that tap is too good, the more so the
    more taps compete for few items.) The ridge goes down from 0.1 by tens to 1e-4, or until validation is
    clearly worse.

    Variants: `accuracy`; what a probe finds without the network, in the noisy image (`raw input`) and in the
    one-shot denoised image (`denoised`), so that what the network adds is visible; and each tap of the model.
    On an exact model's own population the test labels are replaced by their exact posterior given the noisy
    item (Rao–Blackwell): the same expectations with less noise.

    Args:
        layers: probe every convolution and linear layer, except those of embeddings, beside the model's taps.
        select: "level" chooses a tap at every noise level, "overall" one for all.
        preset: "paper-a" follows Franzese et al.: all layers, 11 noise levels, 246 / 150 / 371 images to learn,
            choose and test, stratified by all factors. So few images are a protocol, not a recommendation: with
            sixteen images per value what is measured is as much over-fitting as what the network knows.
    """

    name = "linear-probe"
    version = "3"
    paper = "arXiv:1610.01644"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs = (NoiseSweep(taps=True),)
    tolerance = 0.05
    lower_bound = True

    def __init__(self, layers: bool = False, select: str = "level", preset: str = "") -> None:
        if select not in ("level", "overall"):
            raise UsageError(f"linear-probe: select must be level or overall, got {select!r}")
        if preset not in PRESETS:
            raise UsageError(f"linear-probe: preset must be one of {', '.join(PRESETS[1:])}, got {preset!r}")
        self.layers, self.select, self.preset = layers or preset == "paper-a", select, preset
        need = NoiseSweep(taps=True, layers=self.layers)
        if preset == "paper-a":
            need = replace(need, taps=False, tap_levels=PAPER_A_LEVELS)
        self.needs = (need,)

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Published curve, accuracy, baselines, and one diagnostic per tap of the model, for every factor."""
        record = records["noise_sweep"]
        recorded = [name.removeprefix("tap/") for name in record.arrays if name.startswith("tap/")]
        if not recorded:
            raise NotApplicableError("nothing was tapped: the model offers no activations")
        # what other metrics had recorded beside it is none of this one's business
        own = record.meta.get("taps", recorded)
        taps = [tap for tap in recorded if self.layers or tap in own or tap in BASELINES]
        task = _Task.of(record, self.preset)
        for role in ("train", "val"):
            if role not in task.roles:
                raise NotApplicableError(f"the data set leaves the probe no items of the role {role!r}")
        factors = list(record.meta["factors"])
        labels = np.stack([record[f"tap_labels/{factor}"][task.rows] for factor in factors], axis=1)
        for factor, column in zip(factors, labels[task.roles == "train"].T, strict=True):
            if len(np.unique(column)) < 2:
                raise NotApplicableError(f"the probe's training items carry only one value of {factor!r}")
        truth = [
            _truth(record, task, factor, column[task.roles == "test"], record.factor_size(factor))
            for factor, column in zip(factors, labels.T, strict=True)
        ]
        features = {tap: record[f"tap/{tap}"][task.levels][:, task.rows] for tap in taps}
        found = probes(features, labels, task.roles, truth)
        return [
            curve
            for factor, column, probed in zip(factors, labels.T, found, strict=True)
            for curve in self._factor(record, task, factor, column, probed)
        ]

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """H(factor) - E[H(p)], nats: what a probe of the log-posterior attains."""
        spread = -(posterior * np.log(np.where(posterior > 0, posterior, 1.0))).sum(axis=1)
        return float(-(prior * np.log(np.where(prior > 0, prior, 1.0))).sum() - spread.mean())

    def _factor(
        self, record: Record, task: _Task, factor: str, labels: NDArray[Any], found: Sequence[Probed]
    ) -> list[Curve]:
        roles = task.roles
        entropy = float(record.meta["entropy"][factor])
        candidates = [p for p in found if p.tap not in BASELINES] or found
        scores = np.stack([p.validation_nll for p in candidates])
        levels = np.arange(scores.shape[1])
        best = (
            scores.argmin(axis=0) if self.select == "level" else np.full(len(levels), scores.mean(axis=1).argmin())
        )
        log_p = np.stack([p.log_p for p in candidates])[best, :, levels].T
        correct = np.stack([p.correct for p in candidates])[best, :, levels].T
        chosen = [candidates[i].tap for i in best]
        log_snr = record["tap_log_snr"][task.levels]
        items = tuple(record["tap_items"][task.rows][roles == "test"])

        def curve(per_item: FloatArray, variant: str, tap: str | None) -> Curve:
            accuracy = variant == "accuracy"
            facts = {"taps": chosen, "candidates": len(candidates), "probe_items": int((roles == "train").sum())}
            return Curve(
                factor=factor,
                log_snr=log_snr,
                per_item=per_item,
                items=items,
                unit="probability" if accuracy else self.unit,
                floor=_chance(labels[roles == "test"], labels[roles == "train"]) if accuracy else 0.0,
                ceiling=1.0 if accuracy else entropy,
                variant=variant,
                tap=tap,
                flags=task.flags if not variant else (),
                extra=facts if not variant else {},
            )

        shared = chosen[0] if len(set(chosen)) == 1 else None
        own = record.meta.get("taps", [p.tap for p in found])
        shown = [p for p in found if p.tap in BASELINES or p.tap in own]
        return [
            curve(entropy + log_p, "", shared),
            curve(correct, "accuracy", shared),
            *(curve(entropy + p.log_p, BASELINES.get(p.tap, f"tap {p.tap}"), p.tap) for p in shown),
        ]


@dataclass(frozen=True)
class _Task:
    """Which rows and levels of the record's taps are used, and for what."""

    rows: NDArray[Any]  #: (R,) indices
    roles: NDArray[Any]  #: (R,) "train", "val" or "test"
    levels: NDArray[Any]  #: (S,) indices
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: Record, preset: str) -> _Task:
        """All of them, or those of the published protocol.

        Raises:
            NotApplicableError: fewer than two levels were tapped, or of the protocol's the model accepts so few.
        """
        roles, log_snr = record["tap_role"], record["tap_log_snr"]
        if preset != "paper-a":
            if len(log_snr) < 2:
                raise NotApplicableError(
                    "activations were tapped at one level only, and it takes two; lower sweep.tap_stride or raise "
                    "sweep.nodes"
                )
            return cls(np.arange(len(roles)), roles, np.arange(len(log_snr)))
        near = np.abs(log_snr[:, None] - np.array(PAPER_A_LEVELS)).min(axis=1) < 1e-6
        levels = np.flatnonzero(near)
        if len(levels) < 2:
            raise NotApplicableError(
                f"the model accepts {len(levels)} of the 11 noise levels of paper-a; it takes 2"
            )
        labels = np.stack([record[f"tap_labels/{factor}"] for factor in record.meta["factors"]], axis=1)
        chosen, flags = [], []
        if len(levels) < len(PAPER_A_LEVELS):
            flags.append(f"the model accepts {len(levels)} of the 11 noise levels of paper-a")
        for role, asked in PAPER_A.items():
            mine = np.flatnonzero(roles == role)
            if len(mine) < asked:
                flags.append(f"paper-a takes {asked} {role} items, {len(mine)} were recorded")
            chosen.append(mine[stratified(labels[mine], min(asked, len(mine)), record.meta["seed"])])
        rows = np.sort(np.concatenate(chosen))
        return cls(rows, roles[rows], levels, tuple(flags))


def _truth(record: Record, task: _Task, factor: str, labels: FloatArray, classes: int) -> FloatArray:
    """What the test items' values are at each tapped level: (S, N, K), one-hot or the exact posterior."""
    log_snr = record["tap_log_snr"][task.levels]
    grid = record["log_snr"]
    levels = np.searchsorted(grid, log_snr - 1e-9).clip(max=len(grid) - 1)
    on_grid = np.abs(grid[levels] - log_snr).max() < 1e-6
    if record.meta["exact"] and on_grid and f"posterior/{factor}" in record.arrays:
        # test items come first, and rows of the sweep are draw by draw with taps of the first draw
        rows = task.rows[task.roles == "test"]
        exact: FloatArray = record[f"posterior/{factor}"][rows][:, levels].transpose(1, 0, 2)
        return exact
    return np.broadcast_to(np.eye(classes)[labels], (len(log_snr), len(labels), classes))


def probes(
    features: Mapping[str, FloatArray], labels: FloatArray, roles: FloatArray, truth: Sequence[FloatArray]
) -> list[list[Probed]]:
    """Fit every (tap × level × ridge) on "train", choose the ridge on "val", look at "test"; for all factors.

    Taps of one width are solved together, as many as fit into `BLOCK`, on a GPU if there is one.

    Args:
        features: {tap: (S, R, D)}.
        labels: (R, F) ints; roles: (R,) "train", "val" or "test".
        truth: of every factor (S, N_test, K), the distribution of the test items' values.

    Returns:
        For every factor, the outcome of every tap.
    """
    widths: dict[int, list[str]] = {}
    for tap, values in features.items():
        widths.setdefault(values.shape[2], []).append(tap)
    found: dict[str, list[Probed]] = {}
    for taps in widths.values():
        size = max(1, BLOCK // features[taps[0]].size)
        for start in range(0, len(taps), size):
            block = taps[start : start + size]
            stacked = np.concatenate([features[tap] for tap in block])
            found |= dict(zip(block, _solve(stacked, labels, roles, truth, block), strict=True))
    return [list(probed) for probed in zip(*(found[tap] for tap in features), strict=True)]


def _solve(
    features: FloatArray, labels: FloatArray, roles: FloatArray, truth: Sequence[FloatArray], taps: Sequence[str]
) -> list[list[Probed]]:
    """Probes of several taps of one width, tap by tap, each for all factors; features (taps × S, R, D)."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    classes = [part.shape[2] for part in truth]
    x = torch.tensor(features, dtype=torch.float32, device=device)  # a copy: records are read-only
    y = torch.tensor(labels, dtype=torch.int64, device=device)
    rows = {role: torch.as_tensor(np.flatnonzero(roles == role), device=device) for role in PAPER_A}
    centre = x[:, rows["train"]].mean(dim=1, keepdim=True)
    spread = x[:, rows["train"]].std(dim=1, keepdim=True)
    # features that do not vary carry nothing: they become 0 rather than noise blown up
    x = torch.where(spread > 1e-6 * spread.amax(dim=2, keepdim=True).clamp_min(1e-12), (x - centre) / spread, 0.0)
    if x.shape[2] > len(rows["train"]):
        # the weights of the minimum are combinations of the training rows: nothing outside their span matters
        x = x @ torch.linalg.qr(x[:, rows["train"]].mT).Q
    learn, choose, look = (x[:, rows[role]] for role in ("train", "val", "test"))
    best = x.new_full((len(x), len(classes)), -math.inf)  # mean log-probability on "val" of problem and factor
    going = torch.ones_like(best, dtype=torch.bool)  # until a smaller ridge is clearly worse
    test = x.new_zeros(len(x), len(rows["test"]), sum(classes))
    fit: logistic.Fit | None = None
    alive = torch.arange(len(x), device=device)
    for ridge in RIDGES:
        problems = going.any(dim=1).nonzero()[:, 0]
        if not len(problems):
            break
        start = fit.of(torch.searchsorted(alive, problems)) if fit else None
        penalty = x.new_full((len(problems),), ridge)
        fit, alive = logistic.fit(learn[problems], y[rows["train"]], classes, penalty, start), problems
        validated = fit.log_probabilities(choose[problems]).split(classes, dim=2)
        score = torch.stack([
            part.take_along_dim(y[rows["val"], factor][None, :, None], dim=2)[..., 0].mean(dim=1)
            for factor, part in enumerate(validated)
        ], dim=1)  # fmt: skip
        better = going[problems] & (score > best[problems])
        going[problems] &= score > best[problems] - CLEARLY
        best[problems] = torch.where(better, score, best[problems])
        tested = fit.log_probabilities(look[problems])
        wide = better.repeat_interleave(torch.tensor(classes, device=device), dim=1)[:, None]
        test[problems] = torch.where(wide, tested, test[problems])
    found = [
        _outcome(test_of.cpu(), -best[:, factor].double().cpu().numpy(), truth[factor], taps)
        for factor, test_of in enumerate(test.split(classes, dim=2))
    ]
    return [list(probed) for probed in zip(*found, strict=True)]


def _outcome(log_p: torch.Tensor, nll: FloatArray, truth: FloatArray, taps: Sequence[str]) -> list[Probed]:
    """Outcomes of one factor by tap, from log-probabilities (taps × S, N, K) of the test items."""
    import torch

    target = torch.tensor(truth, dtype=torch.float32).repeat(len(taps), 1, 1)
    top = log_p >= log_p.amax(dim=2, keepdim=True)  # a tie between m values counts 1 / m
    scored = (target * log_p).sum(dim=2).double().numpy()
    correct = (target * top / top.sum(dim=2, keepdim=True)).sum(dim=2).double().numpy()
    part = [slice(i * len(truth), (i + 1) * len(truth)) for i in range(len(taps))]
    return [Probed(tap, nll[s], scored[s].T, correct[s].T) for tap, s in zip(taps, part, strict=True)]


def _chance(test: FloatArray, train: FloatArray) -> float:
    """Accuracy of always saying the commonest training value."""
    values, counts = np.unique(train, return_counts=True)
    return float((test == values[counts.argmax()]).mean())
