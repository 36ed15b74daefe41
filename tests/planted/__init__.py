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
    marginal: tuple[str, ...] = ()  #: it lies near their limits: they may notice it or not

    @property
    def expected(self) -> set[str]:
        """Checks that must fail."""
        return {self.caught_by, *self.also}

    def noticed_by(self, results: Sequence[CheckResult]) -> set[str]:
        """Checks that do, the marginal ones left out."""
        return failed(results) - set(self.marginal)


def failed(results: Sequence[CheckResult]) -> set[str]:
    """Names of the checks that are not ok."""
    return {result.name for result in results if not result.ok}
