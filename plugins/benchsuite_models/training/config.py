"""What a training recipe is made of: small frozen values, written as they are beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Optimisation:
    """One run of AdamW with warm-up, cosine decay to zero, clipping and an exponential moving average.

    From the restart at step `muon` on, matrices are left to Muon (`benchsuite_models.training.optimiser`).
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    warm_up: int = 100  #: steps
    clip: float = 1.0  #: largest gradient norm
    ema: float = 0.999  #: decay per step, reached by a ramp
    checkpoint_every: int = 200  #: steps
    snapshots: tuple[int, ...] = ()  #: steps after which the model is kept as it is then
    #: steps at which optimiser and cosine begin anew (arXiv:1608.03983), from the moving average
    restarts: tuple[int, ...] = ()
    muon: int | None = None  #: 0 or one of `restarts`

    def __post_init__(self) -> None:
        if self.muon not in (None, 0, *self.restarts):
            raise ValueError(f"muon={self.muon} is neither 0 nor one of the restarts {self.restarts}")


@dataclass(frozen=True)
class UNet:
    """Shape of a UNet2DModel: one resolution per width, attention at every resolution but the first."""

    widths: tuple[int, ...]
    layers: int = 1
    groups: int = 8  #: of the group norms
    head: int = 16  #: width of an attention head
    attention_first: bool = False  #: attention at the first resolution too
    summed_factors: bool = False  #: one embedding table per factor instead of one for their product


@dataclass(frozen=True)
class Noise:
    """Which noise levels are trained: half uniform in log-SNR on [low, high], half normal around `centre`.

    The squared error of the noise is weighted by (1 + sigma²)^weight: 0 is the simple loss of the DDPM paper,
    1 the error of v (arXiv:2202.00512), which asks for the same accuracy of the image at every level. In terms of
    the image's error the latter weight is 1 + 1 / sigma²; `cap` holds that (times what `weight` makes of it) down,
    lest a network that predicts the image does nothing but copy at high SNR (min-SNR, arXiv:2303.09556).
    """

    low: float
    high: float
    centre: float = 0.0
    width: float = 2.0
    weight: float = 0.0
    cap: float | None = None


@dataclass(frozen=True)
class Blend:
    """Every second item of a batch is on its way to a partner, which differs in one factor.

    Sampling passes through what no image of the data shows, such as half a grain, and a network that has learned
    to copy at high SNR leaves it there: exposure bias, against which arXiv:2301.11706 perturbs the input.
    Posterior means are the right targets at any input, so here it may lie anywhere between two items; and they are
    known, not sampled, so that weighing some directions of the error more does not move the minimum.
    """

    factors: tuple[str, ...]  #: partners differ in one of these, drawn anew each step
    low: float  #: blended items are noised to log-SNRs uniform on [low, high]
    high: float
    emphasis: float = 0.0  #: error along the way to the partner counts 1 + this times, also of items that stay


@dataclass(frozen=True)
class Pairs:
    """Steps of two heads: one is told nothing, the other one value of a factor that may still be open.

    A sample drawn without labels takes its decisions by what the head that is told nothing infers, which is the
    harder the less of a factor is seen. Here it gets half of the batch, at the levels where that matters, and the
    error of the difference between both heads counts `contrast` times besides each one's.
    """

    share: float  #: of the steps of the stage
    centre: float  #: log-SNRs are normal around it …
    width: float  #: … with this standard deviation
    contrast: float = 0.0


@dataclass(frozen=True)
class Stage:
    """What is learned differently from a step on, until the next stage.

    With `contrast`, what two heads differ by is learned for its own sake. Their difference is what measures
    information, and a small part of the squared error: rooms of which nothing is known but the shape differ by a
    shadow of it, averaged over all hues. Two draws from the exact posterior at the noised item are told apart:
    either's value of a factor in which they differ is told to a head of its own, and the error of the difference
    between both heads counts `contrast` times besides each one's.
    """

    start: int  #: its first step
    noise: Noise | None = None  #: levels of its own
    blends: tuple[Blend | None, ...] = ()  #: one of them at each step, each as often; None blends nothing
    contrast: float | None = None
    apart: tuple[str, ...] = ()  #: factors by which the two draws are told the more often
    pairs: Pairs | None = None  #: instead of what else the stage teaches, at its share of the steps


@dataclass(frozen=True)
class Autoencoder:
    """Shape and objective of an AutoencoderKL: mean squared error + `kl` times the divergence per pixel.

    What an image is within its folded blocks (its pixels less the mean of their block) counts 1 + `detail` times:
    fine grain is a small part of the squared error and the last that it teaches.
    """

    widths: tuple[int, ...]
    latent_channels: int
    layers: int
    groups: int
    kl: float
    optimisation: Optimisation
    detail: float = 0.0


@dataclass(frozen=True)
class DiffusionRecipe:
    """Everything that decides a trained model, but data, seed and versions."""

    family: Literal["ddpm", "score-sde", "latent-diffusion"]
    dataset: str  #: command-line spec
    unet: UNet
    noise: Noise
    optimisation: Optimisation
    autoencoder: Autoencoder | None = None
    patch: int = 1  #: the network that sees the images sees patch x patch blocks folded into channels
    #: what the network returns; a score network knows "score" and "denoised", the others the rest
    prediction: Literal["epsilon", "v_prediction", "sample", "score", "denoised"] = "epsilon"
    #: what the network is taught: the item that was noised, or the mean of all training items that may have been
    #: (stable targets, arXiv:2302.00670, with the whole training set as reference batch). Both losses have the
    #: same minimum; the second does not sample it.
    targets: Literal["item", "posterior"] = "item"
    stages: tuple[Stage, ...] = ()  #: in their order

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.stages]
        if starts != sorted(starts):
            raise ValueError(f"stages start at {starts}: put them in order")
        if self.targets != "posterior" and any(
            s.blends or s.contrast is not None or s.pairs is not None for s in self.stages
        ):
            raise ValueError(
                "what blends or contrasts has no targets but the posterior's: set targets to 'posterior'"
            )

    def stage(self, step: int) -> Stage:
        """What is learned at `step`."""
        reached = [stage for stage in self.stages if stage.start <= step]
        return reached[-1] if reached else Stage(0)
