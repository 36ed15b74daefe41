"""Discovery survives every kind of bad plugin, says whose it is and why, and imports nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
from toys import write_distribution

from benchsuite import UsageError
from benchsuite.discovery import Catalog, discover

ROOT = Path(__file__).parent.parent

GOOD = """
from benchsuite import Metric, hookimpl

class Good(Metric):
    '''Fine.'''
    name, unit, bounds, needs = "{name}", "nats", (0.0, 1.0), ()
    def compute(self, records):
        return []

@hookimpl
def benchsuite_metrics():
    return [Good]
"""

BAD = {
    "missing_import": (
        "import a_module_that_is_not_there",
        "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
    ),
    "exits": ("import sys\nsys.exit('no GPU, no fun')", "SystemExit: no GPU, no fun"),
    "raises": ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
    "syntax": ("def broken(:", "SyntaxError"),
    "misspelt": (
        "from benchsuite import hookimpl\n@hookimpl\ndef benchsuite_modles():\n    return []",
        "unknown hook 'benchsuite_modles'",
    ),
    "arguments": (
        "from benchsuite import hookimpl\n@hookimpl\ndef benchsuite_models(config):\n    return []",
        "Argument(s) {'config'}",
    ),
    "unmarked": ("def benchsuite_models():\n    return []", "implements no benchsuite hook"),
    "forgot_return": (
        "from benchsuite import hookimpl\n@hookimpl\ndef benchsuite_models():\n    pass",
        "benchsuite_models: TypeError: 'NoneType' object is not iterable",
    ),
    "not_a_list": (
        "from benchsuite import hookimpl, Metric\n@hookimpl\ndef benchsuite_metrics():\n    return Metric",
        "benchsuite_metrics: TypeError: 'ABCMeta' object is not iterable",
    ),
    "not_a_subclass": (
        "from benchsuite import hookimpl\nclass Odd: name = 'odd'\n"
        "@hookimpl\ndef benchsuite_metrics():\n    return [Odd]",
        "offers <class 'not_a_subclass.Odd'> among its metrics, which is not a subclass of Metric",
    ),
    "instance": (
        GOOD.format(name="inst").replace("return [Good]", "return [Good()]"),
        "among its metrics, which is not a subclass of Metric",
    ),
    "abstract": (
        GOOD.format(name="abstract").replace("def compute", "def calculate"),
        "metric 'abstract' lacks compute",
    ),
    "nameless": (GOOD.format(name=""), "nameless.Good has no name"),
    "wrong_kind": (
        GOOD.format(name="wrong").replace("benchsuite_metrics", "benchsuite_models"),
        "among its models, which is not a subclass of DiffusionModel",
    ),
}


def point(name: str, value: str, dist: str | None = "somebody") -> EntryPoint:
    """An entry point as `importlib.metadata` makes it, of a distribution that need not be installed."""
    made = EntryPoint(name=name, value=value, group="benchsuite")
    if dist is not None:
        vars(made)["dist"] = SimpleNamespace(name=dist, version="2.0")
    return made


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on sys.path; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_plugin_is_reported_and_the_rest_survives(modules: Path, kind: str) -> None:
    text, reason = BAD[kind]
    (modules / f"{kind}.py").write_text(text)
    (modules / "fine.py").write_text(GOOD.format(name="fine"))
    found = discover([point("aaa", kind), point("zzz", "fine", "other")])
    assert found.metrics.keys() == {"fine"}
    assert [*found.models, *found.datasets, *found.recipes] == []
    (failure,) = found.failures
    assert failure.plugin == "aaa (somebody 2.0)"
    assert reason in failure.reason
    assert "\n" not in failure.reason


def test_all_bad_plugins_at_once(modules: Path) -> None:
    for kind, (text, _) in BAD.items():
        (modules / f"{kind}.py").write_text(text)
    (modules / "fine.py").write_text(GOOD.format(name="fine"))
    points = [point(kind, kind) for kind in BAD]
    points += [point("typo", "fine.nothing"), point("nonsense", "not a reference"), point("fine", "fine")]
    found = discover(points)
    assert found.metrics.keys() == {"fine"}
    assert len(found.failures) == len(points) - 1
    assert {failure.plugin for failure in found.failures} == {f"{p.name} (somebody 2.0)" for p in points[:-1]}


def test_half_a_plugin_is_kept(modules: Path) -> None:
    """One hook raises, one class is bad: the other hook and the other class are there."""
    (modules / "half.py").write_text(
        GOOD.format(name="kept").replace("return [Good]", "return [int, Good]")
        + "\n@hookimpl\ndef benchsuite_models():\n    import another_missing_module\n"
    )
    found = discover([point("half", "half")])
    assert found.metrics.keys() == {"kept"}
    assert [failure.reason.partition(":")[0] for failure in found.failures] == [
        "benchsuite_models",
        "offers <class 'int'> among its metrics, which is not a subclass of Metric",
    ]


def test_a_taken_name_is_refused_and_both_are_named(modules: Path) -> None:
    for name in ("first", "second"):
        (modules / f"{name}.py").write_text(GOOD.format(name="same"))
    found = discover([point("b", "second", "late"), point("a", "first", "early")])
    assert found.metrics["same"].__module__ == "first"
    assert found.origins["metrics", "same"] == "a (early 2.0)"
    (failure,) = found.failures
    assert failure.plugin == "b (late 2.0)"
    assert failure.reason == (
        "metric 'same' of second is already taken by first from a (early 2.0); the first one is kept"
    )


def test_nobody_takes_a_first_party_name(modules: Path, first_party: Catalog) -> None:
    """Not even with an entry point that sorts first."""
    (modules / "taker.py").write_text(GOOD.format(name="mutual-information"))
    ours = [p for p in entry_points(group="benchsuite") if p.dist is not None and p.dist.name == "benchsuite"]
    found = discover([point("AAA", "taker"), *ours])
    assert found.metrics == first_party.metrics
    assert [failure.plugin for failure in found.failures] == ["AAA (somebody 2.0)"]


def test_one_entry_point_name_in_two_distributions(modules: Path) -> None:
    """Stock pluggy drops the second without a word."""
    for name in ("one", "two"):
        (modules / f"{name}.py").write_text(GOOD.format(name=name))
    found = discover([point("plugin", "one", "dist-a"), point("plugin", "two", "dist-b")])
    assert found.metrics.keys() == {"one", "two"}
    assert found.failures == []
    assert set(found.origins.values()) == {"plugin (dist-a 2.0)", "plugin (dist-b 2.0)"}


def test_an_entry_point_without_distribution(modules: Path) -> None:
    (modules / "fine.py").write_text(GOOD.format(name="fine"))
    found = discover([point("p", "fine", None), point("q", "not_there_at_all", None)])
    assert found.origins["metrics", "fine"] == "p (unknown)"
    assert [failure.plugin for failure in found.failures] == ["q (unknown)"]


def test_interrupting_is_not_a_plugins_fault(modules: Path) -> None:
    (modules / "impatient.py").write_text("raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        discover([point("p", "impatient")])


def test_installed_distributions(modules: Path) -> None:
    """Real dist-info directories: a good one, a bad one that reuses its entry-point name, a malformed one."""
    write_distribution(
        modules, "suite-good", {"plugin": "suite_good"}, {"suite_good": GOOD.format(name="good-one")}
    )
    write_distribution(modules, "suite-bad", {"plugin": "suite_bad"}, {"suite_bad": "import nowhere_to_be_found"})
    write_distribution(modules, "suite-worse", "[benchsuite]\nno equals sign here\n", {})
    write_distribution(modules, "unrelated", "[console_scripts]\nalso malformed\n", {})
    names = {"benchsuite", "suite-good", "suite-bad"}
    found = discover(keep=lambda p: p.dist is not None and p.dist.name in names)
    assert found.origins["metrics", "good-one"] == "plugin (suite-good 1.0)"
    assert {"mutual-information", "class-retention", "linear-probe"} < found.metrics.keys()
    reported = {failure.plugin: failure.reason for failure in found.failures}
    assert reported["plugin (suite-bad 1.0)"] == "ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    assert "entry points of suite-worse 1.0" in reported
    assert not any("unrelated" in plugin for plugin in reported)


def test_of_two_copies_of_a_distribution_the_importable_one_counts(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_distribution(modules, "twice", {"new": "twice_new"}, {"twice_new": GOOD.format(name="new")}, "2.0")
    older = modules / "older"
    older.mkdir()
    write_distribution(older, "twice", {"old": "twice_old"}, {"twice_old": GOOD.format(name="old")}, "1.0")
    monkeypatch.setattr(sys, "path", [*sys.path, str(older)])
    found = discover(keep=lambda p: p.dist is not None and p.dist.name == "twice")
    assert found.metrics.keys() == {"new"}


def test_first_party_plugins_are_sound(first_party: Catalog) -> None:
    assert first_party.failures == []
    assert {"empirical-bayes", "exact-gaussian", "exact-mixture"} <= first_party.models.keys()
    assert {"mutual-information", "class-retention", "linear-probe", "fork-entropy"} <= first_party.metrics.keys()
    assert {"digits", "mnist", "fashion-mnist"} <= first_party.datasets.keys()


def test_unknown_names_get_near_matches(first_party: Catalog) -> None:
    with pytest.raises(UsageError, match=r"^unknown model 'exact-mixtur'; did you mean exact-mixture"):
        first_party.get("models", "exact-mixtur")
    with pytest.raises(UsageError, match=r"^unknown data set 'digit'; did you mean digits"):
        first_party.get("datasets", "digit")
    with pytest.raises(UsageError, match=r"^unknown metric 'q'; known: .*class-retention, .*fork-entropy"):
        first_party.get("metrics", "q")


def test_entry_points_are_those_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["benchsuite"]
    installed = {
        p.name: p.value
        for p in entry_points(group="benchsuite")
        if p.dist is not None and p.dist.name == "benchsuite"
    }
    assert installed == declared, "entry points changed in pyproject.toml: run `pip install -e .` again"


# --------------------------------------------------------------------------------------- light imports

HEAVY = {"torch", "diffusers", "sklearn", "scipy", "timm", "torchvision", "transformers", "safetensors", "PIL"}
#: the command line with nothing but first-party plugins: others are not ours to judge
COMMAND = """
import sys
from benchsuite import cli, discovery
ours = [d for d in discovery.distributions() if d.name == "benchsuite"]
discovery.distributions = lambda: ours
sys.argv = ["benchsuite", *{arguments!r}]
cli.main()
"""


def imported(code: str) -> set[str]:
    """Top-level modules that are imported when `code` runs in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["info", "mutual-information"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    found = imported(COMMAND.format(arguments=arguments))
    assert {"benchsuite", "typer"} <= found
    assert not found & HEAVY


def test_that_check_can_fail() -> None:
    assert imported("import numpy.linalg\nif True:\n    from safetensors import safe_open") & HEAVY == {
        "safetensors"
    }


def test_public_names_need_nothing_heavy_either() -> None:
    assert not imported("import benchsuite; from benchsuite import DiffusionModel, Metric, Dataset") & HEAVY
