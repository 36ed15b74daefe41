"""The store: nothing half-written, nothing pickled, damage is a miss, and keys see every ingredient."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchsuite.contracts import Curve, Record
from benchsuite.store import Store, key_of

RECORD = Record(
    "u_turn",
    {
        "log_snr": np.linspace(-4, 4, 5),
        "items": np.array(["test/0", "test/ä1"]),
        "judged/class": np.random.default_rng(0).random((2, 5, 3)).astype(np.float32),
        "labels/class": np.array([0, 2]),
    },
    {"steps": 9, "factors": {"class": 3}, "exact": True, "seconds": 0.25, "nothing": None},
)
ORIGIN = {"op": "u_turn", "seed": 0}
CURVES = [
    Curve(
        "class",
        np.linspace(-4, 4, 5),
        np.random.default_rng(1).random((3, 5)),
        ("a", "b", "b"),
        "nats",
        floor=0.1,
        ceiling=2.3,
        variant="plug-in",
        tap="mid",
        flags=("exceeds H by 0.30 nats",),
        extra={"form": "plug-in", "taps": ["mid", "down"]},
    ),
    Curve("garment", np.linspace(-4, 4, 5), np.zeros((1, 5), np.float32), ("a",), "probability"),
]


def test_record_round_trip(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of(ORIGIN)
    assert store.record(key) is None
    store.put_record(key, RECORD, ORIGIN)
    found = Store(tmp_path).record(key)
    assert found is not None
    assert (found.protocol, found.meta) == (RECORD.protocol, RECORD.meta)
    assert found.arrays.keys() == RECORD.arrays.keys()
    for name, array in RECORD.arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


def test_curves_round_trip(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of(ORIGIN)
    store.put_curves(key, CURVES, ORIGIN)
    found = store.curves(key)
    assert found is not None
    for mine, theirs in zip(found, CURVES, strict=True):
        for name in ("factor", "items", "unit", "floor", "ceiling", "variant", "tap", "flags", "extra"):
            assert getattr(mine, name) == getattr(theirs, name)
        for name in ("log_snr", "per_item"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
            assert getattr(mine, name).dtype == getattr(theirs, name).dtype
    store.put_curves(key_of({}), [], {})
    assert store.curves(key_of({})) == []


def test_names_keep_their_order(tmp_path: Path) -> None:
    """Levels of a hierarchy run from the root to the leaves, columns as a metric states them."""
    store, names = Store(tmp_path), ("class", "level-1", "level-0")
    made = Record("channels", {"kept": np.zeros(1)}, {"factors": dict.fromkeys(names, 2)})
    store.put_record("k" * 32, made, {})
    read = store.record("k" * 32)
    assert read is not None
    assert tuple(read.meta["factors"]) == names
    extra = {"columns": dict.fromkeys(names, 1.0)}
    store.put_curves("c" * 32, [Curve("", np.zeros(1), np.zeros((1, 1)), ("a",), "nats", extra=extra)], {})
    (curve,) = store.curves("c" * 32) or []
    assert tuple(curve.extra["columns"]) == names


def test_an_unknown_array_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"u_turn record has no 'gap/class'; it has \['items', 'judged/class'"):
        RECORD["gap/class"]


def test_no_pickle(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of(ORIGIN)
    with pytest.raises(TypeError, match="'things' holds Python objects"):  # refused when it is written …
        store.put_record(key, Record("x", {"things": np.array([{}, []], dtype=object)}), {})
    assert list(tmp_path.rglob("*.npz")) == []
    store.put_record(key, RECORD, ORIGIN)
    path = next(tmp_path.rglob("*.npz"))
    np.savez(path, __meta__=np.array([{"protocol": "u_turn", "meta": {}}], dtype=object), allow_pickle=True)
    assert store.record(key) is None  # … and never executed when it is read


def damaged(path: Path) -> list[bytes]:
    """The file with a bit flipped at many places, cut short, emptied, and replaced."""
    whole = path.read_bytes()
    flipped = []
    for position in range(0, len(whole), max(1, len(whole) // 400)):
        copy = bytearray(whole)
        copy[position] ^= 0x55
        flipped.append(bytes(copy))
    return [*flipped, whole[: len(whole) // 2], b"", b"not a zip", whole + b"trailing"]


def test_damage_is_a_miss_and_is_repaired(tmp_path: Path) -> None:
    """Either the file is recognised as damaged, or what it gives is unharmed; nothing in between, and no crash."""
    store, key = Store(tmp_path), key_of(ORIGIN)
    store.put_record(key, RECORD, ORIGIN)
    path = next(tmp_path.rglob("*.npz"))
    misses = 0
    for content in damaged(path):
        path.write_bytes(content)
        found = store.record(key)
        misses += found is None
        if found is not None:
            assert found.meta == RECORD.meta
            assert all(np.array_equal(found[name], array) for name, array in RECORD.arrays.items())
    assert misses > 200
    store.put_record(key, RECORD, ORIGIN)
    assert store.record(key) is not None


def test_a_file_without_its_description_is_a_miss(tmp_path: Path) -> None:
    store, key = Store(tmp_path), key_of(ORIGIN)
    store.put_record(key, RECORD, ORIGIN)
    np.savez(next(tmp_path.rglob("*.npz")), log_snr=np.zeros(3))
    assert store.record(key) is None
    assert store.curves(key) is None


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_write_that_is_cut_short_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    store, key = Store(tmp_path), key_of(ORIGIN)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            store.put_record(key, RECORD, ORIGIN)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.record(key) is None
    # and an older value survives
    store.put_record(key, RECORD, ORIGIN)
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(type(error)):
            store.put_record(key, Record("u_turn", {}, {}), ORIGIN)
    found = store.record(key)
    assert found is not None
    assert found.meta == RECORD.meta


def test_values_are_explained_beside_themselves(tmp_path: Path) -> None:
    """A person can see what a file was made of, with nothing but a zip tool and numpy."""
    Store(tmp_path).put_record(key_of(ORIGIN), RECORD, {"op": "u_turn", "note": "unmistakable"})
    path = next(tmp_path.rglob("*.npz"))
    assert path.stem == key_of(ORIGIN)
    assert zipfile.ZipFile(path).testzip() is None
    with np.load(path, allow_pickle=False) as file:
        assert "unmistakable" in str(file["__meta__"])


def test_only_what_shrinks_is_deflated(tmp_path: Path) -> None:
    """Activations are noise, and an attempt to deflate them took ten times as long as writing them."""
    noise = np.random.default_rng(2).standard_normal((3, 40_000)).astype(np.float32)
    votes = np.eye(1000, dtype=np.float32)[np.arange(100) % 7]
    arrays = {"noise": noise, "votes": votes, "turned": noise.T, "none": np.zeros((0, 3)), "one": np.array(2.5)}
    Store(tmp_path).put_record("00", Record("noise_sweep", arrays, {}), ORIGIN)
    found = Store(tmp_path).record("00")
    assert found is not None
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with zipfile.ZipFile(next(tmp_path.rglob("*.npz"))) as file:
        kinds = {entry.filename: entry.compress_type for entry in file.infolist()}
        assert file.getinfo("votes.npy").compress_size < votes.nbytes / 50
    assert kinds["noise.npy"] == kinds["turned.npy"] == zipfile.ZIP_STORED
    assert kinds["votes.npy"] == kinds["__meta__.npy"] == zipfile.ZIP_DEFLATED


def test_keys() -> None:
    nested = {"a": {"x": 1, "y": [1, 2]}, "b": 0.5}
    assert key_of(nested) == key_of({"b": 0.5, "a": {"y": [1, 2], "x": 1}})
    others: list[dict[str, Any]] = [
        {"a": {"x": 1, "y": [2, 1]}, "b": 0.5},
        {"a": {"x": 1, "y": [1, 2]}, "b": 0.25},
        {"a": {"x": 1, "y": [1, 2]}, "b": "0.5"},
        {"a": {"x": 1, "y": [1, 2], "z": None}, "b": 0.5},
        {"a": {"x": True, "y": [1, 2]}, "b": 0.5},
    ]
    assert len({key_of(parts) for parts in [nested, *others]}) == len(others) + 1
    with pytest.raises(TypeError):  # what has no JSON form must not be hashed by its address
        key_of({"model": object()})
