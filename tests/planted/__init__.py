"""Plugins with one deliberate mistake each, and the named check that must catch it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchsuite.testing import CheckResult


@dataclass(frozen=True)
class Bug:
    """A mistake, how to build it, which check names it, and which others notice it too."""

    build: Callable[[], Any]
    caught_by: str
    also: tuple[str, ...] = ()


def failed(results: Sequence[CheckResult]) -> set[str]:
    """Names of the checks that are not ok."""
    return {result.name for result in results if not result.ok}
