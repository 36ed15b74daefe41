"""The exact denoiser of a finite data set: the posterior over its images (the oracle row)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchsuite import (
    Codec,
    Dataset,
    ExactModel,
    NotApplicableError,
    Split,
    UsageError,
    fingerprint_state,
)
from benchsuite_models.cells import cut
from benchsuite_models.exact_common import by_factor, check_labels, check_query, choose, one_hot, uniform
from benchsuite_models.finite_population import BLOCK, CHUNK, FinitePopulation

if TYPE_CHECKING:
    import torch

#: Images encoded at a time.
ENCODE_BATCH = 256


class EmpiricalBayes(ExactModel):
    """Posterior mean under the uniform prior over the images of a finite data set.

    p(i | x) ∝ exp(-‖x - x_i‖² / 2 sigma²), so every factor's posterior is a sum over images and nothing is
    learned. On a real data set this is the ideal *of that finite set*, which commits to single images earlier
    than the population would (collapse: Biroli et al., arXiv 2402.18491); on enumerated data it is the truth.

    The population is the data set's "train" split; for a data set that says it is enumerated, all splits
    together (items with the same id counted once). With a codec, the images are encoded and x lives in that
    space: the oracle of a latent model works in that model's latents.

    Distances are float64 throughout: at sigma = 0.01 a float32 dot product is wrong by several nats. Memory
    is bounded by the population itself plus about 200 MB (`benchsuite_models.finite_population`).
    """

    name = "empirical-bayes"
    oracle = True
    paper = "2402.18491"

    population: torch.Tensor  #: (N, *shape) float32 (float64 on request), encoded images
    population_labels: torch.Tensor  #: (N, F) int64

    def __init__(self) -> None:
        self.sigma_range = (1e-3, 1e4)
        self._source: Split | None = None
        self._codec: Codec | None = None

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Take the images of `dataset` (already loaded), seen through `codec` if one is given.

        Raises:
            NotApplicableError: if the data set has no images to be the population.
        """
        self._source = _population(dataset)
        if not len(self._source):
            raise NotApplicableError(f"{self.name}: data set {dataset.name} has an empty population")
        self._codec = codec
        self.factors = tuple(dataset.factors)
        self.shape = tuple(dataset.shape) if codec is None else tuple(codec.shape)
        # What the space is depends on the instance: it is the space of the model that lends its codec.
        self.space = "pixels" if codec is None else "latents"  # type: ignore[misc]

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Encode the population and put it on `device`.

        Float64 is kept on request; half precision is not, as it would be another data set.
        """
        import torch

        if self._source is None:
            raise UsageError(f"{self.name} is the denoiser of a data set: call bind(dataset) before load")
        kept = torch.float64 if dtype == "float64" else torch.float32
        with torch.no_grad():
            blocks = [
                self.encode(block.to(device)).to(kept) for block in torch.split(self._source.images, ENCODE_BATCH)
            ]
        self.population = torch.cat(blocks)
        self.shape = tuple(self.population.shape[1:])
        self.population_labels = self._source.labels.to(device)
        self._finite = FinitePopulation(self.population.flatten(1))
        indicator = one_hot(self.population_labels, self.factors)  # (N, sum of K)
        self._prior = indicator.mean(0)
        sizes = [factor.size for factor in self.factors]
        self._cells = cut(self.population_labels, sizes, self._finite.copies, self._finite.count)
        # among the copies of each distinct image, the fraction with each value: (M, sum of K)
        share = torch.zeros(len(self._finite), indicator.shape[1], dtype=torch.float64, device=indicator.device)
        share.index_add_(0, self._finite.copies, indicator.double())
        self._share = share / self._finite.count[:, None]
        # every (distinct image, labels) that occurs, and the fraction of the image's copies that it is
        combination = torch.zeros_like(self._finite.copies)
        if self.factors:
            combination = torch.unique(self.population_labels, dim=0, return_inverse=True)[1]
        labelled = torch.stack([self._finite.copies, combination])
        (self._labelled, self._combination), times = torch.unique(labelled, dim=1, return_counts=True)
        self._labelled_share = times / self._finite.count[self._labelled]
        self._joint_entropy = float(torch.special.entr(combination.bincount().double() / len(combination)).sum())
        self._first = torch.empty(len(self._finite), dtype=torch.int64, device=indicator.device)
        self._first[self._finite.copies.flip(0)] = torch.arange(len(indicator), device=indicator.device).flip(0)

    def training_points(self) -> Split:
        """The (encoded) population."""
        assert self._source is not None, "bind() and load() first"
        return Split(self.population, self.population_labels, self._source.ids)

    @property
    def population_size(self) -> int:
        """Number of images N in the population."""
        if self._source is None:
            raise UsageError(f"{self.name} has no population before bind(dataset)")
        return len(self._source)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Mean image of the posterior over the population, or over the images that carry the given labels.

        Rows with equal labels are done together and only see the images with those labels, so a conditional
        call costs a fraction 1 / K of the unconditional one.

        Args:
            x: (B, *shape).
            sigma: (B,), > 0.
            labels: (B, F) int64, -1 = null; any subset of the factors may be given.

        Returns:
            (B, *shape), same dtype and device as `x`.

        Raises:
            UsageError: if no image of the population carries the asked combination of labels.
        """
        import torch

        check_query(self.name, self.shape, x, sigma)
        asked = check_labels(self.name, self.factors, labels, x)
        combinations = asked[:1] if labels is None or not asked.shape[1] else torch.unique(asked, dim=0)
        coordinates = self._finite.coordinates(x.flatten(1))
        means = torch.empty_like(coordinates)
        for combination in combinations:
            rows = (asked == combination).all(1).nonzero()[:, 0]
            count = self._carrying(combination)
            for part, points, weights in self._finite.weights(coordinates[rows], sigma[rows], count):
                means[rows[part]] = self._finite.mean(weights, points, x.dtype).to(means.dtype)
        out = [self._finite.expand(block).to(x.dtype) for block in means.split(BLOCK)]
        return torch.cat(out).view_as(x)

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """p(factor | x) as {factor: (B, K)}, in the dtype of `x`."""
        import torch

        check_query(self.name, self.shape, x, sigma)
        coordinates = self._finite.coordinates(x.flatten(1))
        parts = [weights @ self._share for _, _, weights in self._finite.weights(coordinates, sigma)]
        joined = torch.cat(parts) if parts else self._share[:0]
        return by_factor(joined, self.factors, x.dtype)

    def head_spread(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `ExactModel.head_spread`: all conditional heads share one set of posterior weights."""
        import torch

        check_query(self.name, self.shape, x, sigma)
        found = {factor.name: x.new_zeros(len(x), dtype=torch.float64) for factor in self.factors}
        most = max((cells.count for cells in self._cells), default=1) * self._finite.rank
        coordinates = self._finite.coordinates(x.flatten(1))
        for block in torch.arange(len(x), device=x.device).split(max(1, CHUNK // most)):
            for part, points, weights in self._finite.weights(coordinates[block], sigma[block]):
                plain = self._finite.mean(weights, points, x.dtype)
                for cells in self._cells:
                    told = [cells.within(weights, cell) for cell in range(cells.count)]
                    mass = torch.stack([w.sum(1) for w in told], dim=1)
                    # p_k D_k = Σ_u w_u share_u,k x_u, added up over the cells that share a value
                    sums = [self._finite.mean(w, u, x.dtype) for w, u in zip(told, cells.points, strict=True)]
                    apart = torch.stack(sums, dim=1) - mass[:, :, None] * plain[:, None]
                    for position, number in enumerate(cells.factors):
                        # sum_k p_k ‖D_k - D‖²; a value without mass adds nothing
                        p = cells.marginal(mass, position).clamp_min(1e-30)
                        spread = cells.marginal(apart, position).square().sum(2) / p
                        found[self.factors[number].name][block[part]] = spread.sum(1)
        return found

    def joint_information(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `ExactModel.joint_information`; over the combinations of labels that occur in the population."""
        import torch

        check_query(self.name, self.shape, x, sigma)
        out = x.new_empty(len(x), dtype=torch.float64)
        combinations = int(self._combination.max()) + 1
        for rows, _, weights in self._finite.weights(self._finite.coordinates(x.flatten(1)), sigma):
            p = weights.new_zeros(len(weights), combinations)
            p.index_add_(1, self._combination, weights[:, self._labelled] * self._labelled_share)
            out[rows] = self._joint_entropy - torch.special.entr(p).sum(1)
        return out

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """One image of the population per row, drawn from p(i | x): (B, *shape)."""
        import torch

        u = uniform((x.shape[0],), x.device, generator)
        out = torch.empty_like(x)
        check_query(self.name, self.shape, x, sigma)
        for rows, _, weights in self._finite.weights(self._finite.coordinates(x.flatten(1)), sigma):
            out[rows] = self.population[self._first[choose(weights, u[rows])]].to(x.dtype)
        return out

    def prior(self) -> dict[str, torch.Tensor]:
        """Frequencies of the factors' values in the population, {factor: (K,)} float64."""
        import torch

        return by_factor(self._prior, self.factors, torch.float64)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`n` images with their labels, drawn from the population with replacement."""
        index = (uniform((n,), self.population.device, generator) * len(self.population)).long()
        return self.population[index], self.population_labels[index]

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) in [-1, 1] => (B, *shape) through the bound codec, if any."""
        return images if self._codec is None else self._codec.encode(images)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, *shape) => images (B, C, H, W) in [-1, 1] through the bound codec, if any."""
        return x if self._codec is None else self._codec.decode(x)

    def fingerprint(self) -> str:
        """Digest of the (encoded) population and its labels."""
        return fingerprint_state({"population": self.population, "labels": self.population_labels})

    def _carrying(self, combination: torch.Tensor) -> torch.Tensor | None:
        """How often each distinct image has the labels `combination` (F,), -1 = any; None = always."""
        if bool((combination < 0).all()):
            return None
        chosen = ((self.population_labels == combination) | (combination < 0)).all(1)
        if not bool(chosen.any()):
            asked = ", ".join(
                f"{factor.name} = {factor.values[int(value)]}"
                for factor, value in zip(self.factors, combination, strict=True)
                if value >= 0
            )
            raise UsageError(f"{self.name}: none of the {self.population_size} images has {asked}")
        return self._finite.counts(chosen)


def _population(dataset: Dataset) -> Split:
    """The training split; all splits with equal ids merged where the data set is its own population."""
    import torch

    train = dataset.split("train")
    if not dataset.enumerated:
        return train
    splits = [train, dataset.split("val"), dataset.split("test")]
    seen: set[str] = set()
    kept = []
    for part in splits:
        kept.append(torch.tensor([i for i, name in enumerate(part.ids) if name not in seen], dtype=torch.int64))
        seen.update(part.ids)
    return Split(
        torch.cat([part.images[index] for part, index in zip(splits, kept, strict=True)]),
        torch.cat([part.labels[index] for part, index in zip(splits, kept, strict=True)]),
        tuple(part.ids[i] for part, index in zip(splits, kept, strict=True) for i in index.tolist()),
    )
