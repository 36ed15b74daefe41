"""Where calibrations are kept: beside a metric's code, or in the user's own results directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.contracts import Metric

SCHEMA_VERSION = 1
FILE_NAME = "calibration.json"


def document(findings: Sequence[Any], judged: Sequence[Any], samplers: Sequence[Any]) -> dict[str, Any]:
    """The calibration document: verdicts, findings and sampler biases as JSON-able records."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdicts": [_json(verdict) for verdict in judged],
        "findings": [_json(finding) for finding in findings],
        "samplers": [_json(bias) for bias in samplers],
    }


def write(folder: Path, calibration: dict[str, Any]) -> Path:
    """Write a calibration document into `folder`."""
    path = folder / FILE_NAME
    path.write_text(json.dumps(calibration, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def known_verdicts(metrics: Sequence[Metric], *folders: Path) -> dict[str, dict[str, Any]]:
    """{metric: verdict} for the metrics' present versions.

    Looked for in `folders` (the user's own calibrations come first) and beside each metric's code.
    """
    found: dict[str, dict[str, Any]] = {}
    for metric in metrics:
        for document in _documents(metric, folders):
            for verdict in document["verdicts"]:
                if (verdict["metric"], verdict["version"]) == (metric.name, metric.version):
                    found.setdefault(metric.name, verdict)
    return found


def known_sampler_bias(metrics: Sequence[Metric], method: str, spacing: float, *folders: Path) -> float | None:
    """Largest |bias| of retention that was measured for a sampler at a step size, or None."""
    found = [
        abs(entry["bias"])
        for metric in metrics
        for document in _documents(metric, folders)
        for entry in document["samplers"]
        if entry["method"] == method and np.isclose(entry["spacing"], spacing)
    ]
    return max(found, default=None)


def _documents(metric: Metric, folders: Sequence[Path]) -> list[dict[str, Any]]:
    documents = [_read(folder / FILE_NAME) for folder in folders]
    with suppress(ModuleNotFoundError, TypeError):  # a metric defined in a script has no package
        documents.append(_read(files(type(metric).__module__.partition(".")[0]) / FILE_NAME))
    return [document for document in documents if document]


def _read(path: Any) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, NotADirectoryError):
        return None
    return document if document.get("schema_version") == SCHEMA_VERSION else None


def _json(record: Any) -> dict[str, Any]:
    return {k: (v if not isinstance(v, float) or np.isfinite(v) else None) for k, v in asdict(record).items()}
