"""A diffusion model read as a denoiser over sigma, and one whose answers are known."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from benchsuite.contracts.data import Dataset, Factor, FloatArray, Split

if TYPE_CHECKING:
    import torch


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

    def joint_information(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor | None:
        """H(all factors together) - H(all factors together | x) in nats, (B,): its mean is their joint I.

        None (the default) where it is not known: together they may have too many values to list them.
        x (B, *shape), sigma (B,).
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
