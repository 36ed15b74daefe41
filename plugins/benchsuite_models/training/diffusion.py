"""Denoising loss of both heads on shared noise, and the networks and processes of each family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch

from benchsuite.noise import sigma_from_log_snr
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models import factor_embedding
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.finite_population import FinitePopulation
from benchsuite_models.process import DataRange, Process, VarianceExploding, VariancePreserving
from benchsuite_models.training.config import Noise, Pairs, Stage, UNet

#: Standard deviation of the random frequencies (per unit of ln sigma, times 2 pi) in a score network's time
#: embedding. diffusers draws them with 16, which makes the network a rough function of sigma; they are weights
#: of the checkpoint, so a smoother choice costs no compatibility.
FOURIER_SCALE = 0.25

#: Held-out items that a finished model is measured on: 18 levels x 4 draws x 2 heads make 74 000 passes of them.
HELD_OUT = 512

#: Factors that do not tell two draws apart are chosen this much less often than those that do.
UNTOLD = 0.1
#: And those that a stage wants told apart are chosen this much more often.
FAVOURED = 4.0

#: Nothing but noised items.
PLAIN = Stage(0)

_Choice = TypeVar("_Choice")


@dataclass
class Denoiser:
    """A network in training, seen as denoise(x, sigma, class index) through the adapters' own formulas."""

    network: torch.nn.Module
    process: Process
    data_range: DataRange
    conditioning: Conditioning
    patch: int = 1

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """E[x0 | x, labels]; x (B, C, H, W), sigma (B,), labels (B, F) with -1 = null."""
        condition = self.conditioning.index(labels, len(x), x.device)
        if self.conditioning.summed:
            assert condition is not None
            condition = factor_embedding.embed(self.network.factor_embedding, condition)

        def forward(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            folded = torch.nn.functional.pixel_unshuffle(state, self.patch)
            return torch.nn.functional.pixel_shuffle(self.network(folded, time, condition).sample, self.patch)

        return self.data_range.denoise(self.process, forward, x, sigma)


def build_unet(
    shape: tuple[int, ...], conditioning: Conditioning, config: UNet, fourier: bool, patch: int = 1
) -> Any:
    """A UNet2DModel for items of `shape` (C, H, W), with its class embeddings.

    With a summed conditioning the tables are its submodule ``factor_embedding``.
    """
    ensure_torchvision_importable()
    from diffusers import UNet2DModel

    levels = len(config.widths)
    attention = [config.attention_first] + [True] * (levels - 1)
    network = UNet2DModel(
        sample_size=shape[1] // patch,
        in_channels=shape[0] * patch**2,
        out_channels=shape[0] * patch**2,
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=config.groups,
        attention_head_dim=config.head,
        time_embedding_type="fourier" if fourier else "positional",
        class_embed_type="identity" if conditioning.summed else None,
        num_class_embeds=None if conditioning.summed else conditioning.rows,
    )
    if conditioning.summed:
        network.factor_embedding = factor_embedding.build(conditioning.factors, 4 * config.widths[0])
    if fourier:
        network.time_proj.weight.data.mul_(FOURIER_SCALE / 16)
    return network


def build_process(family: str, prediction: str = "epsilon") -> tuple[Process, DataRange, Any]:
    """Process, data range and diffusers scheduler of one family's recipes."""
    ensure_torchvision_importable()
    if family == "score-sde":
        from diffusers import ScoreSdeVeScheduler

        # data in [0, 1]: half of our sigma, so log-SNR 9.2 … -9.2 as in the other families
        ve = ScoreSdeVeScheduler(num_train_timesteps=1000, sigma_min=0.005, sigma_max=50.0)
        kind = "denoised" if prediction == "denoised" else "score"
        return VarianceExploding(0.005, 50.0, kind), DataRange(0.0, 1.0), ve
    from diffusers import DDPMScheduler

    # linear betas 1e-4 … 2e-2, 1000 steps
    vp = DDPMScheduler(clip_sample=family == "ddpm", prediction_type=prediction)
    process = VariancePreserving(vp.alphas_cumprod.numpy(), vp.config.prediction_type)
    return process, DataRange(-1.0, 1.0), vp


def draw_log_snr(batch: int, noise: Noise, generator: torch.Generator) -> torch.Tensor:
    """Noise levels (batch,), stratified: half uniform on [low, high], half normal around the centre."""
    u = _strata(batch, generator)
    normal = _normal(u[1::2], noise, noise.centre, noise.width)
    return torch.cat([noise.low + (noise.high - noise.low) * u[::2], normal])


def _strata(batch: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform on [0, 1], one in each of `batch` equal parts."""
    return (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch


def _normal(u: torch.Tensor, noise: Noise, centre: float, width: float) -> torch.Tensor:
    """The normal quantiles of u, held within the levels of `noise`."""
    normal: torch.Tensor = centre + width * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
    return normal.clamp(noise.low, noise.high)


def level_weight(sigma: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Weight of the squared error of the noise at each level, see `Noise`; sigma (B,)."""
    weight: torch.Tensor = (1 + sigma**2) ** noise.weight
    return weight if noise.cap is None else weight * (noise.cap * sigma**2 / (1 + sigma**2)).clamp_max(1.0)


def drop_labels(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Labels (B, F) with one factor kept in each row, chosen at random, and the others null (-1)."""
    batch, factors = labels.shape
    kept = torch.randint(factors, (batch,), generator=generator)[:, None] == torch.arange(factors)
    return torch.where(kept, labels, -1)


def noise_error(
    denoiser: Denoiser, x: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Error in units of the noise: (D(x) - target) / sigma, (B, dim)."""
    return ((denoiser(x, sigma, labels) - target) / sigma.view(-1, 1, 1, 1)).flatten(1)


@dataclass
class TrainingSet:
    """What a network is taught: items (N, C, H, W) on the CPU, labels (N, F), and the population if asked."""

    items: torch.Tensor
    labels: torch.Tensor
    population: FinitePopulation | None = None
    _combinations: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def partners(self, chosen: torch.Tensor, column: int, generator: torch.Generator) -> torch.Tensor:
        """For each of `chosen` (B,) an item with another value of one factor and the same of all others, (B,).

        Raises:
            ValueError: the items are not every combination of values once.
        """
        if column not in self._combinations:
            self._combinations[column] = self._combine(column)
        order, place, group = self._combinations[column]
        step = torch.randint(1, order.shape[1], chosen.shape, generator=generator)
        return order[group[chosen], (place[chosen] + step) % order.shape[1]]

    def _combine(self, column: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Items by combination of the other factors (G, K), and where in it each one is: place and group, (N,)."""
        rest = torch.cat([self.labels[:, :column], self.labels[:, column + 1 :]], dim=1)
        group = rest.unique(dim=0, return_inverse=True)[1]
        sizes = group.bincount()
        size = int(sizes[0])
        if size < 2 or (sizes != size).any():
            raise ValueError(f"items cannot be blended along factor {column}: combinations of values are missing")
        order = group.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) % size
        return order.view(-1, size), place, group

    def drawn_apart(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        generator: torch.Generator,
        favoured: Sequence[int] = (),
    ) -> torch.Tensor:
        """Labels (2, B, F) of two items drawn from the posterior at x (B, C, H, W), all but one factor null.

        The factor is one that tells the two draws apart, one of the columns `favoured` the more often
        (`FAVOURED`), or less often (`UNTOLD`) another: that a value is certain, or seen in no item, has to be
        learned too.
        """
        assert self.population is not None
        drawn = torch.empty(len(x), 2, dtype=torch.int64)
        coordinates = self.population.coordinates(x.flatten(1))
        for rows, live, weights in self.population.weights(coordinates, sigma):
            drawn[rows.cpu()] = live.cpu()[torch.multinomial(weights.cpu(), 2, True, generator=generator)]
        order, first, count, seen = self._copies
        copy = (torch.rand(drawn.shape, generator=generator) * count[drawn]).long()
        told = self.labels[order[first[drawn] + copy]].transpose(0, 1)
        a, b = seen[drawn].unbind(1)
        telling = torch.ones(a.shape[1])
        telling[list(favoured)] = FAVOURED
        factor = torch.multinomial(torch.where(a != b, telling, UNTOLD), 1, generator=generator)
        return torch.where(factor == torch.arange(told.shape[2]), told, -1)

    @cached_property
    def _copies(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Items by point (N,), and of each (M,): its place there, its copies, and labels (M, F) to tell it by.

        Copies of a point differ in what is not seen, which their smallest label does not tell.
        """
        assert self.population is not None
        copies = self.population.copies.cpu()
        order, count = copies.argsort(stable=True), copies.bincount()
        seen = self.labels.new_empty(len(count), self.labels.shape[1])
        seen.scatter_reduce_(0, copies[:, None].expand_as(self.labels), self.labels, "amin", include_self=False)
        return order, count.cumsum(0) - count, count, seen

    def targets(
        self, chosen: torch.Tensor, x: torch.Tensor, sigma: torch.Tensor, given: torch.Tensor
    ) -> torch.Tensor:
        """What D(x; sigma, labels) ought to be: (H B, C, H, W), head by head.

        Args:
            chosen: (B,), the items that were noised.
            x: (B, C, H, W), noised items.
            sigma: (B,).
            given: (H, B, F), labels told to each head, -1 where none.
        """
        if self.population is None:
            return self.items[chosen].to(x.device).repeat(len(given), 1, 1, 1)
        members = torch.ones(*given.shape[:2], len(self.items), dtype=torch.bool)
        for factor, labels in enumerate(self.labels.T):  # one at a time: ten times faster than all at once
            asked = given[:, :, factor, None]
            members &= (asked == -1) | (asked == labels)
        means = self.population.means(x.flatten(1), sigma, members.to(x.device))
        return means.to(x.dtype).view(-1, *x.shape[1:])


def paired_loss(
    denoiser: Denoiser,
    data: TrainingSet,
    batch: int,
    noise: Noise,
    generator: torch.Generator,
    device: torch.device,
    stage: Stage = PLAIN,
    names: Sequence[str] = (),
) -> torch.Tensor:
    """Denoising loss on `batch` rows: every noised item is seen with its labels and without.

    With several factors there are three heads instead of two: all labels, one of them, none. They meet the same
    (item, noise, level): heads that share their noise in training share their errors, and it is their difference
    that measures information. In a stage with contrast the head that is told one label gives way to two that are
    told different ones. One that names factors needs the names of all, in the order of the labels. Steps of
    `Pairs` are as that says.
    """
    favoured = [names.index(name) for name in stage.apart]
    pairs = stage.pairs
    if pairs is not None and torch.rand((), generator=generator).item() < pairs.share:
        return _open_loss(denoiser, data, batch // 2, stage.noise or noise, generator, device, pairs, favoured)
    heads = 4 if stage.contrast is not None else 2 if data.labels.shape[1] == 1 else 3
    noise = stage.noise or noise
    n = batch // heads
    chosen = torch.randint(len(data.items), (n,), generator=generator)
    items, log_snr, way = data.items[chosen], draw_log_snr(n, noise, generator), None
    eps = torch.randn((n, *data.items.shape[1:]), generator=generator).to(device)
    blend = _one_of(stage.blends, generator) if stage.blends else None  # None may be one of them
    if blend is not None:
        column = names.index(_one_of(blend.factors, generator))
        way = data.items[data.partners(chosen, column, generator)] - items
        part, level = torch.rand(2, len(items[::2]), generator=generator)
        items[::2] += part.view(-1, 1, 1, 1) * way[::2]
        log_snr[::2] = blend.low + (blend.high - blend.low) * level
    sigma = sigma_from_log_snr(log_snr).to(device)
    told = data.labels[chosen]
    x = items.to(device) + sigma.view(-1, 1, 1, 1) * eps
    some = [drop_labels(told, generator)] if heads == 3 else []
    if stage.contrast is not None:
        some = list(data.drawn_apart(x, sigma, generator, favoured))
    given = torch.stack([told, torch.full_like(told, -1), *some])
    target = data.targets(chosen, x, sigma, given)
    x, sigma = x.repeat(heads, 1, 1, 1), sigma.repeat(heads)
    error = noise_error(denoiser, x, target, sigma, given.flatten(0, 1).to(device))
    squared = error.square().mean(dim=1)
    if blend is not None and way is not None:
        along = torch.nn.functional.normalize(way.flatten(1)).to(device).repeat(heads, 1)
        squared = squared + blend.emphasis * (error * along).sum(dim=1).square() / error.shape[1]
    if stage.contrast is not None:
        _, _, one, other = error.chunk(heads)
        squared = squared + stage.contrast / heads * (one - other).square().mean(dim=1).repeat(heads)
    loss: torch.Tensor = (squared * level_weight(sigma, noise)).mean()
    return loss


def _open_loss(
    denoiser: Denoiser,
    data: TrainingSet,
    n: int,
    noise: Noise,
    generator: torch.Generator,
    device: torch.device,
    pairs: Pairs,
    favoured: Sequence[int],
) -> torch.Tensor:
    """The loss of a step of `Pairs`, on `n` noised items."""
    chosen = torch.randint(len(data.items), (n,), generator=generator)
    log_snr = _normal(_strata(n, generator), noise, pairs.centre, pairs.width)
    eps = torch.randn((n, *data.items.shape[1:]), generator=generator).to(device)
    sigma = sigma_from_log_snr(log_snr).to(device)
    x = data.items[chosen].to(device) + sigma.view(-1, 1, 1, 1) * eps
    one = data.drawn_apart(x, sigma, generator, favoured)[0]
    given = torch.stack([torch.full_like(one, -1), one])
    target = data.targets(chosen, x, sigma, given)
    x, sigma = x.repeat(2, 1, 1, 1), sigma.repeat(2)
    error = noise_error(denoiser, x, target, sigma, given.flatten(0, 1).to(device))
    untold, told = error.chunk(2)
    squared = error.square().mean(dim=1) + pairs.contrast / 2 * (untold - told).square().mean(dim=1).repeat(2)
    loss: torch.Tensor = (squared * level_weight(sigma, noise)).mean()
    return loss


def _one_of(choices: Sequence[_Choice], generator: torch.Generator) -> _Choice:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


@torch.no_grad()
def held_out_losses(
    denoiser: Denoiser,
    items: torch.Tensor,
    labels: torch.Tensor,
    noise: Noise,
    seed: int,
    device: torch.device,
    levels: int = 18,
    draws: int = 4,
) -> list[dict[str, float]]:
    """Denoising error of both heads at `levels` log-SNRs, in units of the noise per dimension.

    The first `HELD_OUT` items are used; each meets the same `draws` noises at every level, so that levels and
    checkpoints are comparable.
    """
    items, labels = items[:HELD_OUT], labels[:HELD_OUT]
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn((draws * len(items), *items.shape[1:]), generator=generator)
    x0, told = items.repeat(draws, 1, 1, 1), labels.repeat(draws, 1)
    rows = []
    for log_snr in torch.linspace(noise.low, noise.high, levels).tolist():
        sigma = torch.full((len(x0),), sigma_from_log_snr(torch.tensor(log_snr)).item())
        x = x0 + sigma.view(-1, 1, 1, 1) * eps
        row = {"log_snr": log_snr}
        for head, given in (("unconditional", torch.full_like(told, -1)), ("conditional", told)):
            errors = [
                noise_error(denoiser, *(part.to(device) for part in parts)).square().mean(dim=1)
                for parts in zip(x.split(512), x0.split(512), sigma.split(512), given.split(512), strict=True)
            ]
            row[head] = torch.cat(errors).mean().item()
        rows.append(row)
    return rows
