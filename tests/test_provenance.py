"""Where numbers come from: code identities that see what matters, the revision of the right checkout."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchsuite import Metric, provenance
from benchsuite.discovery import Catalog
from benchsuite.own_data import OwnData
from benchsuite.provenance import class_identity, device_name, engine_identity, git_revision

PLUGIN = """
from benchsuite import Metric
class Mine(Metric):
    '''A metric.'''
    name, unit, bounds, needs = "mine", "nats", (0.0, 1.0), ()
    def compute(self, records):
        return []
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Write files, forget every trace of their modules, and import one of them."""
    monkeypatch.syspath_prepend(tmp_path)
    names: set[str] = set()

    def forget() -> None:
        for name in [n for n in sys.modules if n.partition(".")[0] in names]:
            del sys.modules[name]
        provenance._module_hash.cache_clear()
        importlib.invalidate_caches()

    def loaded(name: str, text: str | None = None) -> ModuleType:
        names.add(name.partition(".")[0])
        forget()
        path = tmp_path / f"{name.replace('.', '/')}.py"
        if text is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return importlib.import_module(name)

    yield loaded
    forget()


def test_a_changed_plugin_is_another(load: Callable[..., ModuleType]) -> None:
    first = class_identity(load("prov_single", PLUGIN).Mine)
    assert first["class"] == "prov_single.Mine"
    assert first["version"] == "1"
    assert first == class_identity(load("prov_single").Mine)
    second = class_identity(load("prov_single", PLUGIN + "# changed\n").Mine)
    assert second["code"] != first["code"]


def test_everything_in_the_package_counts(load: Callable[..., ModuleType], tmp_path: Path) -> None:
    """A metric may call a helper beside it."""
    folder = tmp_path / "prov_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("x = 1\n")
    first = class_identity(load("prov_package.metric", PLUGIN).Mine)
    (folder / "helper.py").write_text("x = 2\n")
    assert class_identity(load("prov_package.metric").Mine)["code"] != first["code"]


def test_a_namespace_package_is_seen_too(load: Callable[..., ModuleType]) -> None:
    """Without an __init__.py there is no file for the package: the module itself is hashed."""
    first = class_identity(load("prov_space.metric", PLUGIN).Mine)
    second = class_identity(load("prov_space.metric", PLUGIN + "# changed\n").Mine)
    assert first["code"] != second["code"]
    assert list(first["code"]) == ["prov_space.metric"]


def test_bases_in_other_packages_count_and_mixins_and_the_engine_do_not(load: Callable[..., ModuleType]) -> None:
    derived = "import torch\nfrom prov_base import Mine\nclass Finer(Mine, torch.nn.Module):\n    '''Finer.'''\n"
    load("prov_base", PLUGIN)
    first = class_identity(load("prov_derived", derived).Finer)
    assert sorted(first["code"]) == ["prov_base", "prov_derived"]
    load("prov_base", PLUGIN + "# changed\n")
    second = class_identity(load("prov_derived").Finer)
    assert second["code"]["prov_base"] != first["code"]["prov_base"]
    assert second["code"]["prov_derived"] == first["code"]["prov_derived"]
    assert class_identity(OwnData)["code"] == {}  # the engine's identity covers it


def test_a_class_made_at_a_prompt() -> None:
    made = type("Made", (Metric,), {"__module__": "nowhere_in_particular", "version": "7"})
    assert class_identity(made) == {
        "class": "nowhere_in_particular.Made",
        "version": "7",
        "code": {"nowhere_in_particular": "interactive"},
    }


def test_the_engine_is_what_records_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "benchsuite"
    shutil.copytree(Path(provenance.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(copy / "provenance.py"))

    def identity() -> str:
        engine_identity.cache_clear()
        return engine_identity()

    before = identity()
    for irrelevant in ("cli.py", "statistics.py", "report/words.py", "plan.py"):
        (copy / irrelevant).write_text("# another\n" + (copy / irrelevant).read_text())
    assert identity() == before
    for relevant in ("samplers.py", "randomness.py", "bench.py", "own_data.py", "protocols/u_turn.py", "noise.py"):
        (copy / relevant).write_text("# another\n" + (copy / relevant).read_text())
        changed = identity()
        assert changed != before, relevant
        before = changed
    engine_identity.cache_clear()


def test_revision_of_the_checkout_that_holds_the_code(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> None:
        name = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True)

    assert git_revision(tmp_path) is None
    git("init")
    file = tmp_path / "provenance.py"
    file.write_text("")
    assert git_revision(tmp_path) is None  # some other project's checkout that we were copied into
    git("add", "provenance.py")
    git("commit", "-m", "first")
    found = git_revision(tmp_path)
    assert found is not None
    assert len(str(found["revision"])) == 40
    assert found["dirty"] is False
    (tmp_path / "untracked.txt").write_text("")
    assert git_revision(tmp_path) == found
    file.write_text("changed")
    assert git_revision(tmp_path) == {**found, "dirty": True}


def test_description(first_party: Catalog) -> None:
    facts: dict[str, Any] = provenance.describe(first_party, "cpu", "float32", 3)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["plugins"] == sorted(set(first_party.origins.values()))
    assert facts["device"] == device_name("cpu") == f"cpu ({torch.get_num_threads()} threads)"
    assert (facts["seed"], facts["dtype"]) == (3, "float32")
    assert "no-such-package" not in facts["versions"]
