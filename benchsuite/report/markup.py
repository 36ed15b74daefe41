"""HTML and SVG elements in which every string is escaped unless it is already `Markup`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

_VOID = {"meta", "input", "br", "hr", "link"}  #: HTML elements without a closing tag

Attributes = Mapping[str, "str | int | float | None"]


class Markup(str):
    """A string that is HTML already. Only `el` and `join` make one (and `raw`, for our own files)."""

    __slots__ = ()


def el(tag: str, attributes: Attributes | None = None, *children: object) -> Markup:
    """One element. Attributes that are None are left out, "" gives a bare attribute; children are escaped."""
    said = "".join(
        f" {name}" if value == "" else f' {name}="{html.escape(str(value), quote=True)}"'
        for name, value in (attributes or {}).items()
        if value is not None
    )
    if tag in _VOID:
        return Markup(f"<{tag}{said}>")
    return Markup(f"<{tag}{said}>{join(children)}</{tag}>")


def join(children: Iterable[object], separator: str = "") -> Markup:
    """Escaped concatenation; None is nothing."""
    pieces = (
        child if isinstance(child, Markup) else html.escape(str(child), quote=False)
        for child in children
        if child is not None
    )
    return Markup(separator.join(pieces))


def raw(text: str) -> Markup:
    """Trust `text`: for the style sheet and script of this package, never for anything from a document."""
    return Markup(text)
