"""Does every option of a plugin do something? Options that are taken and ignored falsify what a row says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from benchsuite.errors import BenchsuiteError
from benchsuite.testing.results import Observation, Skip, findings

SCALARS = ("bool", "int", "float")


def every_option_acts(
    cls: type[Any],
    options: Mapping[str, Any],
    alternatives: Mapping[str, Any],
    outcome: Callable[[Any], object],
) -> Observation:
    """Change the options of `cls` one by one and compare `outcome` of what is built.

    Args:
        options: keyword arguments that the plugin was built with.
        alternatives: other values to try; numbers and flags are varied without being told how.
        outcome: of a freshly built plugin; a value that it refuses (BenchsuiteError) is not ignored.

    Raises:
        Skip: there is nothing to vary, or the class cannot be built from `options`.
    """
    parameters = inspect.signature(cls).parameters
    tried = {
        name: [alternatives[name]] if name in alternatives else others(options.get(name, p.default), p.annotation)
        for name, p in parameters.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    tried = {name: values for name, values in tried.items() if values}
    if not tried:
        raise Skip("no option whose value is a number or a flag; name others in `alternatives`")
    try:
        usual = outcome(cls(**options))
    except TypeError as error:
        raise Skip(f"cannot be built from the given options: {error}") from error
    ignored = []
    for name, values in tried.items():
        outcomes = [found for value in values if (found := _outcome(cls, {**options, name: value}, outcome))]
        if outcomes and all(found[0] == usual for found in outcomes):
            ignored.append(f"{name}={values[0]!r} changes nothing")
    return findings(ignored, f"a difference, or a refusal, for each of {', '.join(tried)}")


def others(value: Any, annotation: Any) -> list[Any]:
    """Values unlike `value` that a parameter of this annotation may take; none if it is no number or flag."""
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    kinds = {part.strip() for part in text.split("|")} & set(SCALARS)
    if isinstance(value, bool) or kinds == {"bool"}:
        return [not value]
    if "float" in kinds:
        return [1.5 * value, 0.5 * value] if isinstance(value, int | float) and value else [0.5, 2.5]
    if "int" in kinds:
        start = value if isinstance(value, int) else 1
        return [start + 1, start + 2, 2 * start + 3]
    return []


def _outcome(cls: type[Any], options: Mapping[str, Any], outcome: Callable[[Any], object]) -> tuple[object] | None:
    """What comes of these options, in a tuple; None if they are refused."""
    try:
        return (outcome(cls(**options)),)
    except (BenchsuiteError, ValueError):
        return None
