"""leaderboard.csv (one record per cell, full precision) and leaderboard.json (the whole document)."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from typing import Any

from benchsuite.boards import Board, Line
from benchsuite.json_reading import plain
from benchsuite.report import losses, words
from benchsuite.report.clocks import native_time_at
from benchsuite.results import SCALARS, Estimate, Row

_ENDS = ("", "_low", "_high")
COLUMNS = (
    *("dataset", "factor", "label", "model", "family", "space", "oracle", "split", "reference", "reference_split"),
    *("rank", "tied", "unranked"),
    *(f"oracle_gap{end}" for end in _ENDS),
    *("metric", "metric_version", "unit", "status", "stage", "reason"),
    *(f"{name}{end}" for name in SCALARS for end in _ENDS),
    *("log_snr_50_native_time", "other_thresholds", "notes", "flags", "calibration", "consistency"),
    *("n_items", "draws", "entropy", "readout_accuracy", "forward_passes"),
    *("paper", "metric_paper", "model_fingerprint", "dataset_fingerprint", "cell_id"),
)

#: A JSON array of numbers that json.dumps spread over lines. Strings cannot match: they hold no raw newline.
_NUMBER_ARRAY = re.compile(r"\[\n\s+((?:-?[\d.eE+-]+|null)(?:,\n\s+(?:-?[\d.eE+-]+|null))*)\n\s*\]")


def csv_text(boards: tuple[Board, ...]) -> str:
    """Tidy CSV with the header `COLUMNS`, one record per cell, "" for what does not exist.

    A text that a spreadsheet would run as a formula (it begins with = + - @) is prefixed with an apostrophe.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for board in boards:
        for line in board.lines:
            for row in line.rows.values():
                writer.writerow({name: _safe(value) for name, value in _record(board, line, row).items()})
    return out.getvalue()


def json_text(document: Mapping[str, Any]) -> str:
    """The results document as JSON, every number finite or null, curves on one line each."""
    text = json.dumps(plain(document), indent=1, ensure_ascii=False, allow_nan=False)
    return _NUMBER_ARRAY.sub(lambda array: " ".join(array[0].split()), text) + "\n"


def _record(board: Board, line: Line, row: Row) -> dict[str, Any]:
    onset = row.scalars["log_snr_50"]
    record: dict[str, Any] = {
        "dataset": board.dataset,
        "factor": board.factor,
        "rank": line.rank,
        "tied": str(line.tied).lower(),
        "unranked": line.unranked,
        "oracle": str(row.oracle).lower(),
        "log_snr_50_native_time": native_time_at(line, onset.value) if onset else None,
        "other_thresholds": losses.thresholds_text(line, row.metric),
        "notes": "; ".join(f"{name}: {note}" for name, note in row.scalar_notes.items()),
        "flags": "; ".join(row.flags),
        "calibration": words.verdict_words(board, row.metric),
        "consistency": "; ".join(f"{c.check}: {c.deviation.value:.4g} {c.unit}" for c in line.checks.values()),
        **_spread("oracle_gap", line.score),
    }
    for name in SCALARS:
        record |= _spread(name, row.scalars[name])
    for name in COLUMNS:
        if name not in record:
            record[name] = getattr(row, name)
    return record


def _spread(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    values = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return {f"{name}{end}": value for end, value in zip(_ENDS, values, strict=True)}


def _safe(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value
