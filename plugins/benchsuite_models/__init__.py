"""First-party model plugins. Importing this package imports no torch; classes do, when they are used."""

from __future__ import annotations

from benchsuite import DiffusionModel, hookimpl
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_gaussian import ExactGaussian
from benchsuite_models.exact_mixture import ExactMixture
from benchsuite_models.exact_rhm import ExactRHM


@hookimpl
def benchsuite_models() -> list[type[DiffusionModel]]:
    """Model classes of this package."""
    return [
        EmpiricalBayes,
        ExactGaussian,
        ExactMixture,
        ExactRHM,
    ]
