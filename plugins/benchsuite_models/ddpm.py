"""DDPM and its kin: discrete time, variance preserving, pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchsuite import ModelLoadError
from benchsuite_models.checkpoint import Part
from benchsuite_models.diffusers_model import DiffusersModel
from benchsuite_models.presets import FOR_DDPM, Preset
from benchsuite_models.process import VariancePreserving
from benchsuite_models.schedule import variance_preserving


class DDPM(DiffusersModel):
    """A UNet2DModel trained on the steps of a discrete variance-preserving schedule (Ho et al. 2020).

    Opens every diffusers directory with a UNet2DModel and a DDPM-like scheduler: epsilon, v (arXiv:2202.00512)
    or sample prediction, with or without learned variance. Data in [-1, 1] unless said otherwise.
    """

    name = "ddpm"
    family = "ddpm"
    paper = "arXiv:2006.11239"
    presets: ClassVar[Mapping[str, Preset]] = FOR_DDPM

    def read_process(self, unet: Part, path: Path, config: dict[str, Any]) -> VariancePreserving:
        """See `DiffusersModel.read_process`."""
        return discrete_process(unet, path, config)


def discrete_process(unet: Part, path: Path, config: dict[str, Any]) -> VariancePreserving:
    """The scheduler's process for a network that takes step numbers.

    Raises:
        ModelLoadError: the network takes sigma instead, or the scheduler has no known mapping.
    """
    embedding = unet.config.get("time_embedding_type", "positional")
    if embedding == "fourier":
        raise ModelLoadError(
            f"{unet.where}: time_embedding_type 'fourier' takes sigma, not a step, and "
            f"divides by it; {path} counts steps. Is it a score-sde?"
        )
    return variance_preserving(path, config, whole_steps=embedding == "learned")
