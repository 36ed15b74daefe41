"""Small random checkpoints, written by diffusers itself in the layouts found on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchsuite import Dataset, Factor, Split
from benchsuite.torchvision_compat import ensure_torchvision_importable

ensure_torchvision_importable()


def unet(
    channels: int = 1, *, out: int | None = None, size: int | None = 8, seed: int = 0, **config: Any
) -> torch.nn.Module:
    """A UNet2DModel of a few thousand weights, all random (none zero, so that no error hides)."""
    from diffusers import UNet2DModel

    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=out or channels,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
        **config,
    )
    return network.eval()


def autoencoder(quantised: bool = False, channels: int = 1, latents: int = 2, **config: Any) -> torch.nn.Module:
    """An AutoencoderKL or VQModel that halves the resolution."""
    from diffusers import AutoencoderKL, VQModel

    torch.manual_seed(1)
    cls = VQModel if quantised else AutoencoderKL
    return cls(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        latent_channels=latents,
        norm_num_groups=4,
        **config,
    ).eval()


def ddpm_scheduler(prediction: str = "epsilon", **config: Any) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(prediction_type=prediction, clip_sample=False, **config)


def ve_scheduler(**config: Any) -> Any:
    from diffusers import ScoreSdeVeScheduler

    return ScoreSdeVeScheduler(**config)


def save(
    folder: Path,
    network: torch.nn.Module,
    scheduler: Any,
    *,
    nested: bool = False,
    vae: torch.nn.Module | None = None,
    vae_folder: str = "vae",
    safe: bool = True,
    card: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint: weights at the root, or in unet/ and scheduler/ if `nested` or with a `vae`."""
    nested = nested or vae is not None
    network.save_pretrained(folder / "unet" if nested else folder, safe_serialization=safe)
    scheduler.save_pretrained(folder / "scheduler" if nested else folder)
    if vae is not None:
        vae.save_pretrained(folder / vae_folder)
    if card is not None:
        (folder / "benchsuite.json").write_text(json.dumps(card))
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Images(Dataset):
    """Random images with a class that sets their brightness; enough to train on for a few steps."""

    name = "images"

    def __init__(self, shape: tuple[int, ...] = (1, 8, 8), values: int = 3, factors: int = 1) -> None:
        self.shape = shape
        self.factors = tuple(
            Factor("class" if i == 0 else f"other{i}", tuple(str(k) for k in range(values)))
            for i in range(factors)
        )

    def load(self) -> None:
        pass

    def split(self, name: str) -> Split:
        n = 24
        generator = torch.Generator().manual_seed(len(name))
        labels = torch.randint(self.factors[0].size, (n, len(self.factors)), generator=generator)
        brightness = labels[:, 0].float().view(-1, 1, 1, 1) / self.factors[0].size * 2 - 1
        images = (brightness + 0.2 * torch.randn((n, *self.shape), generator=generator)).clamp(-1, 1)
        return Split(images, labels, tuple(f"{name}/{i}" for i in range(n)))
