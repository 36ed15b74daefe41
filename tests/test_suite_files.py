"""Suite files: what they say, what the command line changes in them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from toys import group

from benchsuite.discovery import Catalog
from benchsuite.errors import UsageError
from benchsuite.plan import make_plan
from benchsuite.protocols.settings import SweepSettings
from benchsuite.request import Group, Settings
from benchsuite.suite_files import load_suite, suite_names


def test_suites_that_ship_are_valid_and_name_what_exists(first_party: Catalog) -> None:
    assert "digits" in suite_names()
    for name in suite_names():
        suite = load_suite(name)
        assert suite.suite == name
        own = {key: (example,) for key, example in suite.examples}  # what a suite leaves to the user
        assert make_plan(suite.asking_for(**own), first_party).units


def test_a_suite_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'models = ["a", "b:x=1"]\nmetrics = ["m"]\n[settings]\nitems = 9\n[settings.sweep]\nlow = -5\n'
    )
    found = load_suite(str(path))
    assert (found.models, found.datasets, found.metrics) == (("a", "b:x=1"), (), ("m",))
    assert found.settings == replace(Settings(), items=9, sweep=replace(SweepSettings(), low=-5.0))


def test_a_suite_file_of_groups(tmp_path: Path) -> None:
    """A group takes the lists that it leaves out from the top of the file."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'metrics = ["m"]\n[settings]\nitems = 9\n'
        '[[cells]]\nmodels = ["a"]\ndatasets = ["x", "y"]\n[[cells]]\nmodels = ["b"]\nmetrics = ["n"]\n'
    )
    found = load_suite(str(path))
    assert found.groups == (group("a", "x y", "m"), group("b", "", "n"))
    assert found.settings.items == 9


def test_a_group_of_a_suite_file_may_change_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[settings]\nitems = 9\nu_turn = { low = -6 }\n[[cells]]\nmodels = ["a"]\nmetrics = ["m"]\n'
        '[[cells]]\nmodels = ["b"]\nmetrics = ["m"]\nu_turn = { high = 3 }\n'
    )
    found = load_suite(str(path))
    plain, changed = found.groups
    assert plain.settings is None
    assert changed.settings == replace(found.settings, u_turn=replace(found.settings.u_turn, high=3.0))
    assert changed.settings is not None
    assert (changed.settings.items, changed.settings.u_turn.low) == (9, -6.0)
    # the command line has the last word, in every group
    later = found.with_settings({"items": 5, "u_turn": {"high": 2.0}}, "--set")
    assert later.settings.items == 5
    assert later.groups[0].settings is None
    assert later.groups[1].settings is not None
    assert (later.groups[1].settings.items, later.groups[1].settings.u_turn.high) == (5, 2.0)
    # settings belong to the models that the suite names
    assert found.asking_for(metrics=["n"]).groups[1].settings == changed.settings
    assert found.asking_for(models=["c"]).groups == (Group(("c",), (), ("m",)),)


def test_a_group_of_a_suite_file_may_be_optional(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('metrics = ["m"]\n[[cells]]\nmodels = ["a"]\ndatasets = ["x"]\noptional = true\n')
    found = load_suite(str(path))
    assert found.groups == (replace(group("a", "x", "m"), optional=True),)
    assert found.asking_for(metrics=["n"]).groups[0].optional
    assert not found.asking_for(datasets=["y"]).groups[0].optional  # who names the data wants them


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[cells]]\noptional = 1", "cells 1: optional must be true or false, got 1"),
        ('[[cells]]\nmodels = ["a"]\nitems = 3', "unknown key of suite .*cells 1: 'items'"),
        (
            "[[cells]]\n[cells.u_turn]\nlower = 3",
            "unknown key of suite .*cells 1.u_turn: 'lower'; did you mean low",
        ),
        ('[[cells]]\nmodel = ["a"]', "unknown key of suite .*cells 1: 'model'; did you mean models"),
        ('[[cells]]\n[[cells]]\nmodels = "a"', "cells 2: models must be a list of strings, got 'a'"),
        ("[cells]\nmodels = []", r"cells must be tables, \[\[cells\]\]; got"),
        ("cells = [1]", r"cells must be tables, \[\[cells\]\]; got \[1\]"),
        ("models = [", "not TOML"),
        ('model = ["a"]', "unknown key of suite .*: 'model'; did you mean models"),
        ('models = "a"', "models must be a list of strings, got 'a'"),
        ("metrics = [1]", r"metrics must be a list of strings, got \[1\]"),
        ("[settings]\nitem = 1", "unknown key of suite .*settings: 'item'; did you mean items"),
        ("settings = 3", "settings must be a table, got 3"),
    ],
)
def test_wrong_suite_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(str(path))


def test_missing_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown suite 'digit'; did you mean digits"):
        load_suite("digit")
    with pytest.raises(UsageError, match=r"no suite file .*absent.toml"):
        load_suite(str(tmp_path / "absent.toml"))
