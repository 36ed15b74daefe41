"""Suites: requests written down as TOML, those that ship and the user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchsuite.errors import UsageError, unknown
from benchsuite.request import Group, Request, Settings, read_settings

DEFAULT_SUITE = "digits"
_LISTS = ("models", "datasets", "metrics")


def suite_names() -> list[str]:
    """Names of the suites that ship with the engine."""
    names = (path.name for path in files("benchsuite.suites").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_suite(name: str) -> Request:
    """Read a suite by name, or from a TOML file.

    The file has ``models``, ``datasets`` and ``metrics``, every one of which meets every other; or tables
    ``[[cells]]`` with lists of their own, whose union is run, for models that belong on different data; tables in
    them, such as ``[cells.u_turn]``, change ``[settings]`` for their models; with ``optional = true`` data that
    are not there are no failure. A list may be left to the user, with an example of it in ``[examples]``.

    Raises:
        UsageError: no such suite or file, not TOML, or an unknown key.
    """
    path = Path(name)
    if name.endswith(".toml") or path.is_file():
        if not path.is_file():
            raise UsageError(f"no suite file {name}")
        text = path.read_text(encoding="utf-8")
    elif name in suite_names():
        text = (files("benchsuite.suites") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise unknown("suite", name, suite_names())
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"suite {name}: not TOML: {error}") from None
    known = {"summary", *_LISTS, "settings", "cells", "examples"}
    for key in table:
        if key not in known:
            raise unknown(f"key of suite {name}:", key, known)
    lists = _read_lists(table, f"suite {name}")
    settings = read_settings(Settings(), table.get("settings", {}), f"suite {name}: settings")
    cells = _read_cells(table.get("cells", []), lists, settings, name)
    examples = _read_examples(table.get("examples", {}), name)
    return Request(settings=settings, suite=name, cells=cells, examples=examples, **lists)


def _read_cells(
    tables: Any, lists: Mapping[str, tuple[str, ...]], settings: Settings, name: str
) -> tuple[Group, ...]:
    """The suite's ``[[cells]]``: groups that take what they leave out from the top of the file."""
    if not (isinstance(tables, list) and all(isinstance(table, Mapping) for table in tables)):
        raise UsageError(f"suite {name}: cells must be tables, [[cells]]; got {tables!r}")
    groups = []
    protocols = [f.name for f in fields(settings) if is_dataclass(getattr(settings, f.name))]
    for number, table in enumerate(tables, 1):
        where = f"suite {name}: cells {number}"
        for key in table:
            if key not in (*_LISTS, "optional", *protocols):
                raise unknown(f"key of {where}:", key, [*_LISTS, "optional", *protocols])
        own = _read_lists(table, where)
        changes = {key: value for key, value in table.items() if key in protocols}
        models, datasets, metrics = (own[key] or lists[key] for key in _LISTS)
        group_settings = read_settings(settings, changes, where) if changes else None
        optional = table.get("optional", False)
        if not isinstance(optional, bool):
            raise UsageError(f"{where}: optional must be true or false, got {optional!r}")
        groups.append(Group(models, datasets, metrics, group_settings, optional))
    return tuple(groups)


def _read_examples(table: Any, name: str) -> tuple[tuple[str, str], ...]:
    where = f"suite {name}: examples"
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table, got {table!r}")
    for key, value in table.items():
        if key not in _LISTS:
            raise unknown(f"key of {where}:", key, _LISTS)
        if not isinstance(value, str):
            raise UsageError(f"{where}.{key} must be a string, got {value!r}")
    return tuple(table.items())


def _read_lists(table: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    lists = {}
    for key in _LISTS:
        value = table.get(key, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f"{where}: {key} must be a list of strings, got {value!r}")
        lists[key] = tuple(value)
    return lists
