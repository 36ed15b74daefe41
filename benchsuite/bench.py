"""A loaded model facing its items: what it takes to run a protocol, and what the outcome depends on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from benchsuite.blocks import Blocks
from benchsuite.channels import ChannelModel, Channels
from benchsuite.contracts import (
    Dataset,
    DiffusionModel,
    ExactModel,
    Fork,
    LabelFilter,
    NoiseSweep,
    Population,
    ProtocolOptions,
    Readout,
    Record,
    Trajectory,
    UTurn,
)
from benchsuite.errors import BenchsuiteError, NotApplicableError
from benchsuite.own_data import OwnData
from benchsuite.plan import Unit
from benchsuite.protocols import channels, fork, label_filter, noise_sweep, population, trajectory, u_turn
from benchsuite.protocols.common import Items, Meter, chunks
from benchsuite.protocols.spread import values_in_use
from benchsuite.provenance import class_identity, engine_identity
from benchsuite.randomness import stream_key
from benchsuite.request import Settings


@dataclass
class Bench:
    """A loaded model facing its items, ready to run protocols."""

    model: DiffusionModel
    dataset: Dataset
    unit: Unit
    settings: Settings
    device: str
    items: Items
    probe: dict[str, Items]
    readout: Readout | None
    entropy: dict[str, float]
    exact: bool  #: the items come from the population whose posterior the model states

    @classmethod
    def build(cls, model: DiffusionModel, dataset: Dataset, unit: Unit, settings: Settings, device: str) -> Bench:
        """Choose and encode items: a fixed random subset of the split, and items for the probe.

        It learns from some, chooses by others, and is tested on more than are evaluated if so asked. On its own
        population an exact model states the posterior at its test items, which leaves little noise in few of them.
        """
        split = dataset.split(unit.split)
        order = _order(split.ids, settings.seed)
        population = unit.split == "train"  # an oracle on the images that it knows
        chosen = order[: settings.oracle_items if population else settings.items]
        quarter = max(settings.probe_items // 4, 1)

        def encoded(name: str, index: list[int]) -> Items:
            part = dataset.split(name)
            images = part.images[torch.as_tensor(index, dtype=torch.int64)]
            pieces = [model.encode(images[s].to(device)) for s in chunks(len(images), settings.batch)]
            x = torch.cat(pieces) if pieces else images
            return Items(x, part.labels[index].to(device), tuple(part.ids[i] for i in index), dataset.factors)

        learning: list[int] = []
        if not population:
            # "train" holds the items of the other splits too where it is the whole population
            apart = {*split.ids, *dataset.split("val").ids}
            train = dataset.split("train").ids
            learning = [i for i in _order(train, settings.seed) if train[i] not in apart]
        if learning:
            sources, choosing = ("train", "val"), _order(dataset.split("val").ids, settings.seed)
        else:
            # the probe learns from the same images under other noise: they are all there is
            quarter = min(quarter, max(len(order) // 5, 1))
            sources, learning, choosing = (unit.split, unit.split), order[:-quarter], order[-quarter:]
        probe = {
            "train": encoded(sources[0], learning[: settings.probe_items]),
            "val": encoded(sources[1], choosing[:quarter]),
        }
        exact = model.exact and (unit.split == "train" or not unit.dataset)
        tested = order[len(chosen) : settings.probe_tests]
        if tested and not exact:
            probe["test"] = encoded(unit.split, tested)
        prior = _prior(model, dataset)
        entropy = {name: float(-(p[p > 0] * np.log(p[p > 0])).sum()) for name, p in prior.items()}
        everything = dataset.enumerated and not isinstance(dataset, OwnData)  # whose splits are draws
        entropy["joint"] = _joint_entropy(dataset.split("train").labels, everything)
        readout = dataset.readout()
        if readout is not None:
            readout = readout.to(device)
        items = encoded(unit.split, chosen)
        return cls(model, dataset, unit, settings, device, items, probe, readout, entropy, exact)

    @cached_property
    def training(self) -> Items:
        """Items of the training split, whatever a probe learns from: their moments are those of a path's start."""
        part = self.dataset.split("train")
        index = _order(part.ids, self.settings.seed)[: self.settings.probe_items]
        images = part.images[torch.as_tensor(index, dtype=torch.int64)].to(self.device)
        x = torch.cat([self.model.encode(images[s]) for s in chunks(len(images), self.settings.batch)])
        labels = part.labels[index].to(self.device)
        return Items(x, labels, tuple(part.ids[i] for i in index), self.dataset.factors)

    def can(self, need: ProtocolOptions) -> bool:
        """Whether model and data set offer what the protocol needs."""
        return not self.lacks(need)

    def lacks(self, need: ProtocolOptions) -> str:
        """What the protocol needs and is not there, in words; empty if nothing."""
        if isinstance(need, Channels) and not isinstance(self.model, ChannelModel):
            return f"{self.model.name} states no noise channels; only some exact models do"
        if isinstance(need, UTurn | Fork) and self.readout is None:
            return f"the data set has no readout, which {need.protocol} needs as a judge"
        return ""

    def count(self, need: ProtocolOptions) -> int:
        """Forward passes that `run` would take."""
        items, reach = len(self.items), self.model.sigma_range
        match need:
            case NoiseSweep():
                return noise_sweep.count_passes(
                    self.settings.sweep,
                    need,
                    items,
                    sum(map(len, self.probe.values())),
                    len(noise_sweep.heads(self.model, self.items.factors)),
                    reach,
                    self._spread_heads(),
                )
            case UTurn():
                return u_turn.count_passes(self.settings.u_turn, items, reach, need, self._stated())
            case LabelFilter():
                chosen = label_filter.filtered(
                    self.model, self.items, self._filtered(), self.settings.label_filter
                ).values()
                values = sum(int((p > 0).sum()) for p in chosen)
                return label_filter.count_passes(self.settings.label_filter, items, values, reach, self._stated())
            case Fork():
                return fork.count_passes(self.settings.fork, items, reach, need, self._stated())
            case Trajectory():
                return trajectory.count_passes(
                    self.settings.trajectory, need, self._priors(), self.model, self.items, self.training
                )
            case Population():
                return 0
            case Channels():
                assert isinstance(self.model, ChannelModel)
                return channels.count_passes(self.model, need, self.settings.channels)
        raise BenchsuiteError(f"unknown protocol {need.protocol!r}")

    def _spread_heads(self) -> int:
        """Conditional passes per row that only an exact model on its own population makes."""
        if not (self.exact and isinstance(self.model, ExactModel)):
            return 0
        values = values_in_use(self.model, self.items.factors)
        if self._knows_spread():
            return 1 if values else 0
        return sum(map(len, values.values()))

    def _knows_spread(self) -> bool:
        """Whether the model, on its own population, states the spread of all heads in one pass."""
        states = isinstance(self.model, ExactModel) and type(self.model).head_spread is not ExactModel.head_spread
        return self.exact and states

    def _stated(self) -> bool:
        """Whether the model is the ideal of a data set not its own: its posterior answers for its paths."""
        return isinstance(self.model, ExactModel) and bool(self.unit.dataset)

    def _filtered(self) -> dict[str, Any]:
        """Priors of the factors that a label filter may run on: none where one pass gives the rate exactly."""
        return {} if self._knows_spread() else self._priors()

    def _priors(self) -> dict[str, Any]:
        return _prior(self.model, self.dataset)

    def seconds_per_pass(self) -> float:
        """Seconds of one row's forward pass in a full batch (or alone, where that is slow already), measured."""
        low, high = self.model.sigma_range
        sigma = math.sqrt(max(low, 1e-2) * min(high, 1e2))
        seconds = 0.0
        for rows in (1, 1, min(self.settings.batch, len(self.items))):  # the first one warms up
            x = self.items.x[:rows]
            started = time.perf_counter()
            self.model.denoise(x, x.new_full((rows,), sigma)).sum().item()  # waits for the device
            seconds = (time.perf_counter() - started) / rows
            if seconds > 0.5:
                break
        return seconds

    def run(self, need: ProtocolOptions, advance: Callable[[int], None], blocks: Blocks | None = None) -> Record:
        """Run a protocol, halving the batch while memory runs out; `blocks` keeps what is done meanwhile."""
        started = time.perf_counter()
        blocks = blocks or Blocks()
        batch = self.settings.batch
        while True:
            meter = Meter(advance)
            try:
                record = self._run(need, batch, meter, blocks)
                break
            except (torch.OutOfMemoryError, MemoryError):
                if batch == 1:
                    raise
                batch //= 2
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()
        record.meta |= {
            "factors": {f.name: f.size for f in self.dataset.factors},
            "entropy": self.entropy,
            "exact": self.exact,
            "seed": self.settings.seed,
            "forward_passes": meter.rows,
            "seconds": round(time.perf_counter() - started + blocks.seconds, 3),
            "batch": batch,
        }
        return record

    def _run(self, need: ProtocolOptions, batch: int, meter: Meter, blocks: Blocks) -> Record:
        common: dict[str, Any] = {
            "seed": self.settings.seed,
            "dataset": self.dataset.name,
            "batch": batch,
            "meter": meter,
        }
        if isinstance(need, NoiseSweep):
            return noise_sweep.noise_sweep(
                self.model, self.items, self.probe, need, self.settings.sweep, exact=self.exact, **common
            )
        if isinstance(need, LabelFilter):
            return label_filter.label_filter(
                self.model,
                self.items,
                self._filtered(),
                self.settings.label_filter,
                stated=self._stated(),
                **common,
            )
        if isinstance(need, Channels):
            assert isinstance(self.model, ChannelModel)
            return channels.channels(self.model, need, self.settings.channels, **common)
        if isinstance(need, Population):
            return population.population(self.model, self.dataset, batch=batch, device=self.device)
        if isinstance(need, Trajectory):
            return trajectory.trajectory(
                self.model,
                self.items,
                self.training,
                self.readout,
                self._priors(),
                need,
                self.settings.trajectory,
                **common,
            )
        assert self.readout is not None
        if isinstance(need, UTurn):
            return u_turn.u_turn(
                self.model,
                self.items,
                self.readout,
                self.settings.u_turn,
                request=need,
                blocks=blocks,
                stated=self._stated(),
                exact=self.exact,
                **common,
            )
        assert isinstance(need, Fork)
        return fork.fork(
            self.model,
            self.items,
            self.readout,
            self.settings.fork,
            request=need,
            train=self.training,
            stated=self._stated(),
            exact=self.exact,
            **common,
        )

    def origin(self, need: ProtocolOptions) -> dict[str, Any]:
        """Everything the record of `need` depends on."""
        if isinstance(need, Population):
            return self._population_origin()
        sections = {"noise_sweep": "sweep", "u_turn": "u_turn", "fork": "fork", "trajectory": "trajectory"}
        section = getattr(self.settings, sections.get(need.protocol, need.protocol))
        judged = self.readout is not None and not isinstance(need, NoiseSweep | LabelFilter)
        tapped = isinstance(need, NoiseSweep) and (need.taps or bool(need.tap_levels))
        started = isinstance(need, Trajectory) or (isinstance(need, Fork) and need.paths)
        forked = isinstance(need, Fork) and not (self._stated() and self.exact)
        used = self.settings.fork.items if forked else len(self.items)
        used = 0 if isinstance(need, Channels) else used  # they are sent items of their own
        return {
            "op": need.protocol,
            "request": asdict(need),
            "settings": asdict(section),
            "seed": self.settings.seed,
            "dtype": self.settings.dtype,
            "engine": engine_identity(),
            "model": {"fingerprint": self.model.fingerprint(), "code": class_identity(type(self.model))},
            "dataset": {"fingerprint": self.dataset.fingerprint(), "code": class_identity(type(self.dataset))},
            "exact": self.exact,
            "readout": self.readout.fingerprint() if judged and self.readout else None,
            "items": list(self.items.ids[:used]),
            "probe": {role: list(group.ids) for role, group in self.probe.items() if tapped},
            "training": list(self.training.ids) if started else [],
        }

    def _population_origin(self) -> dict[str, Any]:
        """What training items depend on: not on a model that takes the images of the data set as they are."""
        own = population.states_its_own(self.model)
        model = {"fingerprint": self.model.fingerprint(), "code": class_identity(type(self.model))}
        return {
            "op": "population",
            "engine": engine_identity(),
            "model": model if own else None,
            "training_data": self.model.training_data,
            "dtype": self.settings.dtype if own else None,
            "dataset": {"fingerprint": self.dataset.fingerprint(), "code": class_identity(type(self.dataset))},
        }

    def facts(self) -> dict[str, Any]:
        """What the unit's rows state about model, data and judge."""
        return {
            "model_fingerprint": self.model.fingerprint(),
            "dataset_fingerprint": self.dataset.fingerprint(),
            "readout_accuracy": dict(self.readout.accuracy) if self.readout else None,
            "n_items": len(self.items),
            "population": len(self.dataset.split("train")) if self.unit.oracle and self.unit.dataset else None,
            "enumerated": self.dataset.enumerated,
            **self.model.facts(),
        }


def check_fit(model: DiffusionModel, dataset: Dataset) -> None:
    """Refuse a data set whose images the model cannot take."""
    image = dataset.split("test").images[:1]
    if model.space == "pixels" and tuple(image.shape[1:]) != tuple(model.shape):
        message = f"{model.name} works on {tuple(model.shape)}, the data set has {tuple(image.shape[1:])}"
        if len(model.shape) == 3 and image.dim() == 4 and image.shape[1] != model.shape[0]:
            raise BenchsuiteError(f"wrong channel count: {message}")
        raise NotApplicableError(message)
    for name in ("train", "val", "test"):
        for factor, column in zip(dataset.factors, dataset.split(name).labels.T, strict=True):
            if len(column) and not (int(column.min()) >= 0 and int(column.max()) < factor.size):
                raise BenchsuiteError(
                    f"labels of factor {factor.name!r} must lie in 0..{factor.size - 1}, "
                    f"found {int(column.min())}..{int(column.max())} in split {name!r}"
                )


def _prior(model: DiffusionModel, dataset: Dataset) -> dict[str, Any]:
    """p(factor): stated by a model that is its own data, else frequencies in the training split."""
    if isinstance(dataset, OwnData):
        return {name: p.double().cpu().numpy() for name, p in dataset.model.prior().items()}
    labels = dataset.split("train").labels
    return {
        f.name: torch.bincount(labels[:, i], minlength=f.size).double().numpy() / len(labels)
        for i, f in enumerate(dataset.factors)
    }


def _joint_entropy(labels: torch.Tensor, everything: bool) -> float:
    """Entropy of all factors together, nats, from labels (N, F).

    Of a sample with the Miller–Madow correction; if they are `everything` there is, nothing is estimated.
    """
    if not labels.shape[1]:
        return 0.0
    counts = torch.unique(labels, dim=0, return_counts=True)[1].double()
    p = counts / counts.sum()
    missed = 0.0 if everything else float((len(counts) - 1) / (2 * counts.sum()))
    return float(-(p * p.log()).sum()) + missed


def _order(ids: tuple[str, ...], seed: int) -> list[int]:
    """Item indices in a fixed random order: the first n of it are a subset of the first n + 1."""
    return sorted(range(len(ids)), key=lambda i: (stream_key("order", seed, ids[i]), ids[i]))
