"""`check_model`: the conformance checks of a diffusion model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchsuite.contracts import Dataset, DiffusionModel
from benchsuite.testing.model_case import ModelCase
from benchsuite.testing.model_contract import CONTRACT
from benchsuite.testing.model_exact import EXACT
from benchsuite.testing.model_limits import LIMITS
from benchsuite.testing.results import CheckResult

MODEL = CONTRACT | LIMITS | EXACT
#: {name: promise} of everything that `check_model` runs
MODEL_CHECKS = MODEL.promises


def check_model(
    model: DiffusionModel,
    dataset: Dataset | None = None,
    *,
    only: Iterable[str] | None = None,
    expected_failed: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    alternatives: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> list[CheckResult]:
    """Hold a model to its contract; an exact one also to the identities of a posterior.

    Args:
        model: as constructed; it is bound and loaded here.
        dataset: a loaded data set to bind it to. Without one, checks against data are skipped, unless the model
            is exact and can be sampled.
        only: names of the checks to run; all of `MODEL_CHECKS` by default.
        expected_failed: {check: reason} of known failures. Strict: one that passes is not ok either.
        options: keyword arguments that `model` was built with, if any.
        alternatives: {option: another value} for options that are neither numbers nor flags.
        device: where to load it.

    Returns:
        One result per check, in order.

    Raises:
        UsageError: an unknown check.
    """
    case = ModelCase(model, dataset, device, options or {}, alternatives or {})
    return MODEL.run(model.name, case, only, expected_failed)
