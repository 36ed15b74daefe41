"""A real third-party distribution: it installs with pip, appears in the list, and runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SOURCE = Path(__file__).parent / "third_party" / "benchsuite-example"


def python(*arguments: str, path: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Another interpreter, as a user starts it; `path` is where the example is installed."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {}) | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd, timeout=300
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built and installed by pip into a directory of its own, without network."""
    pytest.importorskip("pip", reason="the example is installed with pip")
    pytest.importorskip("hatchling", reason="the example is built with hatchling, see the extra 'test'")
    root = tmp_path_factory.mktemp("third-party")
    shutil.copytree(SOURCE, root / "source", ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    done = python("-m", "pip", "install", "--quiet", *offline, f"--target={root / 'site'}", str(root / "source"))
    assert done.returncode == 0, done.stderr
    return root / "site"


def test_it_appears(installed: Path) -> None:
    listing = json.loads(python("-m", "benchsuite", "list", "--json", path=installed).stdout)
    assert "wiener" in listing["models"]
    assert "label-gain" in listing["metrics"]
    assert not any("benchsuite-example" in failure["plugin"] for failure in listing["failures"])
    shown = python("-m", "benchsuite", "info", "wiener", path=installed).stdout
    assert "model from example (benchsuite-example 0.1.0)" in shown
    assert "wiener" not in json.loads(python("-m", "benchsuite", "list", "--json").stdout)["models"]


@pytest.mark.parametrize("name", ["wiener", "label-gain"])
def test_it_keeps_its_contract(installed: Path, name: str) -> None:
    """The conformance kit that ships to plugin authors has nothing to say against what we show them."""
    done = python("-m", "benchsuite", "check", name, path=installed)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed, \d+ skipped$", done.stdout, re.MULTILINE)


def test_it_runs(installed: Path, tmp_path: Path) -> None:
    """Its model under a first-party metric, and its metric on a first-party model, on real digits."""
    command = ["-m", "benchsuite", "run", "--models", "wiener", "--metrics", "mutual-information label-gain"]
    command += ["--datasets", "digits", "--limit", "40", "--set", "sweep.nodes=18", "--device", "cpu", "--json"]
    done = python(*command, path=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert any("benchsuite-example 0.1.0" in plugin for plugin in document["provenance"]["plugins"])
    rows = {(row["label"], row["split"], row["metric"]): row for row in document["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}
    gain = rows["wiener", "test", "label-gain"]["curves"][0]
    curves = rows["wiener", "test", "mutual-information"]["curves"]
    information = next(curve for curve in curves if curve["variant"] == "mse-difference")
    # the class helps where the image is noisy, and no more when it is plain to see
    middle, clean = (int(np.argmin(np.abs(np.array(gain["log_snr"]) - at))) for at in (-2, 9))
    assert gain["value"][middle] > 1.0
    assert abs(gain["value"][clean]) < 0.01
    assert information["value"][-1] > 0.5
    # and the two agree: the gain is what the information integrates, 2 dI / d log_snr = E gain / sigma²
    slope = np.gradient(information["value"], information["log_snr"])
    expected = np.array(gain["value"]) * np.exp(gain["log_snr"]) / 2
    np.testing.assert_allclose(slope[2:-2], expected[2:-2], atol=0.25)
    # the finite set's ideal profits from the label as well
    assert max(rows["empirical-bayes", "train", "label-gain"]["curves"][0]["value"]) > 1.0
