"""One model and one metric. The entry point in pyproject.toml names this module; nothing else is needed."""

from benchsuite import hookimpl
from benchsuite_example.label_gain import LabelGain
from benchsuite_example.wiener import Wiener


@hookimpl
def benchsuite_models():
    return [Wiener]


@hookimpl
def benchsuite_metrics():
    return [LabelGain]
