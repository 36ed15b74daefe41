"""The leaderboard: read results, show them in the terminal, write them in every form into one directory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchsuite.boards import boards
from benchsuite.report.figure_files import figure_files
from benchsuite.report.html import html_text
from benchsuite.report.markdown import markdown_text
from benchsuite.report.tables import csv_text, json_text
from benchsuite.report.terminal import render_terminal as render_terminal
from benchsuite.results import FILE_NAME, parse_results
from benchsuite.results import load_results as load_results

#: Folder beside the tables with the figures as stand-alone files.
FIGURES = "figures"


def write_board(results: Mapping[str, Any], out_dir: str | Path) -> list[Path]:
    """Write leaderboard.md, .csv, .json, .html and figures/*.svg into `out_dir` and return their paths.

    Folders are made if absent. All files are made before the first is written, and each is written beside its
    place and moved there, so that a reader never sees half a file.

    Raises:
        UsageError: `results` is not a results document (see `benchsuite.results`).
        OSError: `out_dir` cannot be written to.
    """
    parsed = parse_results(results)
    texts = {
        "leaderboard.md": markdown_text(parsed),
        "leaderboard.csv": csv_text(boards(parsed)),
        FILE_NAME: json_text(results),
        "leaderboard.html": html_text(parsed),
    }
    texts |= {f"{FIGURES}/{name}": text for name, text in figure_files(parsed).items()}
    folder = Path(out_dir)
    for name in texts:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return [_replace(folder / name, text) for name, text in texts.items()]


def _replace(path: Path, text: str) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
