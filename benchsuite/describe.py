"""`benchsuite info`: what one plugin or suite is, in words."""

from __future__ import annotations

import inspect
from typing import Any

from benchsuite import specs
from benchsuite.discovery import Catalog
from benchsuite.errors import unknown
from benchsuite.suite_files import load_suite, suite_names

_SHOWN = {
    "models": ("family", "paper", "version", "space", "exact", "oracle", "own_data"),
    "metrics": ("unit", "bounds", "paper", "version", "tolerance", "needs"),
    "datasets": ("paper", "version", "enumerated"),
    "recipes": ("summary",),
}


def describe(name: str, catalog: Catalog) -> str:
    """Text about whatever is called `name`.

    Raises:
        UsageError: nothing is; lists near matches.
    """
    spec_name = specs.split_spec(name)[0]
    parts = [
        _plugin(kind, found[spec_name], catalog)
        for kind in _SHOWN
        if spec_name in (found := getattr(catalog, kind))
    ]
    if name in suite_names() or name.endswith(".toml"):
        parts.append(_suite(name))
    if not parts:
        known = [n for kind in _SHOWN for n in getattr(catalog, kind)] + suite_names()
        raise unknown("name", name, known)
    return "\n\n".join(parts)


def _plugin(kind: str, cls: type[Any], catalog: Catalog) -> str:
    lines = [f"{cls.name}  ({kind[:-1]} from {catalog.origins[kind, cls.name]})", ""]
    lines += [inspect.cleandoc(cls.__doc__ or "(no description)"), ""]
    lines += [f"{key}: {value}" for key in _SHOWN[kind] if (value := getattr(cls, key, "")) not in ("", False)]
    options = specs.scalar_options(cls)
    if options:
        lines += ["", f"options ({cls.name}:key=value,…; a bare value sets the first):"]
        lines += [f"  {key}: {text}" for key, text in options.items()]
    if presets := getattr(cls, "presets", None):
        lines += ["", f"presets ({cls.name}:NAME; downloaded once, when named):"]
        lines += [f"  {key}: {text}" for key, text in presets.items()]
    return "\n".join(lines)


def _suite(name: str) -> str:
    request = load_suite(name)
    lines = [f"{name}  (suite)", ""]
    for group in request.groups:
        lines += [f"{key}: {', '.join(getattr(group, key))}" for key in ("models", "datasets", "metrics")]
        lines += ["optional: left out where the data are not there"] if group.optional else []
        lines += [""] if request.cells else []
    return "\n".join([*lines, f"settings: {request.settings}"])
