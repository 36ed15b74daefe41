"""Training of what ships with a plugin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from benchsuite.contracts.data import Dataset

#: Wraps an iterable with a progress bar: ``for step in track(range(n), "training", n)``.
Track = Callable[..., Any]


class Recipe(ABC):
    """Trains something that ships with a plugin (a reference model, a readout): `benchsuite train NAME`."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def train(
        self,
        out: Path,
        *,
        device: str,
        seed: int,
        steps: int | None,
        datasets: Callable[[str], Dataset],
        track: Track,
    ) -> dict[str, Any]:
        """Train, write weights, recipe, loss curve and versions under `out`, and return what was measured.

        `steps` overrides the recipe's number of steps; `datasets` opens a data set by its command-line spec.
        A checkpoint in `out` is resumed from.
        """
