"""The case that metrics are checked on: a small Gaussian mixture, written here so that the kit needs no plugin."""

from __future__ import annotations

import torch

from benchsuite.channels import ChannelModel, NoiseChannel, Passage
from benchsuite.contracts import Factor, fingerprint_state
from benchsuite.errors import UsageError
from benchsuite.noise import sigma_from_log_snr
from benchsuite.randomness import normal, uniform

#: transition of the class near log-SNR 0
SCALE, STD, DUMMY = 1.5, 0.3, 2
WEIGHTS = (0.3, 0.3, 0.2, 0.2)


class ReferenceMixture(ChannelModel):
    """Four Gaussians at the corners of a simplex, x (4,), with unequal weights.

    Factors: ``class``, which corner; ``dummy``, a coin tossed independently of x, about which nothing can be
    known. Besides Gaussian noise, x may be erased; then its class is as good as its prior.
    """

    name = "reference-mixture"
    own_data = True

    def __init__(self) -> None:
        size = len(WEIGHTS)
        self.shape, self.sigma_range = (size,), (1e-3, 1e4)
        self.factors = (
            Factor("class", tuple(str(k) for k in range(size))),
            Factor("dummy", tuple(str(k) for k in range(DUMMY))),
        )
        self._means = SCALE * torch.eye(size, dtype=torch.float64)
        self._weights = torch.tensor(WEIGHTS, dtype=torch.float64)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Move to `device`; the arithmetic is float64."""
        self._means, self._weights = self._means.to(device), self._weights.to(device)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """See `DiffusionModel.denoise`."""
        shrink = STD**2 / (STD**2 + sigma.double()[:, None] ** 2)
        centre = self._p(x, sigma, labels) @ self._means
        return (centre + shrink * (x.double() - centre)).to(x.dtype)

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `ExactModel.posterior`."""
        p = self._p(x, sigma, None)
        return {"class": p.to(x.dtype), "dummy": x.new_full((len(x), DUMMY), 1 / DUMMY)}

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """See `ExactModel.sample_posterior`."""
        ratio = STD**2 / (STD**2 + sigma.double()[:, None] ** 2)
        k = torch.multinomial(self._p(x, sigma, None), 1, generator=generator)[:, 0]
        z = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        centre = self._means[k] + ratio * (x.double() - self._means[k])
        return (centre + sigma.double()[:, None] * ratio.sqrt() * z).to(x.dtype)

    def channels(self) -> tuple[NoiseChannel, ...]:
        """Gaussian noise, and erasure of all of x."""
        return NoiseChannel("gaussian", "log_snr", -6.0, 5.0), NoiseChannel("erasure", "erased fraction")

    def send(
        self, channel: str, level: float, x: torch.Tensor, keys: torch.Tensor, copies: bool = False
    ) -> Passage:
        """See `ChannelModel.send`; the positions of a copy are the indicators of its corner."""
        rows = x.repeat_interleave(keys.shape[1], dim=0).double()
        streams = keys.flatten()
        if channel == "gaussian":
            sigma = float(sigma_from_log_snr(level))
            p = self._p(rows + sigma * normal(streams, 0, self.shape), rows.new_full((len(rows),), sigma), None)
        else:
            erased = uniform(streams, 0, (1,)) < level
            p = torch.where(erased, self._weights, self._p(rows, rows.new_full((len(rows),), 1e-3), None))
        corner = (rows @ self._means.T).argmax(1, keepdim=True)
        size = (len(x), keys.shape[1])
        kept = {"class": p.gather(1, corner).reshape(size), "dummy": p.new_full(size, 1 / DUMMY)}
        drawn = (p.cumsum(1) < uniform(streams, 1, (1,))).sum(1, keepdim=True).clamp_max(len(WEIGHTS) - 1)
        corners = torch.arange(len(WEIGHTS))
        changed = ((drawn == corners) != (corner == corners)).reshape(*size, -1)
        return Passage(kept, changed if copies else None)

    def features(self, x0: torch.Tensor) -> dict[str, torch.Tensor]:
        """The point itself, then which corner it belongs to."""
        return {"data": x0, "class": self._p(x0, x0.new_full((len(x0),), self.sigma_range[0]), None)}

    def prior(self) -> dict[str, torch.Tensor]:
        """See `ExactModel.prior`."""
        return {"class": self._weights, "dummy": self._weights.new_full((DUMMY,), 1 / DUMMY)}

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """See `ExactModel.sample`."""
        k = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        coin = torch.randint(DUMMY, (n,), generator=generator)
        x0 = self._means[k] + STD * torch.randn(n, *self.shape, dtype=torch.float64, generator=generator)
        return x0.float(), torch.stack([k, coin], dim=1)

    def fingerprint(self) -> str:
        """Digest of means, weights and width."""
        return fingerprint_state({"means": self._means, "weights": self._weights, "std": STD})

    def _p(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        """p(corner | x, labels): (B, 4) float64."""
        variance = STD**2 + sigma.double()[:, None] ** 2
        logits = self._weights.log() - torch.cdist(x.double(), self._means).square() / (2 * variance)
        if labels is not None:
            sizes = torch.tensor([len(self._weights), DUMMY], device=x.device)
            if bool(((labels < -1) | (labels >= sizes)).any()):
                raise UsageError(f"{self.name}: labels {labels.tolist()} leave -1 … {(sizes - 1).tolist()}")
            other = torch.arange(len(self._weights), device=x.device) != labels[:, :1]
            logits = logits.masked_fill(other & (labels[:, :1] >= 0), -float("inf"))
        return logits.softmax(1)
