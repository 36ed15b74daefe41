"""From a diffusers scheduler's configuration to a noise process."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from benchsuite import ModelLoadError
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models.process import PREDICTIONS, VarianceExploding, VariancePreserving

#: Schedulers of ordinary discrete-time diffusion: one table of cumulative alphas, steppers that differ only in
#: how they walk it. Distilled ones (LCM, TCD) are left out: their networks are not posterior means.
VARIANCE_PRESERVING = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)


def variance_preserving(path: Path, config: dict[str, Any], whole_steps: bool = False) -> VariancePreserving:
    """The discrete process that the scheduler configuration at `path` describes.

    Raises:
        ModelLoadError: unknown scheduler or prediction type, or a table of alphas that is no noise schedule.
    """
    name = str(config.get("_class_name"))
    if name not in VARIANCE_PRESERVING:
        hint = "; try score-sde" if name == "ScoreSdeVeScheduler" else ""
        raise ModelLoadError(f"{path}: scheduler {name} has no known mapping to a discrete noise table{hint}")
    ensure_torchvision_importable()
    import diffusers

    try:
        scheduler = getattr(diffusers, name).from_config(config)
        alpha_bars = scheduler.alphas_cumprod.double().numpy()
    except Exception as error:  # diffusers raises whatever the bad value runs into
        raise ModelLoadError(f"{path}: {name} refuses its configuration: {error}") from error
    prediction = str(scheduler.config.get("prediction_type", "epsilon"))
    if prediction not in PREDICTIONS:
        raise ModelLoadError(
            f"{path}: prediction_type {prediction!r} has no known mapping; known: {', '.join(PREDICTIONS)}"
        )
    try:
        return VariancePreserving(alpha_bars, prediction, whole_steps)
    except ValueError as error:
        raise ModelLoadError(f"{path}: {error}") from error


def variance_exploding(path: Path, config: dict[str, Any], prediction: str = "score") -> VarianceExploding:
    """The continuous process that a ScoreSdeVeScheduler configuration at `path` describes.

    Raises:
        ModelLoadError: another scheduler, or noise levels that are not 0 < sigma_min < sigma_max.
    """
    name = str(config.get("_class_name"))
    if name != "ScoreSdeVeScheduler":
        hint = "; try ddpm" if name in VARIANCE_PRESERVING else ""
        raise ModelLoadError(
            f"{path}: scheduler {name} has no known mapping to a score; expected ScoreSdeVeScheduler{hint}"
        )
    from diffusers import ScoreSdeVeScheduler

    defaults = inspect.signature(ScoreSdeVeScheduler).parameters
    low, high = (config.get(key, defaults[key].default) for key in ("sigma_min", "sigma_max"))
    try:
        return VarianceExploding(low, high, prediction)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
