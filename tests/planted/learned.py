"""Models with a network and a clock of their own, wrong in one place: what an adapter gets wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from benchsuite_models.exact_mixture import ExactMixture
from torch import nn
from toys import DrawnData

from benchsuite import Dataset, DiffusionModel, Factor, UsageError
from planted import Bug

MEANS = torch.tensor([[1.0, 0.5, -0.5, -1.0], [-1.0, 0.5, 1.0, -0.5], [0.2, -1.0, -0.6, 1.0]])
STD = 0.25
STEPS = 400


def drawn() -> Dataset:
    """What the network below was "trained" on: three Gaussians, about as often each."""
    data = DrawnData(ExactMixture(MEANS.numpy(), covariances=STD**2), test=200)
    data.load()
    return data


class Net(nn.Module):
    """Predicts the noise of a variance-preserving process exactly, for a mixture whose means are its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(MEANS.clone())
        self.gate = nn.Identity()

    def forward(self, state: torch.Tensor, sigma: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """State x / sqrt(1 + sigma²) (B, d), sigma (B, 1), label (B,) with 3 = null: eps (B, d)."""
        x = state * (1 + sigma**2).sqrt()
        variance = STD**2 + sigma**2
        # in double: at the noisy end the logits are small differences of large numbers
        logits = -torch.cdist(x.double(), self.means.double()).square() / (2 * variance.double())
        others = (torch.arange(len(self.means)) != label[:, None]) & (label[:, None] < len(self.means))
        p = self.gate(logits.masked_fill(others, -float("inf")).softmax(dim=1).to(x.dtype))
        centre = p @ self.means.to(x.dtype)
        return sigma * (x - centre) / variance


class Healthy(DiffusionModel):
    """An adapter with a table of `STEPS` noise levels, like DDPM's: the correct counterpart of what follows."""

    name = "adapter"
    family = "toy"

    def __init__(self) -> None:
        self.factors = (Factor("class", ("0", "1", "2")),)
        self.shape, self.taps = (4,), ("gate",)
        self.table = torch.from_numpy(np.geomspace(0.01, 150, STEPS))  # sigma of step t
        self.sigma_range = (0.01, 150.0)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        self.network = Net().eval()

    def step(self, sigma: torch.Tensor) -> torch.Tensor:
        """Index of the nearest step, (B,)."""
        return (self.table.log() - sigma.double().log()[:, None]).abs().argmin(dim=1)

    def state(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """What the variance-preserving network calls x."""
        return x / (1 + sigma**2).sqrt()

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        label = torch.full((len(x),), -1) if labels is None else labels[:, 0]
        if bool(((label < -1) | (label > 2)).any()):
            raise UsageError(f"label {label.tolist()} of factor 'class' is outside 0 … 2 (-1 = null)")
        label = torch.where(label < 0, 3, label)
        level = self.table[self.step(sigma)].to(x.dtype)[:, None]
        assert self.network is not None
        eps: torch.Tensor = self.network(self.state(x, sigma[:, None]), level, label)
        return x - sigma[:, None] * eps

    def native_time(self, log_snr: Any) -> Any:
        sigma = torch.from_numpy(np.exp(-np.asarray(log_snr) / 2))
        return self.step(sigma).double().numpy() / (STEPS - 1)


class ReversedTable(Healthy):
    """The scheduler's table is read from the other end."""

    def step(self, sigma: torch.Tensor) -> torch.Tensor:
        return STEPS - 1 - super().step(sigma)

    def native_time(self, log_snr: Any) -> Any:
        return 1 - super().native_time(log_snr)


class ClockReversed(Healthy):
    """t / T counts up towards the clean end, as some repositories do."""

    def native_time(self, log_snr: Any) -> Any:
        return 1 - super().native_time(log_snr)


class Unscaled(Healthy):
    """x goes into the network in our coordinates, not in the process's own."""

    def state(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x


class NoiseAsScore(Healthy):
    """x + sigma² eps: the network's noise prediction is taken for a score."""

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        eps = (x - super().denoise(x, sigma, labels)) / sigma[:, None]
        return x + sigma[:, None] ** 2 * eps


class TapMisspelt(Healthy):
    """A tap that the network does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = ("gates",)


class TapUnused(Healthy):
    """A tap that takes no part in the forward pass."""

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        super().load(device, dtype)
        assert self.network is not None
        self.network.spare = nn.Identity()
        self.taps = ("gate", "spare")


class FingerprintOfTheName(Healthy):
    """Two checkpoints of one architecture are the same model to the store."""

    def fingerprint(self) -> str:
        return "adapter-v1"


class EncodedOneWay(Healthy):
    """Scales images to its own range and does not scale them back."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images * 1.1


class NoSuchWeights(Healthy):
    """Looks for its weights where nobody put them."""

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        raise FileNotFoundError("weights/model.safetensors")


LEARNED_BUGS: dict[str, Bug] = {
    cls.__name__: Bug(cls, caught_by, also, tuple(marginal))
    for cls, caught_by, also, *marginal in [
        (ReversedTable, "noise-level", ("low-snr-limit",), "denoises"),
        (ClockReversed, "native-time", ()),
        (Unscaled, "denoises", ("low-snr-limit", "noise-level")),
        (NoiseAsScore, "low-snr-limit", ("denoises", "noise-level")),
        (TapMisspelt, "taps-exist", ()),
        (TapUnused, "taps-exist", ()),
        (FingerprintOfTheName, "fingerprint", ()),
        (EncodedOneWay, "codec", ()),
        (NoSuchWeights, "loads", ()),
    ]
}
