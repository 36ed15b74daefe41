"""Variance-exploding score SDE (NCSN++): continuous sigma, pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from benchsuite_models.card import read_card
from benchsuite_models.checkpoint import Part
from benchsuite_models.diffusers_model import DiffusersModel
from benchsuite_models.presets import FOR_SCORE_SDE, Preset
from benchsuite_models.process import VarianceExploding
from benchsuite_models.schedule import variance_exploding


class ScoreSDE(DiffusersModel):
    """A UNet2DModel that takes sigma and returns the score of the VE process (Song et al. 2021).

    These networks see data in [0, 1], so their sigma is half of ours; ``data_range=-1..1`` says otherwise.
    A 'fourier' network divides its output by sigma itself, so what it returns is the score as it stands; or, where
    benchsuite.json says ``"prediction": "denoised"``, the posterior mean over sigma (see `VarianceExploding`).
    """

    name = "score-sde"
    family = "score-sde"
    paper = "arXiv:2011.13456"
    data_habit = (0.0, 1.0)
    presets: ClassVar[Mapping[str, Preset]] = FOR_SCORE_SDE

    def read_process(self, unet: Part, path: Path, config: dict[str, Any]) -> VarianceExploding:
        """See `DiffusersModel.read_process`."""
        return variance_exploding(path, config, read_card(self.root).get("prediction", "score"))
