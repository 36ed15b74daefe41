"""leaderboard.html: one file that loads nothing, works without a script and reads in light, dark and print.

The content security policy allows the package's own style sheet and script by their hashes and nothing else,
so that even a string that escaped the escaping could not run or fetch anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files

from benchsuite.boards import Board, boards, cells_without_values, status_words
from benchsuite.report import losses, words
from benchsuite.report.citation import bibtex, works_cited
from benchsuite.report.clocks import clocks_of
from benchsuite.report.drawings import drawings
from benchsuite.report.html_figures import SeriesOf, how_figure, layers_figure, when_figure
from benchsuite.report.html_routes import data_section, section_title
from benchsuite.report.html_table import board_table, consistency_table, text_table
from benchsuite.report.markup import Markup, el, raw
from benchsuite.report.route_curves import data_sets
from benchsuite.report.series import assign_series
from benchsuite.results import Results

#: A box that scrolls sideways on narrow screens, also from the keyboard.
_SCROLL: dict[str, str] = {"class": "scroll", "tabindex": "0", "role": "region"}


def html_text(results: Results) -> str:
    """The page, escaped throughout; the same document gives the same bytes."""
    pivoted = boards(results)
    series = assign_series(pivoted)
    most_clocks = max((len(clocks_of(board)) for board in pivoted), default=0)
    style = _asset("page.css") + _toggles(len(series), most_clocks)
    script = _asset("page.js")
    sections = _sections(results, pivoted, series)
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    head = el(
        "head",
        None,
        el("meta", {"charset": "utf-8"}),
        el("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("title", None, "benchsuite leaderboard"),
        el("style", None, raw(style)),
    )
    body = el(
        "body",
        None,
        _header(results, sections),
        el(
            "main",
            None,
            *(section for _, _, section in sections),
            _missing(results),
            _legend(),
            _provenance(results),
            _citation(results),
        ),
        el("script", None, raw(script)),
    )
    return f"<!DOCTYPE html>\n{el('html', {'lang': 'en'}, head, body)}\n"


# ------------------------------------------------------------------------------------------ sections


def _sections(results: Results, pivoted: tuple[Board, ...], series: SeriesOf) -> list[tuple[str, str, Markup]]:
    """(id, title, section) of every board and of every data set: before its boards, after the only one."""
    found: list[tuple[str, str, Markup]] = []
    groups = {data.name: data for data in data_sets(pivoted)}
    beyond = {
        data.name: (ident, section_title(data), section)
        for index, data in enumerate(groups.values())
        if (section := data_section(results, data, ident := f"d{index}"))
    }
    for index, board in enumerate(pivoted):
        extra = beyond.get(board.dataset)
        single = board.dataset in groups and len(groups[board.dataset].factors) == 1
        found += [extra] if extra and not single else []
        found.append((f"b{index}", board.title, _board(board, index, series)))
        found += [extra] if extra and single else []
        if extra:
            del beyond[board.dataset]
    return found


def _header(results: Results, sections: list[tuple[str, str, Markup]]) -> Markup:
    facts = dict(words.provenance_items(results))
    said = [f"benchsuite {facts['benchsuite']} leaderboard"]
    said += [facts["started"][:10]] if "started" in facts else []
    links = [el("a", {"href": f"#{ident}"}, title) for ident, title, _ in sections]
    pages = (("legend", "How to read it"), ("provenance", "Provenance"), ("cite", "How to cite"))
    links += [el("a", {"href": f"#{ident}"}, name) for ident, name in pages]
    return el(
        "header",
        None,
        el("p", {"class": "kicker"}, " · ".join([*said, facts["cells"]])),
        el("h1", None, "When do diffusion models decide?"),
        el(
            "p",
            {"class": "lead"},
            "Where on the noise axis each abstraction becomes fixed, how sharply, and how far each model is "
            "from the ideal one on the same images.",
        ),
        el("nav", {"aria-label": "On this page"}, *links),
    )


def _board(board: Board, index: int, series: SeriesOf) -> Markup:
    ident = f"b{index}"
    facts = [
        el("div", None, el("dt", None, name), el("dd", None, value)) for name, value in words.board_facts(board)
    ]
    return el(
        "section",
        {"class": "board", "id": ident, "aria-labelledby": f"{ident}-h"},
        el("h2", {"id": f"{ident}-h"}, board.title),
        el("p", {"class": "headline"}, words.headline(board, "−")),
        el("dl", {"class": "facts"}, *facts) if facts else None,
        board_table(board, series, ident),
        when_figure(board, series, ident),
        *layers_figure(board, ident),
        how_figure(board, series, ident),
        drawings(board),
        *(text_table(board, table) for table in losses.tables(board)),
        consistency_table(board),
    )


def _missing(results: Results) -> Markup | None:
    groups = cells_without_values(results)
    if not groups:
        return None
    names = ("model", "status", "reason", "cells")
    body = [
        el(
            "tr",
            None,
            el("th", {"scope": "row"}, row.label),
            el("td", None, el("span", {"class": f"status {row.status}"}, status_words(row))),
            el("td", None, row.reason or "–", el("small", None, f"while in {row.stage}") if row.stage else None),
            el("td", None, el("ul", None, *(el("li", None, cell) for cell in cells))),
        )
        for row, cells in groups
    ]
    head = el("thead", None, el("tr", None, *(el("th", {"scope": "col"}, name) for name in names)))
    caption = el("caption", None, "Every planned cell ends as one row; these ended without a value.")
    table = el("table", {"class": "plain"}, caption, head, el("tbody", None, *body))
    return el(
        "section",
        {"id": "missing"},
        el("h2", None, "Cells without a value"),
        el("div", {**_SCROLL, "aria-label": "Cells without a value"}, table),
    )


def _legend() -> Markup:
    terms = [el("div", None, el("dt", None, term), el("dd", None, said)) for term, said in words.LEGEND]
    return el("section", {"id": "legend"}, el("h2", None, "How to read it"), el("dl", {"class": "legend"}, *terms))


def _provenance(results: Results) -> Markup:
    items = [
        el("div", None, el("dt", None, name), el("dd", None, value))
        for name, value in words.provenance_items(results)
    ]
    settings = json.dumps(results.settings, indent=2, ensure_ascii=False)
    more = el("details", None, el("summary", None, "Resolved settings"), el("pre", None, settings))
    return el(
        "section",
        {"id": "provenance"},
        el("h2", None, "Provenance"),
        el("dl", {"class": "provenance"}, *items),
        more if results.settings else None,
    )


def _citation(results: Results) -> Markup:
    cited = [el("li", None, f"{work}: {', '.join(users)}") for work, users in works_cited(results)]
    return el(
        "section",
        {"id": "cite"},
        el("h2", None, "How to cite"),
        el("p", None, "Cite the suite with its revision, and the work behind every row that you use."),
        el("ul", None, *cited) if cited else None,
        el("pre", {"class": "bibtex", "tabindex": "0", "aria-label": "BibTeX"}, bibtex(results)),
    )


# ------------------------------------------------------------------------------------------- helpers


def _toggles(series: int, clocks: int) -> str:
    """Rules that hide unchecked lines, dim the others while one is pointed at, and choose the upper axis."""
    rules = []
    for index in range(series):
        rules.append(f".board:has(.t-s{index}:not(:checked)) .panels .s{index}{{display:none}}")
        rules.append(f".how:has(.l-s{index}:hover) .panels .series:not(.s{index}){{opacity:.15}}")
    for index in range(1, clocks):
        rules.append(f".board:has(option.k{index}:checked) .clock.k0{{display:none}}")
        rules.append(f".board:has(option.k{index}:checked) .clock.k{index}{{display:inline}}")
    return "\n".join(["", *rules, ""])


def _asset(name: str) -> str:
    return files("benchsuite.report").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
