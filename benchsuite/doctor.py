"""`benchsuite doctor`: is this installation able to run what it promises?"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

from benchsuite.discovery import discover
from benchsuite.errors import BenchsuiteError
from benchsuite.provenance import PACKAGES, device_name


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str


def examine() -> Iterator[Finding]:
    """Look at packages, device, plugins and data sets; never raises."""
    from benchsuite.torchvision_compat import ensure_torchvision_importable

    declared = ensure_torchvision_importable()
    yield Finding(
        "torchvision", True, "operators declared by us: its build does not match torch" if declared else "ok"
    )
    for name in PACKAGES:
        module = {"scikit-learn": "sklearn"}.get(name, name)
        try:
            found = importlib.import_module(module)
            yield Finding(name, True, str(getattr(found, "__version__", "installed")))
        except Exception as error:
            yield Finding(name, False, f"{type(error).__name__}: {error}; try: pip install {name}")
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    yield Finding("device", True, device_name(device))
    catalog = discover()
    for kind in ("models", "metrics", "datasets", "recipes"):
        yield Finding(
            kind, bool(getattr(catalog, kind)), ", ".join(sorted(getattr(catalog, kind))) or "none found"
        )
    for failure in catalog.failures:
        yield Finding(f"plugin {failure.plugin}", False, failure.reason)
    for name, cls in sorted(catalog.datasets.items()):
        try:
            dataset = cls()
            dataset.load()
            detail = f"{len(dataset.split('train')):,} training images"
        except (BenchsuiteError, TypeError) as error:
            # data that the user may not want are not a fault of the installation
            detail = f"not available: {error}"
        yield Finding(f"data set {name}", True, detail)
