"""Make `import torchvision` survive compiled operators that do not match the installed torch.

torchvision loads a compiled extension and then attaches Python functions to two of its operators. When the
extension was built for another torch it fails to load, silently, and the import dies one line later with
``RuntimeError: operator torchvision::nms does not exist``. timm and diffusers import torchvision, so they die
with it although they use none of its operators. Declaring the schemas of those operators is enough: everything
written in Python (models, transforms) works, and calling a missing operator still fails where it is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from typing import Any

#: Operators to which torchvision (0.15 … 0.28) attaches Python functions without asking whether they exist.
SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")
_libraries: list[Any] = []  # a torch Library withdraws its schemas when it is garbage-collected


def ensure_torchvision_importable() -> tuple[str, ...]:
    """Call before importing timm or a diffusers model; cheap when called again.

    Does nothing when torchvision is absent or imports by itself. If the import dies of a missing operator —
    which proves that torchvision could not load its extension, so nothing can clash — the schemas are declared
    and torchvision is imported again.

    Returns:
        Names of the operators that were declared; empty when there was nothing to mend.

    Raises:
        RuntimeError: torchvision's own, if it fails for want of an operator that is not in `SCHEMAS`.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return ()
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        missing = _MISSING.search(str(error))
        if missing is None or missing[1] not in SCHEMAS:
            raise
    else:
        return ()
    for module in [m for m in sys.modules if m == "torchvision" or m.startswith("torchvision.")]:
        del sys.modules[module]  # half-imported
    _declare()
    importlib.import_module("torchvision")
    return tuple(SCHEMAS)


def _declare() -> None:
    from torch.library import Library

    library = Library("torchvision", "FRAGMENT")
    for schema in SCHEMAS.values():
        library.define(schema)
    _libraries.append(library)
