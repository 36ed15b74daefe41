"""BibTeX for exactly what a results document used: the suite, its models and its metrics."""

from __future__ import annotations

import re

from benchsuite.results import Results

#: A new-style arXiv number needs no prefix; an old-style one (cond-mat/9901001) does.
_ARXIV = re.compile(r"(?<![\d.])(\d{4}\.\d{4,5})(?!\d)|arxiv\s*:\s*([a-z-]+(?:\.[a-z]{2})?/\d{7})", re.I)
_DOI = re.compile(r"\b(10\.\d{4,9}/[^\s,;]+)")
_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def works_cited(results: Results) -> list[tuple[str, list[str]]]:
    """(paper, what uses it) for every paper named by a row, sorted; e.g. ("arXiv:2006.11239", ["model ddpm"])."""
    users: dict[str, set[str]] = {}
    for row in results.rows:
        for paper, user in ((row.paper, f"model {row.model}"), (row.metric_paper, f"metric {row.metric}")):
            for work in works_in(paper):
                users.setdefault(work, set()).add(user)
    return [(work, sorted(users[work])) for work in sorted(users)]


def works_in(paper: str) -> list[str]:
    """Every identifier in a plugin's `paper`, as "arXiv:…" or "doi:…"; the text itself when it has none."""
    found = [f"doi:{number.rstrip('.')}" for number in _DOI.findall(paper)]
    found += [f"arXiv:{new or old}" for new, old in _ARXIV.findall(_DOI.sub("", paper))]
    return found or [paper.strip()] * bool(paper.strip())


def bibtex(results: Results) -> str:
    """One entry for the suite and one per work cited.

    A plugin names its paper by identifier only, so an entry has the identifier and what it was used for;
    reference managers fill in title and authors from it.
    """
    version = str(results.provenance.get("benchsuite", "unknown"))
    git = results.provenance.get("git")
    revision = git.get("revision") if isinstance(git, dict) else None
    suite = [("title", "benchsuite: when and how latent abstractions emerge in diffusion models")]
    suite += [("author", "{The benchsuite authors}"), ("version", version)]
    suite += [("note", f"revision {revision}")] if revision else []
    entries = [_entry("software", f"benchsuite-{version}", suite)]
    for work, users in works_cited(results):
        used = ("note", "used by " + ", ".join(users))
        if work.startswith("arXiv:"):
            number = work.removeprefix("arXiv:")
            entries.append(_entry("misc", work, [("eprint", number), ("archivePrefix", "arXiv"), used]))
        elif work.startswith("doi:"):
            entries.append(_entry("misc", work, [("doi", work.removeprefix("doi:")), used]))
        else:
            entries.append(_entry("misc", work, [("howpublished", work), used]))
    return "\n\n".join(entries) + "\n"


def _entry(kind: str, key: str, fields: list[tuple[str, str]]) -> str:
    key = re.sub(r"[^A-Za-z0-9:.-]+", "-", key).strip("-")
    lines = [f"  {name} = {{{_escape(value)}}}," for name, value in fields]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


def _escape(value: str) -> str:
    if value.startswith("{") and value.endswith("}"):  # a corporate author, kept in one piece
        return "{" + _escape(value[1:-1]) + "}"
    return "".join(_SPECIAL.get(character, character) for character in " ".join(value.split()))
