"""The hooks a plugin may implement. Each returns a list of classes; nothing is built at discovery."""

from __future__ import annotations

import pluggy

from benchsuite.contracts import Dataset, DiffusionModel, Metric, Recipe

PROJECT = "benchsuite"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def benchsuite_models() -> list[type[DiffusionModel]]:  # type: ignore[empty-body]
    """Model classes."""


@hookspec
def benchsuite_metrics() -> list[type[Metric]]:  # type: ignore[empty-body]
    """Metric classes."""


@hookspec
def benchsuite_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """Data set classes."""


@hookspec
def benchsuite_recipes() -> list[type[Recipe]]:  # type: ignore[empty-body]
    """Training recipes."""
