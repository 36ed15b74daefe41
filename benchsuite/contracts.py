"""What a plugin promises and what the engine gives it. This module imports nothing of ours but errors.

Coordinates everywhere: variance-exploding, ``x = x0 + sigma * noise`` with pixels in [-1, 1] (or a latent
model's scaled latents), and ``log_snr = -2 ln sigma`` as the one clock. Native time (``t/T``) is a view.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Factor:
    """One labelled property of the data (``class``, ``hue``, a hierarchy level) and its values' names."""

    name: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of values K; labels are 0 … K-1."""
        return len(self.values)


# ------------------------------------------------------------------------------------------- models


@runtime_checkable
class Codec(Protocol):
    """A map between images and the space a model works in; identity for pixel models."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one encoded item."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, *image_shape) in [-1, 1] => (B, *shape)."""

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, *shape) => images (B, *image_shape) in [-1, 1]."""


class DiffusionModel(ABC):
    """A diffusion model read as a denoiser over sigma.

    Class constants can be read without building anything. A model is configured by its constructor's keyword
    arguments (the command line's ``name:key=value,…`` and, for the first one, ``name:value``), then `bind` is
    called with the data set, then `load`. Instance attributes that must be set when `load` returns:
    ``shape``, ``sigma_range``, ``factors``, ``taps``, ``network``.
    """

    name: ClassVar[str]
    family: ClassVar[str]  #: "ddpm", "score-sde", "latent-diffusion", "exact", …
    paper: ClassVar[str] = ""  #: arXiv id or DOI
    version: ClassVar[str] = "1"  #: raise it when the same weights would give another `denoise`
    exact: ClassVar[bool] = False  #: answers are known, see `ExactModel`
    oracle: ClassVar[bool] = False  #: the ideal on whatever data set it is bound to: the reference row
    own_data: ClassVar[bool] = False  #: an exact model that is its own data set (it implements `sample`)
    space: ClassVar[Literal["pixels", "latents"]] = "pixels"
    #: names that the first option takes for published weights; str() of a value says what they stand for
    presets: ClassVar[Mapping[str, Any]] = {}

    shape: tuple[int, ...]  #: of one x
    sigma_range: tuple[float, float]  #: noise levels the model accepts, in our coordinates
    factors: tuple[Factor, ...] = ()  #: what it can be conditioned on, in the order of the label columns
    taps: tuple[str, ...] = ()  #: default dotted paths of modules in `network` worth recording
    network: torch.nn.Module | None = None  #: its modules are tapped in the same forward pass as `denoise`
    #: name of the data set whose split "train" it was trained on, after `load`; None = unknown
    training_data: str | None = None

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:  # noqa: B027 - optional hook
        """See the data set (and the space, if not pixels) to be measured on; called before `load`.

        Raise NotApplicableError with the reason if the two cannot go together. Most models need nothing.
        """

    @abstractmethod
    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Read weights and put them on `device`. Raise ModelLoadError naming the file and the values."""

    @abstractmethod
    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """Posterior mean E[x0 | x0 + sigma n = x].

        Args:
            x: (B, *shape), variance-exploding coordinates.
            sigma: (B,), within `sigma_range`.
            labels: (B, len(factors)) int64, -1 = null for that factor; None = all null (unconditional).

        Returns:
            (B, *shape), same dtype and device as `x`; `x` is not modified.
        """

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) in [-1, 1] => (B, *shape); the identity for pixel models."""
        return images

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """(B, *shape) => images (B, C, H, W) in [-1, 1]; the identity for pixel models."""
        return x

    def training_points(self) -> Split | None:
        """What it was trained on or made of, if it holds that itself: `images` are x (N, *shape). After `load`.

        None for models that do not; what is known of theirs is `training_data`.
        """
        return None

    def facts(self) -> dict[str, Any]:
        """JSON-able facts about the loaded model that its rows should state in `extra`; by default none."""
        return {}

    def native_time(self, log_snr: FloatArray) -> FloatArray | None:
        """The model's own clock t/T in [0, 1] (1 = noise) at `log_snr` (T,); None if it has none."""
        return None

    def fingerprint(self) -> str:
        """Hex digest of everything `denoise` depends on; by default the weights of `network`. After `load`."""
        return fingerprint_state(self.network.state_dict() if self.network is not None else {})


class ExactModel(DiffusionModel):
    """A model whose posterior is known in closed form: the ground truth that calibrates every metric."""

    family = "exact"
    exact = True
    cases: ClassVar[tuple[str, ...]] = ("",)  #: option strings worth calibrating metrics on

    @abstractmethod
    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """p(factor | x) as {factor name: (B, K)}, rows sum to 1; x (B, *shape), sigma (B,)."""

    @abstractmethod
    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """One exact draw x0 ~ p(x0 | x) per row: (B, *shape). The perfect reverse process in one shot."""

    def head_spread(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """sum_k p(k | x) ‖D(x | k) - D(x)‖² as {factor name: (B,)}, by a way shorter than one head per value.

        None (the default) has the noise sweep ask every conditional head. x (B, *shape), sigma (B,).
        """
        return None

    def prior(self) -> dict[str, torch.Tensor]:
        """p(factor) as {factor name: (K,)}."""
        raise NotImplementedError(f"{self.name} does not state its prior")

    def features(self, x0: torch.Tensor) -> dict[str, torch.Tensor]:
        """Layers of abstraction of clean items, shallow to deep, as in `Readout.features`; by default the data."""
        return {"data": x0}

    def positions(self, x0: torch.Tensor) -> torch.Tensor | None:
        """Positions of clean items as in `Readout.positions`; by default every coordinate is one."""
        return x0.flatten(1)

    def position_distances(self) -> FloatArray | None:
        """Distances (P, P) between the positions; None if they have no geometry."""
        return None

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`n` draws from the model: x0 (n, *shape) and labels (n, len(factors)) int64."""
        raise NotImplementedError(f"{self.name} cannot be sampled without data")


# --------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Split:
    """Part of a data set. Item ids are stable, so that noise and bootstrap belong to the item."""

    images: torch.Tensor  #: (N, *shape) float32 in [-1, 1]
    labels: torch.Tensor  #: (N, F) int64, one column per factor
    ids: tuple[str, ...]  #: N unique names

    def __len__(self) -> int:
        return len(self.ids)


class Readout(ABC):
    """The frozen judge of a data set: maps images to factor probabilities and hidden features."""

    name: str
    exact: bool = False  #: probabilities are the exact posterior p(factor | x0), not a classifier's opinion
    accuracy: Mapping[str, float]  #: factor -> accuracy on the held-out split, in [0, 1]

    @abstractmethod
    def to(self, device: str) -> Readout:
        """Move to `device` and return self."""

    @abstractmethod
    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, *shape) in [-1, 1] => {factor: (B, K)}, rows sum to 1."""

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Hidden layers from shallow to deep, {layer: (B, C) or (B, C, …)}, channels on axis 1.

        Empty if there are none. What follows the channels are places that share their statistics.
        """
        return {}

    def positions(self, images: torch.Tensor) -> torch.Tensor | None:
        """What stands at each of P positions of an image, so that changes can be correlated; None if nothing.

        Integers (B, P): tokens, which change or not. Floats (B, P): a scalar field, whose change is a
        difference. Floats (B, P, E): embeddings (of patches), whose change is ‖difference‖ / √E.
        """
        return None

    def position_distances(self) -> FloatArray | None:
        """Distances (P, P) between the positions; None if they have no geometry."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the judge's weights."""


class Dataset(ABC):
    """Images with labelled factors, fixed splits ("train", "val", "test") and a readout."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    enumerated: ClassVar[bool] = False  #: the images are the whole population, so its oracle is the truth

    factors: tuple[Factor, ...]  #: after `load`
    shape: tuple[int, ...]  #: (C, H, W), after `load`

    @abstractmethod
    def load(self) -> None:
        """Read the data. Raise MissingDataError saying where it looked and the command that fetches them."""

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split called "train", "val" or "test"; always the same items in the same order."""

    def readout(self) -> Readout | None:
        """The frozen judge, or None if there is none (then U-turn metrics do not apply)."""
        return None

    def fingerprint(self) -> str:
        """Hex digest of images, labels and splits."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("train", "val", "test"):
            part = self.split(name)
            digest.update(f"{name}:{len(part)}:{tuple(part.images.shape)}".encode())
            digest.update(part.images.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


# -------------------------------------------------------------------------- protocols and records

P = TypeVar("P", bound="ProtocolOptions")


@dataclass(frozen=True)
class ProtocolOptions:
    """What a metric asks of one protocol. Requests are united: booleans by or, numbers by max, names by union."""

    protocol: ClassVar[str]

    def union(self: P, other: P) -> P:
        """The smallest request that satisfies both."""
        merged: dict[str, Any] = {}
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if isinstance(mine, bool):
                merged[f.name] = mine or theirs
            elif isinstance(mine, tuple):
                merged[f.name] = tuple(dict.fromkeys(mine + theirs))
            else:
                merged[f.name] = max(mine, theirs)
        return replace(self, **merged)


@dataclass(frozen=True)
class NoiseSweep(ProtocolOptions):
    """Ask for a noise sweep: one forward pass per (image, noise, level)."""

    protocol: ClassVar[str] = "noise_sweep"
    heads: bool = False  #: squared errors of the unconditional and the conditional heads
    taps: bool = False  #: pooled activations, for items of the probe's splits too
    tap_levels: tuple[float, ...] = ()  #: log_snr at which activations are kept too, wherever the grid is
    layers: bool = False  #: taps on every convolution and linear layer too, except those of embeddings


@dataclass(frozen=True)
class UTurn(ProtocolOptions):
    """Ask for U-turns: noise to sigma, reverse SDE back to 0, judge what comes out."""

    protocol: ClassVar[str] = "u_turn"
    features: bool = False  #: how similar the judge's hidden layers stay, see `Readout.features`
    positions: bool = False  #: how much every position changes, see `Readout.positions`


@dataclass(frozen=True)
class LabelFilter(ProtocolOptions):
    """Ask what all conditional heads conclude about an item along its own path to the clean image."""

    protocol: ClassVar[str] = "label_filter"


@dataclass(frozen=True)
class Fork(ProtocolOptions):
    """Ask for forks: k independent continuations from one noised image."""

    protocol: ClassVar[str] = "fork"
    paths: bool = False  #: fork the model's own generative paths too


@dataclass(frozen=True)
class Trajectory(ProtocolOptions):
    """Ask for reverse paths from the model's prior: x and D(x) at the recorded levels, and where they end."""

    protocol: ClassVar[str] = "trajectory"
    conditional: bool = False  #: the filter of every factor along the paths, from all of its conditional heads
    errors: bool = False  #: denoising errors of training and evaluated items at the recorded levels


@dataclass(frozen=True)
class Population(ProtocolOptions):
    """Ask for the model's training items in its own space; not applicable to models whose are unknown."""

    protocol: ClassVar[str] = "population"


@dataclass
class Record:
    """What a protocol leaves behind: named arrays and JSON-able facts. Metrics read records, never models.

    The arrays of each protocol are documented in `benchsuite.protocols`.
    """

    protocol: str
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.arrays[name]
        except KeyError:
            raise KeyError(f"{self.protocol} record has no {name!r}; it has {sorted(self.arrays)}") from None

    def factor_size(self, factor: str) -> int:
        """Number of values of `factor`."""
        return int(self.meta["factors"][factor])


# ------------------------------------------------------------------------------------------ metrics


@dataclass(frozen=True)
class Curve:
    """One quantity against log_snr for one factor, as one value per item so that statistics live in one place.

    `floor` and `ceiling` are the values that mean "not fixed at all" and "entirely fixed"; onsets are where the
    curve passes a fraction of the way between them (for information: 0 and H, never the curve's own maximum).
    """

    factor: str  #: "" if it is about no factor in particular
    log_snr: FloatArray  #: (T,), ascending
    per_item: FloatArray  #: (N, T); the curve is the mean over items
    items: tuple[str, ...]  #: (N,) ids; repeated ids are noise draws of one item and are resampled together
    unit: str
    floor: float = 0.0
    ceiling: float = 1.0
    variant: str = ""  #: "" is the published curve; a name marks a diagnostic beside it
    tap: str | None = None
    #: what the levels measure: "log_snr"; for variants also the name of a loss from 0 (nothing) to 1 (everything)
    axis: str = "log_snr"
    beside: str | None = None  #: variant in whose panel this curve is drawn, as a theory of it; None = its own
    flags: tuple[str, ...] = ()  #: warnings that belong to the number
    #: JSON-able facts for the row; "columns", {heading: number or {"value", "low", "high"}}, are put in a table
    extra: Mapping[str, Any] = field(default_factory=dict)


class Metric(ABC):
    """Turns records into curves. It declares what it needs and sees nothing else."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"  #: raise it when the same record would give another number
    paper: ClassVar[str] = ""
    unit: ClassVar[str]
    bounds: ClassVar[tuple[float, float]]  #: of the published value; infinities allowed
    needs: tuple[ProtocolOptions, ...]  #: stated by the class; options of the constructor may ask for more
    onset: ClassVar[bool] = True  #: log_snr_50 and width of the published curve are meaningful
    #: the signed integral of the curve's distance from the oracle's means something in itself (`unit` × log-SNR)
    excess: ClassVar[bool] = False
    per_factor: ClassVar[bool] = True  #: False: its curves are about the items as a whole, with factor ""
    tolerance: ClassVar[float] = 0.03  #: largest bias on exact models, in `unit`; `calibrate` holds it to that

    #: the curve tends to its truth from below and its interval is about the bound, not about the truth
    lower_bound: ClassVar[bool] = False

    @abstractmethod
    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Curves from {protocol name: record}; raise NotApplicableError with the reason if it cannot.

        Records are read-only. Randomness, if any, must come from `Record.meta["seed"]`.
        """

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float | None:
        """What the published curve tends to on a perfect model, from the exact posterior at one level.

        Args:
            posterior: (N, K) rows p(factor | x) for x drawn from the model.
            prior: (K,) p(factor).

        Returns:
            The expected value in `unit`; None if the posterior does not determine it (then the metric cannot
            be calibrated this way).
        """
        return None


# ------------------------------------------------------------------------------------------ recipes

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


# ------------------------------------------------------------------------------------------ helpers


def fingerprint_state(state: Mapping[str, Any]) -> str:
    """Hex digest of named tensors (values, shapes and dtypes), independent of device and of order."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        value = state[name]
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().contiguous()
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name}:{value!r}".encode())
    return digest.hexdigest()
