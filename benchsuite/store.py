"""Content-addressed store of records and curves: what a value depends on is its address.

A key is a hash of canonical JSON that names everything the value depends on, defaults resolved, and nothing
that it does not (batch size, output path, worker count). Values are ``.npz`` files without pickle, written to a
temporary file and renamed, so that a killed run never leaves half a value.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite.contracts import Curve, Record

#: part of every key; 1 did not keep the order of names in what describes a value, such as that of levels
KEY_SCHEME = 2
_META = "__meta__"
#: bytes of an array that are tried, and what must be left of them for all of it to be deflated
_SAMPLE, _PAYS = 2**16, 0.8


def key_of(parts: Mapping[str, Any]) -> str:
    """Hex key of JSON-able `parts`; the order of names does not matter."""
    text = json.dumps({"key_scheme": KEY_SCHEME, **parts}, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Store:
    """A directory of values by key."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def record(self, key: str) -> Record | None:
        """The record under `key`, or None."""
        found = self._read(key)
        if found is None:
            return None
        arrays, meta = found
        return Record(meta["protocol"], arrays, meta["meta"])

    def put_record(self, key: str, record: Record, origin: Mapping[str, Any]) -> None:
        """Store a record; `origin` is what the key was made of, kept for people to read."""
        self._write(key, record.arrays, {"protocol": record.protocol, "meta": record.meta, "key": origin})

    def curves(self, key: str) -> list[Curve] | None:
        """The curves under `key`, or None."""
        found = self._read(key)
        if found is None:
            return None
        arrays, meta = found
        return [
            Curve(
                **{
                    **facts,
                    "flags": tuple(facts["flags"]),
                    "log_snr": arrays[f"{i}/log_snr"],
                    "per_item": arrays[f"{i}/per_item"],
                    "items": tuple(arrays[f"{i}/items"].tolist()),
                }
            )
            for i, facts in enumerate(meta["curves"])
        ]

    def put_curves(self, key: str, curves: list[Curve], origin: Mapping[str, Any]) -> None:
        """Store a metric's curves."""
        arrays: dict[str, NDArray[Any]] = {}
        described = []
        for i, curve in enumerate(curves):
            facts = asdict(curve)
            arrays[f"{i}/log_snr"] = np.asarray(facts.pop("log_snr"))
            arrays[f"{i}/per_item"] = np.asarray(facts.pop("per_item"))
            arrays[f"{i}/items"] = np.array(facts.pop("items"))
            described.append(facts)
        self._write(key, arrays, {"curves": described, "key": origin})

    def discard(self, key: str) -> None:
        """Forget what is stored under `key`, if anything is."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.npz"

    def _read(self, key: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        try:
            # opened here: numpy leaks the handle of a damaged file that it opened itself
            with self._path(key).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return arrays, json.loads(str(arrays.pop(_META)))
        except Exception:
            # absent, or damaged: a flipped bit surfaces as BadZipFile, zlib.error, ValueError, KeyError,
            # NotImplementedError …; either way the value is computed and written again
            return None

    def _write(self, key: str, arrays: Mapping[str, NDArray[Any]], meta: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            if np.asarray(array).dtype.hasobject:
                raise TypeError(f"array {name!r} holds Python objects, which nothing but a pickle could keep")
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                values: dict[str, Any] = {**arrays, _META: np.array(json.dumps(meta))}
                _save(file, values)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def _save(file: IO[bytes], values: Mapping[str, Any]) -> None:
    """Write an .npz in which only what shrinks is deflated: votes and labels do, activations are noise."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in values.items():
            array = np.asarray(value)
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED if _shrinks(array) else zipfile.ZIP_STORED
            with archive.open(entry, "w", force_zip64=True) as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _shrinks(array: NDArray[Any]) -> bool:
    count = _SAMPLE // max(1, array.itemsize)
    middle = max(0, (array.size - count) // 2)
    sample = array.reshape(-1)[middle : middle + count].tobytes()
    return len(zlib.compress(sample, 1)) <= _PAYS * len(sample)
