"""DiT: a transformer in the latents of Stable Diffusion's autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from benchsuite import ModelLoadError, UsageError
from benchsuite_models.card import conditioning, read_card
from benchsuite_models.checkpoint import Part, find_part
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.presets import FOR_DIT, Preset

if TYPE_CHECKING:
    import torch


class DiT(LatentDiffusion):
    """A DiTTransformer2DModel on the scaled latents of an AutoencoderKL (Peebles & Xie 2023).

    Opens the DiTPipeline layout: transformer/, vae/, scheduler/. Class tables have one row more than classes, the
    last, for "no class"; unless a benchsuite.json or `factor` says otherwise the factor is called ``class``, with
    the classes in the order of the table. Of twice as many output channels (learned variance) the first half is
    the prediction.

    DiT embeds time with frequencies ``10000^(-i / half)``, diffusers with ``10000^(-i / (half - 1))``. Published
    weights are conversions of the former and are run as they were trained; ``freq_shift=1`` is for networks that
    were trained in diffusers.

    Args:
        source: see `DiffusersModel`.
        revision: see `DiffusersModel`.
        factor: see `DiffusersModel`.
        null_class: see `DiffusersModel`; the last row unless given.
        scaling_factor: see `LatentDiffusion`.
        freq_shift: what is taken from half the width in the exponent of the frequencies, 0 or 1.
    """

    name = "dit"
    paper = "arXiv:2212.09748"
    presets: ClassVar[Mapping[str, Preset]] = FOR_DIT

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        factor: str | None = None,
        null_class: int | None = None,
        scaling_factor: float | None = None,
        freq_shift: int = 0,
    ) -> None:
        super().__init__(source, revision, factor, null_class, scaling_factor)
        if freq_shift not in (0, 1):
            raise UsageError(f"{self.name}: freq_shift={freq_shift} is neither 0 nor 1")
        self.freq_shift = freq_shift

    def _unet(self) -> Part:
        """The transformer; checkpoints from before diffusers 0.28 call it a Transformer2DModel."""
        part = find_part(self.root, ("transformer",), ("DiTTransformer2DModel", "Transformer2DModel"))
        config: dict[str, Any] = dict(part.config)
        norm = config.get("norm_type", "ada_norm_zero" if part.class_name.startswith("DiT") else "layer_norm")
        classes = config.get("num_embeds_ada_norm", 1000)
        if norm != "ada_norm_zero" or classes is None:
            raise ModelLoadError(
                f"{part.where}: norm_type {norm!r} with num_embeds_ada_norm={classes} is no DiT, which has "
                "'ada_norm_zero' and a number of classes"
            )
        inputs = config.setdefault("in_channels", 4)
        config["out_channels"] = config.get("out_channels") or inputs
        config.setdefault("sample_size", 32)
        config["num_class_embeds"] = classes + 1
        config["freq_shift"] = self.freq_shift
        return replace(part, class_name="DiTTransformer2DModel", config=config)

    def _open_network(self, unet: Part) -> torch.nn.Module:
        network: Any = super()._open_network(unet)
        for block in network.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = self.freq_shift
        return network  # type: ignore[no-any-return]

    def _conditioning(self, unet: Part) -> Conditioning:
        card, options = read_card(self.root), self.options
        if options.factor is None and not card.get("factors"):
            options = replace(options, factor="class")
        if options.factor is not None and options.null_class is None:
            options = replace(options, null_class=unet.config["num_class_embeds"] - 1)
        return conditioning(card, options, unet)
