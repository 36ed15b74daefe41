"""Reading and making JSON documents: every complaint names the place and the value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchsuite.errors import UsageError


class JsonObject:
    """A JSON object that knows where it stands, so that each complaint names the place and the value."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be an object, found {brief(value)}")
        self.value, self.where = value, where

    def _bad(self, key: str, wanted: str) -> UsageError:
        found = brief(self.value[key]) if key in self.value else "nothing"
        return UsageError(f"{self.where}.{key} must be {wanted}, found {found}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; null or absent gives `default`, None = required."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._bad(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        """True or false, required."""
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self._bad(key, "true or false")
        return value

    def number(self, key: str) -> float | None:
        """A number; null or absent gives None."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._bad(key, "a number or null")
        return float(value)

    def count(self, key: str) -> int | None:
        """A whole number >= 0; null or absent gives None."""
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._bad(key, "a whole number >= 0 or null")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """An object; null or absent gives {}."""
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._bad(key, "an object")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; null or absent gives ()."""
        value = self.value.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._bad(key, "a list of strings")
        return tuple(value)

    def points(self, key: str, length: int | None = None) -> tuple[float, ...] | None:
        """A list of numbers, null => NaN; `length` is what it must have."""
        value = self.value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or any(
            isinstance(item, bool | str) or not isinstance(item, int | float | None) for item in value
        ):
            raise self._bad(key, "a list of numbers")
        if length is not None and len(value) != length:
            raise UsageError(f"{self.where}.{key} has {len(value)} entries, log_snr has {length}")
        return tuple(math.nan if item is None else float(item) for item in value)

    def items(self, key: str) -> list[JsonObject]:
        """A list of objects; null or absent gives []."""
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._bad(key, "a list")
        return [JsonObject(item, f"{self.where}.{key}[{index}]") for index, item in enumerate(value)]


def plain(value: Any) -> Any:
    """JSON-able copy of `value`: numpy becomes Python, tuples become lists, non-finite floats become None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a results document cannot hold {value!r} of type {type(value).__name__}")


def brief(value: Any) -> str:
    """`value` as JSON, cut to 60 characters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}…"
