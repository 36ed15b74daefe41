"""The remedy for "operator torchvision::nms does not exist", on three kinds of machine, each a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What torchvision does at import when its extension did not load: attach a function to an operator.
ATTACH = """
import torch
@torch.library.register_fake("torchvision::{operator}")
def fake(dets, scores, iou_threshold):
    return dets
"""
CALL = "from benchsuite.torchvision_compat import ensure_torchvision_importable as ensure\n"


def python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(path), "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


@pytest.fixture
def torchvision(tmp_path: Path) -> Path:
    """Folder of a torchvision that shadows the installed one."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "models.py").write_text("loaded = True\n")
    return package


def test_broken_operators_are_declared(torchvision: Path) -> None:
    (torchvision / "__init__.py").write_text(
        "from torchvision import models\n" + ATTACH.format(operator="nms") + ATTACH.format(operator="qnms")
    )
    assert "torchvision::nms does not exist" in python("import torchvision", torchvision.parent).stderr
    done = python(
        CALL + "import sys\n"
        "print(ensure(), ensure())\n"
        "import torch, torchvision\n"
        "print(torchvision.models.loaded, torch.ops.torchvision.nms.default._schema)\n",
        torchvision.parent,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "('nms', 'qnms') ()"
    assert second.startswith("True torchvision::nms(Tensor dets, Tensor scores, float iou_threshold)")


def test_healthy_torchvision_is_left_alone(torchvision: Path) -> None:
    """Its own library defines the operators; a second definition would be an error there."""
    (torchvision / "__init__.py").write_text(
        "import torch\n"
        'library = torch.library.Library("torchvision", "DEF")\n'
        'library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
        + ATTACH.format(operator="nms")
    )
    done = python(
        CALL + "import torch\nprint(ensure(), hasattr(torch.ops.torchvision, 'qnms'))", torchvision.parent
    )
    assert (done.stdout, done.stderr) == ("() False\n", "")


def test_absent_torchvision_is_left_alone(tmp_path: Path) -> None:
    code = (
        CALL + "import sys\n"
        "class Hiding:\n"
        "    def __init__(self, finder): self.finder = finder\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return None if name == 'torchvision' else self.finder.find_spec(name, path, target)\n"
        "sys.meta_path = [Hiding(f) for f in sys.meta_path]\n"
        "print(ensure(), 'torchvision' in sys.modules, 'torch' in sys.modules)"
    )
    done = python(code, tmp_path)
    assert (done.stdout, done.stderr) == ("() False False\n", "")


def test_another_failure_is_not_hidden(torchvision: Path) -> None:
    (torchvision / "__init__.py").write_text(ATTACH.format(operator="deform_conv2d"))
    done = python(CALL + "ensure()", torchvision.parent)
    assert "RuntimeError: operator torchvision::deform_conv2d does not exist" in done.stderr


def test_here_timm_and_diffusers_import(tmp_path: Path) -> None:
    done = python(
        "import warnings; warnings.simplefilter('default')\n" + CALL + "ensure()\n"
        "import timm\nfrom diffusers import AutoencoderKL, UNet2DModel, VQModel\nprint('ok')",
        tmp_path,
    )
    assert done.stdout == "ok\n", done.stderr
