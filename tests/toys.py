"""Toy models, data sets and throw-away distributions for tests of the engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchsuite import Dataset, DiffusionModel, ExactModel, Factor, Metric, MissingDataError, Readout, Split
from benchsuite.discovery import Catalog
from benchsuite.own_data import ExactReadout
from benchsuite.protocols.settings import FilterSettings, ForkSettings, SweepSettings, UTurnSettings
from benchsuite.request import Group, Request, Settings

CLASS = Factor("class", ("left", "right"))
SHAPE = (1, 4, 4)

#: a run of a few hundred forward passes
SMALL = Settings(
    items=6,
    probe_items=12,
    bootstrap=20,
    batch=16,
    sweep=SweepSettings(low=-4.0, high=4.0, nodes=9, tap_stride=4),
    u_turn=UTurnSettings(low=-4.0, high=4.0, every=2.0, steps_per_level=1, end=5.0),
    fork=ForkSettings(low=-4.0, high=4.0, every=4.0, steps_per_level=2, end=5.0, k=3, items=4),
    # nothing is ruled out, so that counted passes are those made
    label_filter=FilterSettings(low=-4.0, high=4.0, nodes=9, negligible=0.0),
)


class Block(nn.Module):
    """Like a diffusers down block: returns (hidden, residuals)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        hidden = torch.tanh(self.conv(x))
        return hidden, (hidden,)


class Tokens(nn.Module):
    """(B, C, H, W) => (B, H * W, C)."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.flatten(2).transpose(1, 2)


class TinyNet(nn.Module):
    """Outputs of every layout that taps meet: a tuple, (B, C, H, W), (B, T, C) and (B, D)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = Block()
            self.mid = nn.Conv2d(3, 2, 1)
            self.tokens = Tokens()
            self.flat = nn.Linear(2, 4)
            self.out = nn.Conv2d(2, 1, 1)
            self.embed = nn.Embedding(3, 2)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        hidden = self.mid(self.down(x)[0])
        hidden = hidden + self.embed(label)[:, :, None, None]
        self.flat(self.tokens(hidden).mean(dim=1))
        return self.out(hidden)


class ToyModel(DiffusionModel):
    """A small untrained network with a conditional head; counts the rows it is asked for."""

    name = "toy"
    family = "toy"
    paper = "none"

    def __init__(self, seed: int = 0, sigma_max: float = 100.0) -> None:
        self.seed, self.rows = seed, 0
        self.sigma_range = (0.01, sigma_max)
        self.shape, self.factors, self.taps = SHAPE, (CLASS,), ("down", "mid", "tokens", "flat")

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        self.network = TinyNet(self.seed).to(device).eval()

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.rows += len(x)
        given = x.new_full((len(x),), -1, dtype=torch.int64) if labels is None else labels[:, 0]
        sigma = sigma.reshape(-1, 1, 1, 1)
        assert self.network is not None
        change: torch.Tensor = self.network(x / (1 + sigma**2).sqrt(), given % 3)
        return x / (1 + sigma**2) + sigma / (1 + sigma**2).sqrt() * change


class Unconditional(ToyModel):
    name = "toy-unconditional"

    def __init__(self) -> None:
        super().__init__()
        self.factors = ()


class ToyReadout(Readout):
    """Which half is brighter; `sharpness` makes no difference to verdicts, only to probabilities."""

    name = "halves"

    def __init__(self) -> None:
        self.accuracy = {"class": 1.0}

    def to(self, device: str) -> ToyReadout:
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        tilt = (images[..., 2:] - images[..., :2]).flatten(1).mean(dim=1)
        return {"class": torch.stack([-tilt, tilt], dim=1).mul(3.0).softmax(dim=1)}

    def fingerprint(self) -> str:
        return "halves-1"


class ToyData(Dataset):
    """4 × 4 images whose left or right half is bright; 24 / 8 / 12 items."""

    name = "toy-data"

    def __init__(self, shift: float = 0.0, label: int = 0) -> None:
        self.shift, self.label = shift, label

    def load(self) -> None:
        self.factors, self.shape = (CLASS,), SHAPE
        generator = torch.Generator().manual_seed(5)
        self.splits = {}
        for name, size in {"train": 24, "val": 8, "test": 12}.items():
            labels = torch.arange(size)[:, None] % 2
            images = 0.2 * torch.randn(size, *SHAPE, generator=generator) + self.shift
            images[labels[:, 0] == 0, :, :, :2] += 0.6
            images[labels[:, 0] == 1, :, :, 2:] += 0.6
            self.splits[name] = Split(images, labels + self.label, tuple(f"{name}/{i}" for i in range(size)))

    def split(self, name: str) -> Split:
        return self.splits[name]

    def readout(self) -> Readout | None:
        return ToyReadout()


def mislabelled(split: str, value: int) -> type[Dataset]:
    """Toy data of which one label lies outside its range."""

    class Mislabelled(ToyData):
        name = "toy-data"

        def load(self) -> None:
            super().load()
            self.splits[split].labels[3] = value

    return Mislabelled


class Missing(ToyData):
    """Toy data that are not there."""

    name = "missing"

    def load(self) -> None:
        raise MissingDataError("no images in ./data; get them with: fetch-the-data")


class DrawnData(Dataset):
    """Items drawn from an exact model, as an ordinary data set judged by that model's posterior."""

    name = "drawn"

    def __init__(self, source: ExactModel, test: int, train: int = 400) -> None:
        self.source, self.sizes = source, {"train": train, "val": max(train // 4, 4), "test": test}

    def load(self) -> None:
        self.source.load()
        self.factors, self.shape = self.source.factors, self.source.shape
        self.splits = {}
        for number, (name, size) in enumerate(self.sizes.items()):
            x, labels = self.source.sample(size, torch.Generator().manual_seed(17 + number))
            self.splits[name] = Split(x, labels, tuple(f"{name}/{i}" for i in range(size)))

    def split(self, name: str) -> Split:
        return self.splits[name]

    def readout(self) -> Readout | None:
        return ExactReadout(self.source)


def catalog_of(*classes: type[Any]) -> Catalog:
    """A catalog of these plugin classes."""
    catalog = Catalog()
    for cls in classes:
        kinds = {"models": DiffusionModel, "metrics": Metric, "datasets": Dataset}
        kind = next(kind for kind, base in kinds.items() if issubclass(cls, base))
        getattr(catalog, kind)[cls.name] = cls
        catalog.origins[kind, cls.name] = "tests"
    return catalog


def request(
    models: Iterable[str] = ("toy",),
    datasets: Iterable[str] = ("toy-data",),
    metrics: Iterable[str] = ("mutual-information",),
    settings: Settings = SMALL,
    **changes: Any,
) -> Request:
    return Request(tuple(models), tuple(datasets), tuple(metrics), replace(settings, **changes))


def group(models: str = "", datasets: str = "", metrics: str = "") -> Group:
    return Group(tuple(models.split()), tuple(datasets.split()), tuple(metrics.split()))


def write_distribution(
    root: Path, name: str, entry_points: Mapping[str, str] | str, modules: Mapping[str, str], version: str = "1.0"
) -> None:
    """Install a distribution by hand: metadata, entry points (a mapping, or the raw file) and modules."""
    info = root / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if not isinstance(entry_points, str):
        entry_points = "[benchsuite]\n" + "".join(f"{key} = {value}\n" for key, value in entry_points.items())
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (root / f"{module}.py").write_text(text)
