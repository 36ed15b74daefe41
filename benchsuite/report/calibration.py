"""A calibration document as terminal tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def render(document: Mapping[str, Any], console: Console) -> None:
    """Print verdicts, findings and sampler biases."""
    from rich.table import Table

    def table(title: str, *columns: str) -> Table:
        built = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            built.add_column(column, justify="left" if number < 2 else "right")
        return built

    verdicts = table("Verdicts", "metric", "verdict", "bias beyond 2 SE", "tolerance", "unit", "coverage")
    for v in document["verdicts"]:
        word = "[green]pass[/]" if v["passed"] else "[red]fail[/]"
        verdicts.add_row(v["metric"], word, _n(v["bias"]), _n(v["tolerance"]), v["unit"], _percent(v["coverage"]))
    console.print(verdicts)
    for v in document["verdicts"]:
        if v["reason"]:
            console.print(f"  {v['metric']}: {v['reason']}", markup=False)
    findings = table(
        "Metrics on exact models",
        "metric", "case", "factor", "n", "bias", "SE", "at log-SNR", "coverage", "|Δ log-SNR₅₀|",
    )  # fmt: skip
    for f in document["findings"]:
        findings.add_row(
            f["metric"], f["case"], f["factor"], str(f["n"]), _n(f["bias"]), _n(f["standard_error"]),
            _n(f["at_log_snr"], 1), _percent(f["coverage"]), _n(f["onset_error"], 2),
        )  # fmt: skip
    console.print(findings)
    if document["samplers"]:
        samplers = table("Sampler bias of retention", "method", "case", "factor", "log-SNR per step", "bias", "SE")
        for s in document["samplers"]:
            samplers.add_row(
                s["method"],
                s["case"],
                s["factor"],
                f"{s['spacing']:g}",
                f"{s['bias']:+.4f}",
                _n(s["standard_error"]),
            )
        console.print(samplers)


def _n(value: float | None, digits: int = 4) -> str:
    return "—" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "—" if value is None else f"{value:.0%}"
