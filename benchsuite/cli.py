"""The command line: parse, call, print. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchsuite.allocator import keep_freed_memory
from benchsuite.console import (
    EXIT_PARTIAL,
    Interrupted,
    open_console,
    require_writable,
    say,
    show_plan,
    warn,
    working,
)
from benchsuite.errors import BenchsuiteError, UsageError

if TYPE_CHECKING:
    from benchsuite.request import Request

#: exit codes: 0 all cells ok or not applicable, 1 a crash of ours, 2 usage, 3 (EXIT_PARTIAL) some cells failed
EXIT_USAGE, EXIT_INTERRUPTED = 2, 130

app = typer.Typer(
    help="When and how latent abstractions emerge in diffusion models.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Names = Annotated[
    list[str] | None, typer.Option(help="Spec name[:value][,key=value…]; repeat or separate by spaces.")
]


def main() -> None:
    """Entry point: turns errors meant for users into one line and an exit code."""
    keep_freed_memory()
    try:
        app()
    except UsageError as error:
        _fail(str(error), EXIT_USAGE)
    except Interrupted as error:
        _fail(str(error), EXIT_INTERRUPTED)
    except BenchsuiteError as error:
        _fail(str(error), EXIT_PARTIAL)


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="Suite name or TOML file.")] = "digits",
    models: Names = None,
    datasets: Names = None,
    metrics: Names = None,
    out: Annotated[Path, typer.Option(help="Directory of the leaderboard and the store.")] = Path(
        "benchsuite-results"
    ),
    seed: Annotated[int | None, typer.Option(help="Base seed; default: the suite's.")] = None,
    device: Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, float16 or bfloat16 for the networks.")] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Evaluated items per split, at most.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as sweep.nodes=129; see --dry-run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print cells and counted forward passes; run nothing.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the results document to standard output.")] = False,
) -> None:
    """Run a suite and write leaderboard.{md,csv,json,html}; a repeated run continues from what is stored."""
    from benchsuite.discovery import discover
    from benchsuite.plan import make_plan

    catalog = discover()
    request = _request(suite, models, datasets, metrics, seed, dtype, limit, set_)
    plan = make_plan(request, catalog)

    from benchsuite.api import carry_out, resolve_device
    from benchsuite.leaderboard import render_terminal, write_board
    from benchsuite.progress import ConsoleReporter
    from benchsuite.store import Store

    console = open_console(stderr=json_)
    place = resolve_device(device)
    warn(console, catalog)
    if dry_run:
        show_plan(console, plan, place)
        return
    require_writable(out)
    with working(console) as progress:
        reporter = ConsoleReporter(console, progress)
        results, _ = carry_out(plan, catalog, place, Store(out / "store"), reporter, [out])
    results["provenance"]["suite"] = request.suite
    paths = write_board(results, out)
    if json_:
        import json

        print(json.dumps(results, indent=1, allow_nan=False))
    else:
        render_terminal(results, console)
        say(console, f"wrote {', '.join(str(path) for path in paths)}")
    if any(row["status"] not in ("ok", "not_applicable") for row in results["rows"]):
        raise typer.Exit(EXIT_PARTIAL)


@app.command("list")
def list_(
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """List models, metrics, data sets, recipes and suites, and plugins that failed."""
    from rich.table import Table
    from rich.text import Text

    from benchsuite.discovery import discover
    from benchsuite.suite_files import suite_names

    catalog = discover()
    kinds = {kind: getattr(catalog, kind) for kind in ("models", "metrics", "datasets", "recipes")}
    if json_:
        import json

        listing: dict[str, Any] = {kind: sorted(found) for kind, found in kinds.items()}
        listing |= {"suites": suite_names(), "failures": [vars(failure) for failure in catalog.failures]}
        print(json.dumps(listing, indent=1))
        return
    console = open_console()
    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "paper", "from"):
        table.add_column(heading)
    for kind, found in kinds.items():
        for name, cls in sorted(found.items()):
            cells = (kind[:-1], name, getattr(cls, "paper", ""), catalog.origins[kind, name])
            table.add_row(*map(Text, cells))
    for name in suite_names():
        table.add_row("suite", name, "", "benchsuite")
    console.print(table)
    warn(console, catalog)


@app.command()
def info(name: Annotated[str, typer.Argument(help="A model, metric, data set, recipe or suite.")]) -> None:
    """Describe one plugin or suite: what it is, its options, where it comes from."""
    from benchsuite.describe import describe
    from benchsuite.discovery import discover

    say(open_console(), describe(name, discover()))


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe name; see `benchsuite list`.")],
    out: Annotated[
        Path | None, typer.Option(help="Where weights go; default ./NAME. Resumes what is there.")
    ] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps instead of the recipe's.")] = None,
) -> None:
    """Train a reference model or a readout by a recipe that ships with a plugin."""
    from benchsuite import specs
    from benchsuite.discovery import discover

    catalog = discover()
    cls = catalog.get("recipes", specs.split_spec(recipe)[0])
    built = specs.build(cls, "recipe", recipe)

    from benchsuite.api import resolve_device
    from benchsuite.progress import tracker

    console = open_console()
    folder = out or Path(cls.name)
    require_writable(folder)

    def dataset(spec: str) -> Any:
        found = specs.build(catalog.get("datasets", specs.split_spec(spec)[0]), "data set", spec)
        found.load()
        return found

    with working(console) as progress:
        measured = built.train(
            folder,
            device=resolve_device(device),
            seed=seed,
            steps=steps,
            datasets=dataset,
            track=tracker(console, progress),
        )
    for key, value in measured.items():
        say(console, f"{key}: {value}")
    say(console, f"wrote {folder}")


@app.command()
def leaderboard(
    results: Annotated[Path, typer.Argument(help="A results directory or leaderboard.json.")],
    out: Annotated[
        Path | None, typer.Option(help="Write md, csv, json and html here; default: only print.")
    ] = None,
) -> None:
    """Show stored results, or write their tables and page anew."""
    from benchsuite.leaderboard import load_results, render_terminal, write_board

    console = open_console()
    document = load_results(results)
    if out is not None:
        require_writable(out)
        for path in write_board(document, out):
            say(console, f"wrote {path}")
    else:
        render_terminal(document, console)


@app.command()
def calibrate(
    metrics: Annotated[
        list[str] | None, typer.Argument(help="Metric specs; default: all that are installed.")
    ] = None,
    cases: Names = None,
    sizes: Annotated[str, typer.Option(help="Items:seeds, separated by spaces.")] = "250:4 1000:3",
    out: Annotated[
        Path | None, typer.Option(help="Directory that gets calibration.json; `run --out` reads it.")
    ] = None,
    samplers: Annotated[bool, typer.Option(help="Measure the bias of the reverse samplers too.")] = True,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 = one per core.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="Print the document to standard output.")] = False,
) -> None:
    """Hold metrics and samplers to models whose answers are known; exit 3 if a metric fails."""
    from benchsuite import specs
    from benchsuite.discovery import discover

    catalog = discover()
    names = metrics or sorted(catalog.metrics)
    built = [specs.build(catalog.get("metrics", specs.split_spec(s)[0]), "metric", s) for s in names]
    plan = _sizes(sizes)
    workers = workers or os.cpu_count() or 1

    from benchsuite import calibration, calibration_files
    from benchsuite.progress import tracker
    from benchsuite.report.calibration import render

    console = open_console(stderr=json_)
    if out is not None:
        require_writable(out)
    chosen = list(_words(cases)) or calibration.cases(catalog)
    with working(console) as progress:
        track = tracker(console, progress)
        findings = calibration.calibrate(catalog, built, chosen, plan, track, workers=workers)
        biases = calibration.sampler_biases(catalog, chosen, track, workers) if samplers else []
    judged = calibration.verdicts(findings, built)
    document = calibration_files.document(findings, judged, biases)
    if out is not None:
        calibration_files.write(out, document)
    if json_:
        import json

        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        render(document, console)
    if not all(verdict.passed for verdict in judged):
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Spec of a model, metric or data set, or a sampling method.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Data set that a model is bound to; default: digits, or none if it has its own."),
    ] = None,
    device: Device = "cpu",
    json_: Annotated[bool, typer.Option("--json", help="Print the results to standard output.")] = False,
) -> None:
    """Hold one plugin to its contract by named checks; exit 3 if one fails. From Python: benchsuite.testing."""
    from benchsuite.discovery import discover

    catalog = discover()
    console = open_console(stderr=json_)
    warn(console, catalog)

    from benchsuite.api import resolve_device
    from benchsuite.report.checks import render
    from benchsuite.testing.named import check_named

    results = check_named(name, catalog, dataset, resolve_device(device))
    if json_:
        import json

        print(json.dumps([result.plain() for result in results], indent=1))
    else:
        render([result.plain() for result in results], console)
    if not all(result.ok for result in results):
        raise typer.Exit(EXIT_PARTIAL)


@app.command()
def doctor() -> None:
    """Check the installation: versions, plugins, device, data; exit 3 if something is broken."""
    from benchsuite.doctor import examine

    console = open_console()
    healthy = True
    for finding in examine():
        healthy &= finding.ok
        say(console, f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.detail}")
    if not healthy:
        raise typer.Exit(EXIT_PARTIAL)


def _request(
    suite: str,
    models: list[str] | None,
    datasets: list[str] | None,
    metrics: list[str] | None,
    seed: int | None,
    dtype: str | None,
    limit: int | None,
    set_: list[str] | None,
) -> Request:
    """The suite with the command line's changes on top."""
    from benchsuite.request import settings_table
    from benchsuite.suite_files import load_suite

    request = load_suite(suite)
    changes: dict[str, Any] = settings_table(set_ or [])
    direct = {"seed": seed, "dtype": dtype, "items": limit, "oracle_items": limit}
    changes |= {key: value for key, value in direct.items() if value is not None}
    request = request.asking_for(_words(models), _words(datasets), _words(metrics))
    return request.with_settings(changes, "--set")


def _sizes(text: str) -> dict[int, int]:
    """``"250:4 1000:3"`` → {250: 4, 1000: 3}: items and seeds."""
    try:
        sizes = {int(n): int(seeds) for n, seeds in (word.split(":") for word in text.split())}
    except ValueError:
        sizes = {}
    if not sizes or min(sizes) < 10 or min(sizes.values()) < 2:
        raise UsageError(f"--sizes takes items:seeds with at least 10 items and 2 seeds, got {text!r}")
    return sizes


def _words(values: list[str] | None) -> tuple[str, ...]:
    return tuple(word for value in values or () for word in value.split())


def _fail(message: str, code: int) -> None:
    print(f"benchsuite: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
