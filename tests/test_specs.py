"""Command-line specs: name, bare value, options, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from benchsuite.errors import BenchsuiteError, UsageError
from benchsuite.specs import build, parse_options, scalar_options, split_spec


class Plugin:
    """Every kind of parameter that a plugin may have."""

    def __init__(
        self,
        path: str,
        steps: int = 3,
        scale: float = 1.0,
        *,
        fast: bool = False,
        limit: int | None = None,
        mode: str | None = "plain",
        means: list[float] | None = None,
    ) -> None:
        if steps < 0:
            raise ValueError(f"steps must not be negative, got {steps}")
        if mode == "forbidden":
            raise UsageError("mode must not be forbidden")
        self.found = {"path": path, "steps": steps, "scale": scale, "fast": fast, "limit": limit, "mode": mode}
        self.means = means


def found(spec: str) -> dict[str, Any]:
    return build(Plugin, "model", spec).found


@pytest.mark.parametrize(
    ("spec", "parts"),
    [("ddpm", ("ddpm", "")), ("ddpm:a/b", ("ddpm", "a/b")), ("ddpm:C:/x", ("ddpm", "C:/x")), (" a :", ("a", ""))],
)
def test_split(spec: str, parts: tuple[str, str]) -> None:
    assert split_spec(spec) == parts


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("p:weights/run", {"path": "weights/run"}),
        ("p:path=weights/run,steps=5", {"path": "weights/run", "steps": 5}),
        ("p:x,scale=2", {"path": "x", "scale": 2.0}),
        ("p:x,scale=1e-3,fast=true", {"scale": 1e-3, "fast": True}),
        ("p:x,fast=False,limit=7", {"fast": False, "limit": 7}),
        ("p:x,limit=none,mode=None", {"limit": None, "mode": None}),
        ("p:a,b/c d,steps=1", {"path": "a,b/c d", "steps": 1}),  # commas and blanks of a path are kept
        ("p:path=run=3/model", {"path": "run=3/model"}),
        ("p:x,mode=a=b", {"mode": "a=b"}),
        ("p:x,mode=", {"mode": ""}),
    ],
)
def test_options(spec: str, expected: dict[str, Any]) -> None:
    values = found(spec)
    assert {key: values[key] for key in expected} == expected
    assert all(type(values[key]) is type(value) for key, value in expected.items())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("p:x,stepz=5", "unknown option of model 'p': 'stepz'; did you mean steps"),
        ("p:x,zzz=5", "unknown option .* known: fast, limit, mode, path, scale, steps"),
        ("p:run=3/model", "unknown option of model 'p': 'run'; known: fast"),  # write path=run=3/model
        ("p:x,steps=many", "option 'steps' of model 'p' must be int, got 'many'"),
        ("p:x,steps=1.5", "must be int, got '1.5'"),
        ("p:x,scale=big", "must be float, got 'big'"),
        ("p:x,fast=2", "must be bool, got '2'"),
        ("p:x,limit=few", "must be int, got 'few'"),
        ("p:x,steps=1,steps=2", "option 'steps' of model 'p' is given twice"),
        ("p:x,means=1", "option 'means' of model 'p' is not a scalar; set it from Python"),
        ("p:steps=1,7", "option 'steps' of model 'p' must be int, got '1,7'"),
        ("p", "model 'p': .*missing 1 required positional argument: 'path'"),
        ("p:x,steps=-1", "model 'p:x,steps=-1': steps must not be negative, got -1"),
        ("p:x,mode=forbidden", "^mode must not be forbidden$"),
    ],
)
def test_what_is_refused(spec: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        found(spec)
    assert "\n" not in str(caught.value)


def test_a_plugin_without_options_takes_none() -> None:
    class Bare:
        pass

    assert isinstance(build(Bare, "metric", "bare"), Bare)
    for rest in ("x", "x=1"):
        with pytest.raises(UsageError, match="metric 'bare'"):
            build(Bare, "metric", f"bare:{rest}")


def test_constructor_errors_of_ours_pass_unchanged() -> None:
    class Fails:
        def __init__(self) -> None:
            raise BenchsuiteError("exactly this")

    with pytest.raises(BenchsuiteError, match=r"^exactly this$"):
        build(Fails, "metric", "fails")


def test_annotations_that_are_evaluated_are_understood_too() -> None:
    """A plugin without `from __future__ import annotations` has real types for annotations."""

    class Evaluated:
        def __init__(self, n: int = 1, limit: int | None = None) -> None: ...

    Evaluated.__init__.__annotations__.update(n=int, limit=int | None)
    assert parse_options(Evaluated, "model", "e", "4,limit=2") == {"n": 4, "limit": 2}


def test_options_shown_to_people() -> None:
    assert scalar_options(Plugin) == {
        "path": "str",
        "steps": "int = 3",
        "scale": "float = 1.0",
        "fast": "bool = False",
        "limit": "int = None",
        "mode": "str = 'plain'",
    }
