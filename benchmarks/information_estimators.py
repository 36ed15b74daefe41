"""Estimators of mutual information when heads err: `python benchmarks/information_estimators.py`.

Ten classes in 64 dimensions, whose information is known, and exact heads with planted errors of the kinds that
trained heads have: smooth random functions of the noisy item with ‖error‖² = `size` in units of the noise. The
table and what follows from it are in `information_estimators.md`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import torch
from benchsuite_metrics import logistic
from benchsuite_metrics.mutual_information import MutualInformation, cumulative_information
from benchsuite_models.exact_mixture import ExactMixture
from numpy.typing import NDArray

from benchsuite import DiffusionModel, Factor, LabelFilter, NoiseSweep
from benchsuite.bench import Bench
from benchsuite.own_data import OwnData
from benchsuite.plan import Unit
from benchsuite.protocols.settings import SweepSettings
from benchsuite.request import Settings

Array = NDArray[np.float64]

CLASSES, DIM, STD, SCALE = 10, 64, 0.3, 0.35
#: what is planted -> size of the errors: of every head alone, shared by all heads, of the unconditional head only,
#: of the conditional heads only; how much too far (or not far enough) conditional heads move away from the
#: unconditional one; how much of the other classes' mean a conditional head hears
CASES: dict[str, dict[str, float]] = {
    "none": {},
    "each head its own": {"own": 0.06},
    "shared by all heads": {"shared": 0.5},
    "unconditional head worse": {"plain": 0.06},
    "conditional heads worse": {"given": 0.06},
    "over-confident heads": {"push": 0.2},
    "under-confident heads": {"push": -0.2},
    "labels leak": {"leak": 0.1},
    "all of these, small": {"own": 0.02, "shared": 0.3, "plain": 0.03, "push": -0.05, "leak": 0.02},
}


class PlantedHeads(DiffusionModel):
    """Exact heads of a Gaussian mixture with one mode per class, and errors on top; a black box to the engine."""

    name = "planted-heads"
    family = "toy"

    def __init__(
        self,
        own: float = 0.0,
        shared: float = 0.0,
        plain: float = 0.0,
        given: float = 0.0,
        push: float = 0.0,
        leak: float = 0.0,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self.means = SCALE * torch.randn(CLASSES, DIM, generator=generator)
        self.own, self.shared, self.plain, self.given = own, shared, plain, given
        self.push, self.leak = push, leak
        self.shape, self.sigma_range = (DIM,), (0.005, 200.0)
        self.factors = (Factor("class", tuple(str(k) for k in range(CLASSES))),)
        # one field of errors per class, one for the unconditional head, one for all
        count = CLASSES + 2
        self.waves = 3 * torch.randn(count, DIM, DIM, generator=generator) / DIM**0.5
        self.phases = 2 * math.pi * torch.rand(count, DIM, generator=generator)
        self.drift = 0.3 * torch.randn(count, DIM, generator=generator)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Nothing to load."""

    def exact(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """p(class | x) (B, K) and eps of every class (B, K, D) without errors."""
        width = STD**2 + sigma[:, None] ** 2
        p = (-(x[:, None] - self.means).square().sum(dim=2) / (2 * width)).softmax(dim=1)
        return p, sigma[:, None, None] * (x[:, None] - self.means) / width[..., None]

    def error(self, x: torch.Tensor, sigma: torch.Tensor, field: torch.Tensor) -> torch.Tensor:
        """Errors (B, D) of unit power from the fields (B,)."""
        u = x / (1 + sigma[:, None] ** 2).sqrt()
        waves = torch.einsum("bd,bde->be", u, self.waves[field])
        clock = -2 * sigma.log()[:, None]
        return (2 / DIM) ** 0.5 * torch.cos(waves + self.phases[field] + clock * self.drift[field])

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """D(x) of the head that the labels name, with its errors."""
        null = torch.full((len(x),), CLASSES) if labels is None else labels[:, 0] % (CLASSES + 1)  # -1: the last
        p, heads = self.exact(x, sigma)
        mean = (p[..., None] * heads).sum(dim=1)
        told = null < CLASSES
        head = heads[torch.arange(len(x)), null.clamp_max(CLASSES - 1)]
        head = (1 - self.leak) * head + self.leak * heads.mean(dim=1)
        eps = torch.where(told[:, None], mean + (1 + self.push) * (head - mean), mean)
        size = self.own + torch.where(told, self.given, self.plain)
        eps = eps + size.sqrt()[:, None] * self.error(x, sigma, null)
        eps = eps + self.shared**0.5 * self.error(x, sigma, torch.full_like(null, CLASSES + 1))
        return x - sigma[:, None] * eps


class Source(ExactMixture):
    """The mixture that items are drawn from."""

    name = "planted-source"

    def __init__(self) -> None:
        super().__init__(PlantedHeads().means.tolist(), covariances=STD**2)


def estimates(
    model: PlantedHeads, items: int, seed: int = 0, probe: bool = True
) -> dict[str, tuple[Array, Array]]:
    """{estimator: (log_snr (T,), nats (T,))}: all forms of the metric, and the mixture by a probe's posterior."""
    source = Source()
    source.load()
    data = OwnData(source, {"train": 2000, "val": 1, "test": items}, seed)
    data.load()
    settings = Settings(items=items, probe_items=2000, batch=4096, sweep=SweepSettings(draws=1))
    unit = Unit("planted", "planted", PlantedHeads, PlantedHeads, "planted", "test")
    with torch.no_grad():
        bench = Bench.build(model, data, unit, settings, "cpu")
        needs = (NoiseSweep(heads=True), LabelFilter())
        records = {need.protocol: bench.run(need, lambda rows: None) for need in needs}
        found = {
            str(curve.extra["form"]): (np.asarray(curve.log_snr), np.asarray(curve.per_item.mean(axis=0)))
            for curve in MutualInformation().compute(records)
        }
        if probe:
            found["mixture by a probe"] = _probe_mixture(model, bench)
    return found


def _probe_mixture(model: PlantedHeads, bench: Bench) -> tuple[Array, Array]:
    """½ ∫ ‖eps_true - sum_k p_k eps_k‖² with p of a logistic regression on noisy items of the training split."""
    grid = np.linspace(-8.0, 9.0, 69)
    sigmas = torch.tensor(np.exp(-grid / 2), dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    train, test = bench.probe["train"], bench.items
    scale = (1 + sigmas**2).sqrt()[:, None, None]

    def noised(x: torch.Tensor) -> torch.Tensor:
        return x + sigmas[:, None, None] * torch.randn(len(grid), *x.shape, generator=generator)

    ridge = sigmas.new_full((len(grid),), 1e-2)
    fit = logistic.fit(noised(train.x) / scale, train.labels[:, 0], CLASSES, ridge, max_iterations=60)
    x = noised(test.x)
    p = fit.log_probabilities(x / scale).exp()
    rates = []
    for i, sigma in enumerate(sigmas):
        level = sigma.expand(len(test))
        heads = torch.stack([model.denoise(x[i], level, torch.full((len(test), 1), k)) for k in range(CLASSES)], 1)
        true = heads[torch.arange(len(test)), test.labels[:, 0]]
        apart = (true - (p[i, :, :, None] * heads).sum(dim=1)) / sigma
        rates.append(apart.double().square().sum(dim=1).mean().numpy() / 2)
    return grid, cumulative_information(np.array(rates), grid)


def truth(log_snr: Array, draws: int = 20000) -> Array:
    """H - E[H(p)] (T,) of the mixture, by fresh draws."""
    model, generator = PlantedHeads(), torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (draws,), generator=generator)
    clean = model.means[labels] + STD * torch.randn(draws, DIM, generator=generator)
    known = []
    for level in log_snr:
        sigma = torch.full((draws,), math.exp(-level / 2))
        noisy = clean + sigma[:, None] * torch.randn(draws, DIM, generator=generator)
        p = model.exact(noisy, sigma)[0].double()
        known.append(math.log(CLASSES) + float((p * p.clamp_min(1e-300).log()).sum(dim=1).mean()))
    return np.array(known)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: largest and mean |error| and the error at the cleanest level, nats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    items = parser.parse_args(arguments).items
    exact: Array | None = None
    for case, errors in CASES.items():
        found = estimates(PlantedHeads(**errors), items)
        if exact is None:
            exact = truth(found["filter"][0])
            print("| planted errors |" + "".join(f" {name} |" for name in found))
            print("|---" * (1 + len(found)) + "|")
        cells = []
        for log_snr, value in found.values():
            off = value - np.interp(log_snr, found["filter"][0], exact)
            cells.append(f" {np.abs(off).max():.2f} / {np.abs(off).mean():.3f} / {off[-1]:+.2f} |")
        print(f"| {case} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
