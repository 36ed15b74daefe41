"""Where a number comes from: versions, revision, device, and the identity of the code behind it."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchsuite.discovery import Catalog

PACKAGES = ("torch", "diffusers", "timm", "numpy", "scipy", "scikit-learn", "safetensors", "pluggy")
#: engine modules that records depend on; reports and the command line are not among them
SCIENCE = (
    *("channels.py", "noise.py", "samplers.py", "randomness.py", "bench.py", "own_data.py"),
    *("contracts", "protocols"),
)


def describe(catalog: Catalog, device: str, dtype: str, seed: int) -> dict[str, Any]:
    """Provenance of a run, for the results document."""
    return {
        "benchsuite": version("benchsuite"),
        "git": git_revision(Path(__file__).resolve().parent),
        "versions": {name: installed for name in PACKAGES if (installed := _version(name))},
        "plugins": sorted(set(catalog.origins.values())),
        "device": device_name(device),
        "dtype": dtype,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "seed": seed,
    }


def device_name(device: str) -> str:
    """``cuda:0 (NVIDIA H100)`` or ``cpu (2 threads)``."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def git_revision(folder: Path) -> dict[str, Any] | None:
    """Revision and dirty flag of the checkout that holds `folder` (not of the current directory), or None.

    A copy installed into some other project's tree is not that project's revision: the file must be tracked.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", "provenance.py") is None:
        return None
    revision = git("rev-parse", "HEAD")
    return {"revision": revision, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}


@cache
def engine_identity() -> str:
    """Hash of the engine's code that records depend on."""
    root = Path(__file__).resolve().parent
    return _tree_hash([root / name for name in SCIENCE])


def class_identity(cls: type[Any]) -> dict[str, Any]:
    """Identity of a plugin's code: declared version, and hashes of the packages it and its plugin bases live in.

    Classes of the engine, which `engine_identity` covers, and foreign mixins (``torch.nn.Module``) are left out.
    """
    engine = __name__.partition(".")[0]
    plugins = [c for c in cls.__mro__ if any(b.__module__.partition(".")[0] == engine for b in c.__mro__[1:])]
    homes = {_home(c) for c in plugins if c.__module__.partition(".")[0] != engine}
    return {
        "class": f"{cls.__module__}.{cls.__qualname__}",
        "version": str(getattr(cls, "version", "")),
        "code": {name: _module_hash(file) for name, file in sorted(homes)},
    }


def _home(cls: type[Any]) -> tuple[str, str]:
    """Name and file of a class's top-level package; of its own module if that is a namespace without a file."""
    for name in (cls.__module__.partition(".")[0], cls.__module__):
        if file := getattr(sys.modules.get(name), "__file__", None):
            return name, str(file)
    return cls.__module__, ""


@cache
def _module_hash(file: str) -> str:
    path = Path(file)
    if not path.is_file():
        return "interactive"
    return _tree_hash([path.parent if path.name == "__init__.py" else path])


def _tree_hash(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        for file in files:
            digest.update(file.relative_to(path.parent).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
