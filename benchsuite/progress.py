"""Progress for long work: bars with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from benchsuite.runner import Reporter

if TYPE_CHECKING:
    from benchsuite.plan import Unit
    from benchsuite.runner import Outcome

T = TypeVar("T")

_STYLE = {"ok": "green", "not_applicable": "dim", "failed": "red", "oom": "red", "not_installed": "yellow"}


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: RichTask) -> Text:
        """``1,234 items/s``."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields.get('what', 'items')}/s", style="cyan")


def bars(console: Console) -> Progress:
    """Progress bars in the house style."""
    return Progress(
        TextColumn("{task.description}", markup=False),  # "oracle [latent model]" has brackets
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class ConsoleReporter(Reporter):
    """Shows each unit's protocols as bars, and a line when it is done."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console, self.progress = console, progress
        self._unit = ""

    def start(self, unit: Unit, dataset: str) -> None:
        """Name the unit on the bars that follow."""
        self._unit = f"{unit.label} on {dataset}"
        if unit.oracle and unit.dataset:
            self._unit += " (population)" if unit.split == "train" else " (the models' images)"

    def protocol(self, name: str, passes: int, stored: bool) -> Callable[[int], None]:
        """A bar that counts forward passes."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        if stored:
            return lambda rows: None
        task = self.progress.add_task(f"{self._unit}: {name}", total=passes, what="passes")
        return lambda rows: self.progress.advance(task, rows)

    def long(self, name: str, passes: int, seconds: float, block: int) -> None:
        """What is ahead, before it begins."""
        cost = f"{passes:,} forward passes, about {seconds / 3600:.1f} hours at {passes / seconds:,.3g} a second"
        kept = f": U-turns of {block} items at a time are kept" if name == "u_turn" else ""
        text = f"{self._unit}: {name} is {cost}. Stop and run the same command again at any time{kept}"
        self.console.print(Text(text, style="yellow"))

    def finish(self, outcome: Outcome) -> None:
        """One line per unit, and one per cell that has no value."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        ok = len(outcome.curves)
        self.console.print(Text(f"{self._unit}: {ok} metrics, {sum(outcome.passes.values()):,} forward passes"))
        for reason in dict.fromkeys((f.status, f"{f.stage}: {f.reason}") for f in outcome.faults.values()):
            self.console.print(Text(f"  {reason[0]} at {reason[1]}", style=_STYLE.get(reason[0], "red")))


def tracker(console: Console, progress: Progress) -> Callable[..., Iterator[T]]:
    """`track(iterable, description, total)` for recipes."""

    def track(iterable: Iterable[T], description: str = "", total: int | None = None) -> Iterator[T]:
        task = progress.add_task(description, total=total, what="steps")
        for item in iterable:
            yield item
            progress.advance(task)
        progress.remove_task(task)

    return track
