"""First-party model plugins. Importing this package imports no torch; classes do, when they are used."""

from __future__ import annotations

from benchsuite import DiffusionModel, Recipe, hookimpl
from benchsuite_models.adm import ADM
from benchsuite_models.ddpm import DDPM
from benchsuite_models.dit import DiT
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_gaussian import ExactGaussian
from benchsuite_models.exact_mixture import ExactMixture
from benchsuite_models.exact_rhm import ExactRHM
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.planted_error import PlantedError
from benchsuite_models.random_features import RandomFeatures
from benchsuite_models.recipes import (
    DDPMDigits,
    DDPMFashionMNIST,
    DDPMFewDigits,
    DDPMShapes,
    LatentDiffusionDigits,
    LatentDiffusionFashionMNIST,
    LatentDiffusionMNIST,
    LatentDiffusionShapes,
    ScoreSDEDigits,
    ScoreSDEFashionMNIST,
    ScoreSDEShapes,
)
from benchsuite_models.score_sde import ScoreSDE


@hookimpl
def benchsuite_models() -> list[type[DiffusionModel]]:
    """Model classes of this package."""
    return [
        ADM,
        DDPM,
        DiT,
        EmpiricalBayes,
        ExactGaussian,
        ExactMixture,
        ExactRHM,
        LatentDiffusion,
        PlantedError,
        RandomFeatures,
        ScoreSDE,
    ]


@hookimpl
def benchsuite_recipes() -> list[type[Recipe]]:
    """Training recipes of this package."""
    return [
        DDPMDigits,
        DDPMFashionMNIST,
        DDPMFewDigits,
        DDPMShapes,
        LatentDiffusionDigits,
        LatentDiffusionFashionMNIST,
        LatentDiffusionMNIST,
        LatentDiffusionShapes,
        ScoreSDEDigits,
        ScoreSDEFashionMNIST,
        ScoreSDEShapes,
    ]
