"""A small AutoencoderKL and its objective."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchsuite import Track
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models.training.config import Autoencoder
from benchsuite_models.training.loop import fit

_BATCH = 512  # images encoded at once


def build_autoencoder(shape: tuple[int, ...], config: Autoencoder) -> Any:
    """An AutoencoderKL for images of `shape` (C, H, W), halving the resolution between widths."""
    ensure_torchvision_importable()
    from diffusers import AutoencoderKL

    levels = len(config.widths)
    return AutoencoderKL(
        in_channels=shape[0],
        out_channels=shape[0],
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.widths,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        sample_size=shape[1],
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train_autoencoder(
    network: Any,
    images: torch.Tensor,
    config: Autoencoder,
    *,
    patch: int,
    seed: int,
    device: torch.device,
    checkpoint: Path,
    identity: dict[str, object],
    track: Track,
) -> list[float]:
    """Fit `network` to images in [-1, 1], then store 1 / std of its latents as scaling factor.

    The images (N, C patch², H, W) are folded: channels c patch² … (c + 1) patch² - 1 are one block of pixels.

    Returns:
        Training loss of every step.
    """

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(images), (config.optimisation.batch,), generator=generator)
        x = images[chosen].to(device)
        posterior = network.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        output = network.decode(posterior.mean + posterior.std * noise).sample
        difference = (output - x).unflatten(1, (-1, patch**2))
        error: torch.Tensor = difference.pow(2).mean()
        if config.detail:
            error = error + config.detail * (difference - difference.mean(2, keepdim=True)).pow(2).mean()
        divergence: torch.Tensor = posterior.kl().mean()
        return error + config.kl / x[0].numel() * divergence

    losses = fit(
        network,
        loss,
        config.optimisation,
        seed=seed,
        checkpoint=checkpoint,
        identity=identity,
        description="training the autoencoder",
        track=track,
    )
    network.eval()
    network.register_to_config(scaling_factor=float(1 / encode(network, images, device).std()))
    return losses


@torch.no_grad()
def encode(network: Any, images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Images (N, C, H, W) => unscaled latents (the posterior's mode) on the CPU."""
    return torch.cat([network.encode(part.to(device)).latent_dist.mode().cpu() for part in images.split(_BATCH)])


@torch.no_grad()
def reconstruction_error(network: Any, images: torch.Tensor, device: torch.device) -> float:
    """Mean squared error per pixel of images (N, C, H, W) in [-1, 1] after encoding and decoding."""
    latents = encode(network, images, device).split(_BATCH)
    squares = [
        (network.decode(z.to(device)).sample.cpu() - x).pow(2).sum()
        for x, z in zip(images.split(_BATCH), latents, strict=True)
    ]
    return float(torch.stack(squares).sum()) / images.numel()
