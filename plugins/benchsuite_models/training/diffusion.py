"""Denoising loss of both heads on shared noise, and the networks and processes of each family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchsuite.noise import sigma_from_log_snr
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.process import DataRange, Process, VarianceExploding, VariancePreserving
from benchsuite_models.training.config import Noise, UNet

#: Standard deviation of the random frequencies (per unit of ln sigma, times 2 pi) in a score network's time
#: embedding. diffusers draws them with 16, which makes the network a rough function of sigma; they are weights
#: of the checkpoint, so a smoother choice costs no compatibility.
FOURIER_SCALE = 0.25


@dataclass
class Denoiser:
    """A network in training, seen as denoise(x, sigma, class index) through the adapters' own formulas."""

    network: torch.nn.Module
    process: Process
    data_range: DataRange
    conditioning: Conditioning

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """E[x0 | x, labels]; x (B, C, H, W), sigma (B,), labels (B, F) with -1 = null."""
        index = self.conditioning.index(labels, len(x), x.device)

        def forward(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.network(state, time, index).sample
            return output

        return self.data_range.denoise(self.process, forward, x, sigma)


def build_unet(shape: tuple[int, ...], rows: int, config: UNet, fourier: bool) -> Any:
    """A UNet2DModel for items of `shape` (C, H, W) with `rows` class embeddings."""
    ensure_torchvision_importable()
    from diffusers import UNet2DModel

    levels = len(config.widths)
    attention = [config.attention_first] + [True] * (levels - 1)
    network = UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attention),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)),
        norm_num_groups=config.groups,
        attention_head_dim=config.head,
        time_embedding_type="fourier" if fourier else "positional",
        num_class_embeds=rows,
    )
    if fourier:
        network.time_proj.weight.data.mul_(FOURIER_SCALE / 16)
    return network


def build_process(family: str) -> tuple[Process, DataRange, Any]:
    """Process, data range and diffusers scheduler of one family's recipes."""
    ensure_torchvision_importable()
    if family == "score-sde":
        from diffusers import ScoreSdeVeScheduler

        # data in [0, 1]: half of our sigma, so log-SNR 9.2 … -9.2 as in the other families
        ve = ScoreSdeVeScheduler(num_train_timesteps=1000, sigma_min=0.005, sigma_max=50.0)
        return VarianceExploding(0.005, 50.0), DataRange(0.0, 1.0), ve
    from diffusers import DDPMScheduler

    vp = DDPMScheduler(clip_sample=family == "ddpm")  # linear betas 1e-4 … 2e-2, 1000 steps, epsilon
    process = VariancePreserving(vp.alphas_cumprod.numpy(), vp.config.prediction_type)
    return process, DataRange(-1.0, 1.0), vp


def draw_log_snr(batch: int, noise: Noise, generator: torch.Generator) -> torch.Tensor:
    """Noise levels (batch,), stratified: half uniform on [low, high], half normal around the centre."""
    u = (torch.arange(batch) + torch.rand(batch, generator=generator)) / batch
    normal = noise.centre + noise.width * torch.special.ndtri(u[1::2].clamp(1e-4, 1 - 1e-4))
    return torch.cat([noise.low + (noise.high - noise.low) * u[::2], normal.clamp(noise.low, noise.high)])


def drop_labels(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Labels (B, F) of the conditional half: with several factors, every second row keeps only one of them."""
    batch, factors = labels.shape
    if factors == 1:
        return labels
    kept = torch.randint(factors, (batch,), generator=generator)[:, None] == torch.arange(factors)
    everything = torch.rand(batch, 1, generator=generator) < 0.5
    return torch.where(everything | kept, labels, -1)


def epsilon_error(
    denoiser: Denoiser, x0: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Mean squared error in units of the noise, per item: ‖D(x0 + sigma n) - x0‖² / (sigma² dim), (B,)."""
    column = sigma.view(-1, 1, 1, 1)
    error = (denoiser(x0 + column * noise, sigma, labels) - x0) / column
    return error.flatten(1).pow(2).mean(dim=1)


def paired_loss(
    denoiser: Denoiser,
    items: torch.Tensor,
    labels: torch.Tensor,
    batch: int,
    noise: Noise,
    generator: torch.Generator,
    device: torch.device,
) -> torch.Tensor:
    """Denoising loss on `batch` rows: batch/2 noised items, each seen once with its labels and once without.

    Label dropout of 1/2 with both heads on the same (item, noise, level). Heads that share their noise in
    training share their errors, and it is their difference that measures information.
    """
    n = batch // 2
    chosen = torch.randint(len(items), (n,), generator=generator)
    sigma = sigma_from_log_snr(draw_log_snr(n, noise, generator)).to(device).repeat(2)
    eps = torch.randn((n, *items.shape[1:]), generator=generator).to(device).repeat(2, 1, 1, 1)
    told = drop_labels(labels[chosen], generator)
    both = torch.cat([told, torch.full_like(told, -1)]).to(device)
    return epsilon_error(denoiser, items[chosen].to(device).repeat(2, 1, 1, 1), eps, sigma, both).mean()


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

    Every item meets the same `draws` noises at each level, so that levels and checkpoints are comparable.
    """
    generator = torch.Generator().manual_seed(seed)
    eps = torch.randn((draws * len(items), *items.shape[1:]), generator=generator)
    x0, told = items.repeat(draws, 1, 1, 1), labels.repeat(draws, 1)
    rows = []
    for log_snr in torch.linspace(noise.low, noise.high, levels).tolist():
        sigma = torch.full((len(x0),), sigma_from_log_snr(torch.tensor(log_snr)).item())
        row = {"log_snr": log_snr}
        for head, given in (("unconditional", torch.full_like(told, -1)), ("conditional", told)):
            errors = [
                epsilon_error(denoiser, *(part.to(device) for part in parts))
                for parts in zip(x0.split(512), eps.split(512), sigma.split(512), given.split(512), strict=True)
            ]
            row[head] = torch.cat(errors).mean().item()
        rows.append(row)
    return rows
