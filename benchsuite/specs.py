"""Command-line specs: ``name``, ``name:value``, ``name:key=value,…`` → a plugin object.

A bare value goes to the constructor's first parameter; keys are its parameter names. Only scalar parameters
(str, int, float, bool) can be set this way; everything else is for Python.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, TypeVar

from benchsuite.errors import BenchsuiteError, UsageError, unknown

T = TypeVar("T")

_OPTION = re.compile(r",(?=[A-Za-z_]\w*=)")
_SCALARS = {"str", "int", "float", "bool"}


def split_spec(spec: str) -> tuple[str, str]:
    """``name:rest`` → (name, rest); rest is empty if there is none."""
    name, _, rest = spec.partition(":")
    return name.strip(), rest


def build(cls: type[T], kind: str, spec: str) -> T:
    """Construct `cls` with the options written in `spec`.

    Raises:
        UsageError: an unknown option (with near matches), a value of the wrong type, or one that the
            constructor refuses.
    """
    name, rest = split_spec(spec)
    options = parse_options(cls, kind, name, rest)
    try:
        return cls(**options)
    except BenchsuiteError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{kind} {spec!r}: {error}") from error


def parse_options(cls: type[Any], kind: str, name: str, rest: str) -> dict[str, Any]:
    """The keyword arguments written in `rest`, converted to the types that the constructor states."""
    parameters = _parameters(cls)
    settable = {key: types for key, types in parameters.items() if types & _SCALARS}
    options: dict[str, Any] = {}
    for position, part in enumerate(_OPTION.split(rest) if rest else []):
        key, equals, text = part.partition("=")
        if not equals or not key.isidentifier():  # a bare value, such as a path
            if position > 0 or not settable:
                raise UsageError(f"{kind} {name!r} cannot read {part!r}: write options as key=value")
            key, text = next(iter(settable)), part
        if key not in settable:
            if key in parameters:
                raise UsageError(f"option {key!r} of {kind} {name!r} is not a scalar; set it from Python")
            raise unknown(f"option of {kind} {name!r}:", key, settable)
        if key in options:
            raise UsageError(f"option {key!r} of {kind} {name!r} is given twice")
        options[key] = _convert(text, settable[key], f"option {key!r} of {kind} {name!r}")
    return options


def scalar_options(cls: type[Any]) -> dict[str, str]:
    """{option: "type = default"} of the parameters that a spec can set, for `benchsuite info`."""
    shown = {}
    for key, parameter in inspect.signature(cls).parameters.items():
        types = _annotation(parameter) & _SCALARS
        if types:
            default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
            shown[key] = " | ".join(sorted(types)) + default
    return shown


def _parameters(cls: type[Any]) -> dict[str, set[str]]:
    parameters = inspect.signature(cls).parameters
    return {
        key: _annotation(p) for key, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }


def _annotation(parameter: inspect.Parameter) -> set[str]:
    """The names joined by | in an annotation, which may be a string (postponed evaluation)."""
    note = parameter.annotation
    text = note if isinstance(note, str) else getattr(note, "__name__", str(note))
    return {part.strip() for part in str(text).split("|")}


def _convert(text: str, types: set[str], what: str) -> Any:
    if text.lower() == "none" and "None" in types:
        return None
    if "bool" in types and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind, convert in (("int", int), ("float", float)):
        if kind in types:
            try:
                return convert(text)
            except ValueError:
                continue
    if "str" in types:
        return text
    raise UsageError(f"{what} must be {' or '.join(sorted(types - {'None'}))}, got {text!r}")
