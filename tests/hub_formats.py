"""Small random checkpoints in the very formats of the published ones.

The configurations have the keys, the spellings and (sizes apart) the values of the files on the hub, as far as
public copies of those show them; attention weights have the names they had then; weights are pickles.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from benchsuite.torchvision_compat import ensure_torchvision_importable

ensure_torchvision_importable()

Config = dict[str, Any]

OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

DDPM_UNET: Config = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.1.1",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [32, 32, 64],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 16,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
DDPM_SCHEDULER: Config = {
    "_class_name": "DDPMScheduler",
    "_diffusers_version": "0.1.1",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
NCSNPP_UNET: Config = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.1.3",
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [32, 64],
    "center_input_sample": False,
    "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 3,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1.41421356237,
    "norm_eps": 1e-06,
    "norm_num_groups": None,
    "out_channels": 3,
    "sample_size": 16,
    "time_embedding_type": "fourier",
    "up_block_types": ["AttnSkipUpBlock2D", "SkipUpBlock2D"],
}
NCSNPP_SCHEDULER: Config = {
    "_class_name": "ScoreSdeVeScheduler",
    "_diffusers_version": "0.1.3",
    "correct_steps": 1,
    "num_train_timesteps": 2000,
    "sampling_eps": 1e-05,
    "sigma_max": 348,
    "sigma_min": 0.01,
    "snr": 0.15,
    "tensor_format": "pt",
}
LDM_UNET: Config = {
    **DDPM_UNET,
    "_diffusers_version": "0.0.4",
    "attention_head_dim": 32,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "norm_eps": 1e-05,
    "sample_size": 8,
}
LDM_SCHEDULER: Config = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.0.4",
    "beta_end": 0.0195,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "timestep_values": None,
    "trained_betas": None,
}
LDM_VQVAE: Config = {
    "_class_name": "VQModel",
    "_diffusers_version": "0.1.2",
    "act_fn": "silu",
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 3,
    "layers_per_block": 1,
    "num_vq_embeddings": 64,
    "out_channels": 3,
    "sample_size": 16,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}
DIT_TRANSFORMER: Config = {
    "_class_name": "Transformer2DModel",
    "_diffusers_version": "0.12.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 8,
    "cross_attention_dim": None,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 2,
    "num_embeds_ada_norm": 10,
    "num_layers": 2,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 8,
    "upcast_attention": False,
    "use_linear_projection": False,
}
DIT_SCHEDULER: Config = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.12.0.dev0",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "trained_betas": None,
}
DIT_VAE: Config = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.12.0.dev0",
    "act_fn": "silu",
    "block_out_channels": [32, 32],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 16,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}


def network(config: Config, seed: int = 0) -> torch.nn.Module:
    """What a configuration describes, with random weights, none of them zero."""
    import diffusers

    name = {"Transformer2DModel": "DiTTransformer2DModel"}.get(config["_class_name"], config["_class_name"])
    cls = getattr(diffusers, name)
    known = cls._get_init_keys(cls)
    built = cls(**{key: value for key, value in config.items() if key in known})
    generator = torch.Generator().manual_seed(seed)
    for parameter in built.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return built.eval().requires_grad_(False)


def write(folder: Path, config: Config, built: torch.nn.Module) -> None:
    """config.json and diffusion_pytorch_model.bin with the attention names of that time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    old = config["_class_name"] != "Transformer2DModel"
    state = {(old_name(name) if old else name): value for name, value in built.state_dict().items()}
    torch.save(state, folder / "diffusion_pytorch_model.bin")


def write_scheduler(folder: Path, config: Config) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2))


def old_name(name: str) -> str:
    """``….attentions.0.to_q.weight`` => ``….attentions.0.query.weight``."""
    for new, old in OLD_NAMES.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name
