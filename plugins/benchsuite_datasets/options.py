"""Hyperparameters of a readout's training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingOptions:
    """Hyperparameters of one readout. Noise and shifts make it robust to what samplers leave behind."""

    widths: tuple[int, ...]  #: channels of each stage
    hidden: int = 128
    steps: int = 2000
    batch: int = 64
    learning_rate: float = 2e-3  #: peak, after a linear warm-up (10 %) and before a cosine decay to 0
    weight_decay: float = 1e-2
    shift: int = 1  #: images are moved by up to this many pixels, the border filled with -1
    flip: bool = False  #: mirror half of the images left to right
    noise: float = 0.1  #: Gaussian noise, its standard deviation drawn from [0, noise] per image
    evaluate_every: int = 100  #: steps between validations; the best one (in nats) is kept
