"""DiT: a transformer in the latents of Stable Diffusion's autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from benchsuite import ModelLoadError
from benchsuite_models.card import conditioning, read_card
from benchsuite_models.checkpoint import Part, find_part
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.presets import FOR_DIT, Preset


class DiT(LatentDiffusion):
    """A DiTTransformer2DModel on the scaled latents of an AutoencoderKL (Peebles & Xie 2023).

    Opens the DiTPipeline layout: transformer/, vae/, scheduler/. Class tables have one row more than classes, the
    last, for "no class"; unless a benchsuite.json or `factor` says otherwise the factor is called ``class``, with
    the classes in the order of the table. Of twice as many output channels (learned variance) the first half is
    the prediction.

    Args:
        source: see `DiffusersModel`.
        revision: see `DiffusersModel`.
        factor: see `DiffusersModel`.
        null_class: see `DiffusersModel`; the last row unless given.
        scaling_factor: see `LatentDiffusion`.
    """

    name = "dit"
    paper = "arXiv:2212.09748"
    presets: ClassVar[Mapping[str, Preset]] = FOR_DIT

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
        return replace(part, class_name="DiTTransformer2DModel", config=config)

    def _conditioning(self, unet: Part) -> Conditioning:
        card, options = read_card(self.root), self.options
        if options.factor is None and not card.get("factors"):
            options = replace(options, factor="class")
        if options.factor is not None and options.null_class is None:
            options = replace(options, null_class=unet.config["num_class_embeds"] - 1)
        return conditioning(card, options, unet)
