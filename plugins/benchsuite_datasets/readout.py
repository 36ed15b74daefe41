"""The trained readout: a `ReadoutNet` with its record, read from and written to a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchsuite import Factor, MissingDataError, Readout, Split, UsageError, fingerprint_state
from benchsuite.contracts import FloatArray
from benchsuite_datasets.base import DataError
from benchsuite_datasets.grids import grid_distances
from benchsuite_datasets.network import ReadoutNet

SCHEMA = 1
WEIGHTS, RECORD = "readout.safetensors", "readout.json"
BATCH = 1024


class CnnReadout(Readout):
    """A frozen multi-head classifier of images.

    Args:
        net: the network, in evaluation mode from here on.
        record: what ``readout.json`` holds: ``shape``, ``crop``, ``widths``, ``hidden``, ``factors``
            (name -> values), and after training ``accuracy``, ``dataset_fingerprint`` and the recipe.
    """

    def __init__(self, net: ReadoutNet, record: Mapping[str, Any]) -> None:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.net = net.eval().requires_grad_(False)
        self.record = dict(record)
        self.name = str(record.get("name", "readout"))
        self.accuracy: Mapping[str, float] = dict(record.get("accuracy", {}))
        self.trained_on = str(record.get("dataset_fingerprint", ""))
        self.factors = tuple(Factor(name, tuple(values)) for name, values in record["factors"].items())
        self._shape: tuple[int, int, int] = tuple(record["shape"])
        self._crop = bool(record["crop"])

    @classmethod
    def build(cls, record: Mapping[str, Any]) -> CnnReadout:
        """An untrained readout of the architecture in `record`."""
        sizes = {name: len(values) for name, values in record["factors"].items()}
        return cls(ReadoutNet(tuple(record["shape"]), record["widths"], record["hidden"], sizes), record)

    @classmethod
    def open(cls, path: Path) -> CnnReadout:
        """Read a directory written by `save`.

        Raises:
            MissingDataError: `path` lacks one of the two files.
            DataError: a file cannot be parsed, or weights and architecture do not fit or are not finite.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for file in (RECORD, WEIGHTS):
            if not (path / file).is_file():
                raise MissingDataError(
                    f"no readout in {path}: {file} is missing; make one with `benchsuite train`"
                )
        try:
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise DataError(f"{path / RECORD}: schema {record['schema']}, this version reads {SCHEMA}")
            with torch.random.fork_rng(devices=[]):  # initial weights are overwritten: leave no trace of them
                judge = cls.build(record)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / RECORD} is not a readout record: {error!r}") from error
        try:
            state = load_file(path / WEIGHTS)
            state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
            judge.net.load_state_dict(state)
        except (SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path / WEIGHTS} does not fit its record: {reason[:200]}") from error
        for name, value in state.items():
            if not bool(torch.isfinite(value).all()):
                raise DataError(f"{path / WEIGHTS}: {name} holds values that are not finite")
        return judge

    def save(self, path: Path) -> None:
        """Write weights (half precision) and record into the directory `path`."""
        from safetensors.torch import save_file

        path.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        save_file(halves, path / WEIGHTS)
        text = json.dumps({"schema": SCHEMA} | self.record, indent=1, ensure_ascii=False)
        (path / RECORD).write_text(text + "\n", encoding="utf-8")

    def to(self, device: str) -> CnnReadout:
        """Move to `device` and return self."""
        self.net.to(device)
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, C, H, W) in [-1, 1] => {factor: (B, K)} float32 on the images' device, rows sum to 1."""
        parts = [[F.softmax(z, dim=1) for z in logits] for logits, _ in self._batches(images)]
        return {f.name: torch.cat([p[i] for p in parts]) for i, f in enumerate(self.factors)}

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, C, H, W) => ``stage1`` … (B, channels, h, w), h, w <= 4; ``hidden`` and ``logits`` (B, D)."""
        parts = [features for _, features in self._batches(images)]
        return {layer: torch.cat([p[layer] for p in parts]) for layer in parts[0]}

    @torch.no_grad()
    def positions(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) => embeddings (B, P, E) on the grid of one stage, row by row, see `patches`."""
        device = self.net.hidden.weight.device
        grids = [
            self.net.patches(x.to(device, torch.float32)).to(x.device) for x in self.look(images).split(BATCH)
        ]
        return torch.cat(grids).flatten(2).transpose(1, 2)

    def position_distances(self) -> FloatArray:
        """Euclidean distances (P, P) on that grid, in units of its mesh."""
        blank = torch.zeros(1, *self._shape, device=self.net.hidden.weight.device)
        with torch.no_grad():
            rows, columns = self.net.patches(blank).shape[2:]
        return grid_distances(rows, columns)

    def fingerprint(self) -> str:
        """Hex digest of the weights, temperatures included."""
        return fingerprint_state(self.net.state_dict())

    def require(self, factors: Sequence[Factor], shape: tuple[int, ...]) -> None:
        """Raise UsageError unless this judge knows exactly `factors` and can look at images of `shape`."""
        if tuple(factors) != self.factors:
            raise UsageError(
                f"readout {self.name} judges {describe(self.factors)}, the data have {describe(factors)}"
            )
        if not self._fits(shape):
            raise UsageError(f"readout {self.name} looks at images {self._shape}, the data have {shape}")

    def measure(self, part: Split) -> None:
        """Set `accuracy` to the one measured on `part`, whose first label columns are this judge's factors."""
        guess = self.probabilities(part.images)
        self.accuracy = {
            f.name: float((guess[f.name].argmax(1) == part.labels[:, i]).double().mean())
            for i, f in enumerate(self.factors)
        }

    def look(self, images: torch.Tensor) -> torch.Tensor:
        """The part of (B, C, H, W) the network sees: the centre if the record says ``crop``, else everything."""
        if not self._fits(tuple(images.shape[1:])):
            raise UsageError(f"readout {self.name} looks at images {self._shape}, got {tuple(images.shape[1:])}")
        _, height, width = self._shape
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        return images[:, :, top : top + height, left : left + width]

    def _fits(self, shape: tuple[int, ...]) -> bool:
        if self._crop and len(shape) == 3:
            (c, h, w), (channels, height, width) = shape, self._shape
            return c == channels and h >= height and w >= width
        return shape == self._shape

    @torch.no_grad()
    def _batches(self, images: torch.Tensor) -> Iterator[tuple[list[torch.Tensor], dict[str, torch.Tensor]]]:
        device = self.net.hidden.weight.device
        for chunk in self.look(images).split(BATCH):
            chunk = chunk.to(device, torch.float32).contiguous(memory_format=torch.channels_last)
            logits, features = self.net(chunk)
            back = images.device
            yield [z.to(back) for z in logits], {k: v.to(back) for k, v in features.items()}


def describe(factors: Sequence[Factor]) -> str:
    """Factors with their sizes, for messages: ``class (10)``."""
    return ", ".join(f"{f.name} ({f.size})" for f in factors) or "no factors"
