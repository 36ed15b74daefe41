"""Errors that users meet. Each says what was wrong, with the value, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BenchsuiteError(Exception):
    """Base of every error raised on purpose; its message is one line written for the user."""


class UsageError(BenchsuiteError):
    """The request itself is wrong (unknown name, bad option). The command line exits with 2."""


class MissingDataError(BenchsuiteError):
    """Data that the user has to provide are absent; the message says where we looked and how to get them."""


class ModelLoadError(BenchsuiteError):
    """A checkpoint cannot be opened or is not what its name promises; names the file and the values."""


class NotApplicableError(BenchsuiteError):
    """The combination makes no sense (a reason, not a failure): the cell becomes `not_applicable`."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for an unknown `name` of a `kind` ("model", "option", …), with near matches."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(known) or 'none'}"
    return UsageError(f"unknown {kind} {name!r}{hint}")
