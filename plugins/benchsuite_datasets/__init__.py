"""First-party data sets and their readouts."""

from benchsuite import Dataset, Recipe, hookimpl
from benchsuite_datasets.digits import Digits


@hookimpl
def benchsuite_datasets() -> list[type[Dataset]]:
    """Data set classes of this package."""
    return [Digits]


@hookimpl
def benchsuite_recipes() -> list[type[Recipe]]:
    """Training recipes of this package."""
    return []
