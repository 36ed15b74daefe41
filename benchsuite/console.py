"""What the command line shows and checks around the work: consoles, bars, plans, output directories."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from benchsuite.errors import BenchsuiteError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.progress import Progress

    from benchsuite.discovery import Catalog
    from benchsuite.plan import Plan

EXIT_PARTIAL = 3


class Interrupted(BenchsuiteError):
    """Ctrl-C during long work; as a KeyboardInterrupt it would be typer's, which says nothing about resuming."""


def show_plan(console: Console, plan: Plan, device: str) -> None:
    """Print units and counted forward passes; exits with 3 if a unit cannot run."""
    from rich.table import Table
    from rich.text import Text

    from benchsuite.runner import Fault, count_passes

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "data set", "split", *plan.needs, "cells"):
        table.add_column(heading, justify="left" if heading in ("model", "data set", "split") else "right")
    total, broken = 0, []
    for unit, counted in count_passes(plan, device):
        # Text: the brackets of "oracle [latent model]" are not markup
        shown = [Text(unit.label), Text(unit.dataset or "own data"), Text(unit.split)]
        if isinstance(counted, Fault):
            broken.append((unit, counted))
            table.add_row(*shown, *("-" for _ in plan.needs), counted.status)
            continue
        total += sum(counted.values())
        table.add_row(*shown, *(f"{counted.get(n, 0):,}" for n in plan.needs), str(len(plan.metrics_of(unit))))
    console.print(table)
    for unit, fault in broken:
        say(console, f"{unit.label}: {fault.status} at {fault.stage}: {fault.reason}")
    spared = "; at most, as values that a label filter rules out take none" if "label_filter" in plan.needs else ""
    say(console, f"{total:,} forward passes in all{spared}")
    say(console, f"settings: {plan.settings}")
    if any(fault.status != "not_applicable" for _, fault in broken):
        raise typer.Exit(EXIT_PARTIAL)


def open_console(stderr: bool = False) -> Console:
    """A console on standard output, or on standard error when that is kept for JSON."""
    from rich.console import Console

    return Console(stderr=stderr)


def warn(console: Console, catalog: Catalog) -> None:
    """One line per plugin that could not be used."""
    for failure in catalog.failures:
        say(console, f"plugin failed: {failure.plugin}: {failure.reason}", "yellow")


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print text as it is: no markup, no colouring of numbers, no wrapping of paths and reasons."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def working(console: Console) -> Iterator[Progress]:
    """Progress bars around long work."""
    from benchsuite.progress import bars

    try:
        with bars(console) as progress:
            yield progress
    except KeyboardInterrupt:
        raise Interrupted("interrupted; run the same command again to go on from what is stored") from None


def require_writable(folder: Path) -> None:
    """Fail before the work, not after it."""
    import tempfile

    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose another --out") from None
