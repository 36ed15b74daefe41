"""What a check is, what it leaves, and how a list of checks is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from benchsuite.errors import NotApplicableError, unknown

C = TypeVar("C")

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
#: failed as announced, and passed although a failure was announced
EXPECTED, UNEXPECTED = "failed as expected", "passed unexpectedly"


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one named check on one plugin."""

    name: str
    subject: str  #: what was checked
    promise: str  #: what holds for a healthy plugin
    status: str  #: "passed", "failed", "skipped", "failed as expected" or "passed unexpectedly"
    observed: str = ""
    expected: str = ""
    reason: str = ""  #: why it was skipped, or why a failure was announced

    @property
    def ok(self) -> bool:
        """Nothing is wrong that was not announced."""
        return self.status in (PASSED, SKIPPED, EXPECTED)

    def plain(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self) | {"ok": self.ok}

    def __str__(self) -> str:
        text = f"{self.subject}: {self.name} {self.status}"
        if self.status in (FAILED, EXPECTED):
            text += f": promised that {self.promise}; observed {self.observed}; expected {self.expected}"
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True)
class Observation:
    """What a check saw; numbers are rendered, because that is all that is done with them."""

    ok: bool
    observed: str
    expected: str


class Skip(Exception):
    """The check says nothing about this plugin, for the given reason."""


class Checks(Generic[C]):
    """Named checks of one kind of plugin, in order. Each takes a case and returns an `Observation`."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[str, Callable[[C], Observation]]] = {}

    def __or__(self, other: Checks[C]) -> Checks[C]:
        joined: Checks[C] = Checks()
        joined._checks = {**self._checks, **other._checks}
        return joined

    @property
    def promises(self) -> dict[str, str]:
        """{name: promise} of every check."""
        return {name: promise for name, (promise, _) in self._checks.items()}

    def add(self, name: str, promise: str) -> Callable[[Callable[[C], Observation]], Callable[[C], Observation]]:
        """Register the decorated function as the check `name`."""

        def register(function: Callable[[C], Observation]) -> Callable[[C], Observation]:
            assert name not in self._checks, f"two checks are called {name!r}"
            self._checks[name] = (promise, function)
            return function

        return register

    def run(
        self,
        subject: str,
        case: C,
        only: Iterable[str] | None,
        expected_failed: Mapping[str, str] | None,
    ) -> list[CheckResult]:
        """Run all checks, or those in `only`.

        Args:
            expected_failed: {check: reason} of failures that are announced; strict, so that one that passes is
                reported.

        Raises:
            UsageError: a name in `only` or `expected_failed` is no check.
        """
        announced = dict(expected_failed or {})
        chosen = list(self._checks) if only is None else list(only)
        for name in (*chosen, *announced):
            if name not in self._checks:
                raise unknown("check", name, self._checks)
        return [self._one(subject, name, case, announced.get(name)) for name in chosen]

    def _one(self, subject: str, name: str, case: C, announced: str | None) -> CheckResult:
        promise, function = self._checks[name]
        try:
            seen = function(case)
        except Skip as skip:
            return CheckResult(name, subject, promise, SKIPPED, reason=str(skip))
        except NotApplicableError as error:
            return CheckResult(name, subject, promise, SKIPPED, reason=f"not applicable: {error}")
        except (Exception, SystemExit) as error:  # whatever a plugin throws is its failure, not ours
            seen = Observation(False, said(error), "no error")
        status = PASSED if seen.ok else FAILED
        if announced is not None:
            status = UNEXPECTED if seen.ok else EXPECTED
        return CheckResult(name, subject, promise, status, seen.observed, seen.expected, announced or "")


def assert_passed(results: Sequence[CheckResult]) -> None:
    """Raise AssertionError listing every result that is not ok: a plugin's whole conformance test in one line."""
    wrong = [str(result) for result in results if not result.ok]
    if wrong:
        raise AssertionError("\n".join(wrong))


def said(error: BaseException) -> str:
    """``ValueError: what it said`` on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def at_most(what: str, value: float, limit: float) -> Observation:
    """`value` <= `limit`; NaN is not."""
    return Observation(value <= limit, f"{what} {value:.4g}", f"at most {limit:.4g}")


def worst(what: str, found: Iterable[tuple[str, float, float]]) -> Observation:
    """All of (where, value, limit) must have value <= limit; reports the one that is furthest off.

    Raises:
        Skip: nothing was compared.
    """
    entries = list(found)
    if not entries:
        raise Skip("nothing to compare")

    def excess(entry: tuple[str, float, float]) -> float:
        _, value, limit = entry
        return float("inf") if value != value else value - limit  # NaN comes first

    where, value, limit = max(entries, key=excess)
    return at_most(f"{what} {where}".strip(), value, limit)


def findings(wrong: Sequence[str], expected: str) -> Observation:
    """Facts that break the promise; none is good."""
    return Observation(not wrong, "; ".join(wrong) or "nothing wrong", expected)
