"""Training recipes of the readouts: `benchsuite train digits-readout --out DIR`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from benchsuite import Dataset, Recipe, Track, UsageError
from benchsuite_datasets.mnist import SIDE
from benchsuite_datasets.options import TrainingOptions

WIDTHS = (24, 48, 96, 128, 128)  # channels of the stages of a readout for images of any size


class ReadoutRecipe(Recipe):
    """A readout of one data set; a subclass states the data and the hyperparameters."""

    options: ClassVar[TrainingOptions]
    crop: ClassVar[int | None] = None  #: side of the centre that the network looks at

    spec: str  #: of the data set to learn
    source = ""  #: where the data come from, in words

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
        """See `benchsuite_datasets.training.train_readout`."""
        from benchsuite_datasets.training import train_readout

        dataset = datasets(self.spec)
        dataset.load()
        options = self.hyperparameters(dataset)
        record = train_readout(
            dataset,
            out,
            options if steps is None else replace(options, steps=steps),
            name=f"{dataset.name}-cnn",
            source=self.source,
            crop=self.crop,
            device=device,
            seed=seed,
            track=track,
        )
        return {key: record[key] for key in ("accuracy", "nats", "confidence", "seconds")}

    def hyperparameters(self, dataset: Dataset) -> TrainingOptions:
        """What to train `dataset` (loaded) with."""
        return self.options


class DigitsReadout(ReadoutRecipe):
    """The readout of `digits` that ships with the package."""

    name = "digits-readout"
    summary = "classifier of the scikit-learn digits (half a minute of CPU)"
    options = TrainingOptions(widths=(32, 64))
    spec = "digits"
    source = "scikit-learn's load_digits"


class IdxReadout(ReadoutRecipe):
    """A readout of a data set in IDX files; it looks at the central 28 x 28, whatever the padding.

    Args:
        directory: where the files are; by default where the data set looks itself.
        source: where they come from, in words, for the record.
    """

    crop = SIDE
    dataset_name: ClassVar[str]

    def __init__(self, directory: str = "", source: str = "") -> None:
        self.spec = f"{self.dataset_name}:{directory}" if directory else self.dataset_name
        self.source = source or directory


class MNISTReadout(IdxReadout):
    """The readout of `mnist`."""

    name = "mnist-readout"
    summary = "classifier of MNIST (a few minutes of CPU)"
    dataset_name = "mnist"
    options = TrainingOptions(widths=(24, 48, 96), steps=1500, batch=128, shift=2)


class FashionMNISTReadout(IdxReadout):
    """The readout of `fashion-mnist`: class and garment."""

    name = "fashion-mnist-readout"
    summary = "classifier of Fashion-MNIST, two heads (a few minutes of CPU)"
    dataset_name = "fashion-mnist"
    options = TrainingOptions(widths=(24, 48, 96), steps=3400, batch=128, flip=True, evaluate_every=200)


class ShapesReadout(ReadoutRecipe):
    """The readout of `shapes` as it is by default: seven heads on one network.

    It learns the whole population, which includes "val" and "test": these seven factors have no other images.
    What it has to cope with beyond them is what samplers get wrong, for which noise stands in.
    """

    name = "shapes-readout"
    summary = "classifier of shapes, all seven factors (a few minutes of CPU)"
    options = TrainingOptions(widths=(24, 32, 64), steps=2400, shift=0, noise=0.15, evaluate_every=200)
    spec = "shapes"
    source = "rendered"


class ImageReadout(ReadoutRecipe):
    """A readout of any data set: ``benchsuite train image-readout:image-folder:PATH --out DIR``.

    Then ``image-folder:PATH,readout=DIR`` uses it. Train it at the size and colour of the images that it will
    judge.

    Args:
        dataset: spec of the data set; write its options after ``;`` ("image-folder:PATH;size=32").
        batch: images per step.
        shift: largest displacement in pixels.
        flip: mirror half of the images left to right.
    """

    name = "image-readout"
    summary = "classifier of any data set: image-readout:DATASET"

    def __init__(self, dataset: str = "", batch: int = 64, shift: int = 2, flip: bool = False) -> None:
        if not dataset:
            raise UsageError(f"{self.name} needs a data set: {self.name}:DATASET")
        self.spec = self.source = dataset.replace(";", ",")
        self.batch, self.shift, self.flip = batch, shift, flip

    def hyperparameters(self, dataset: Dataset) -> TrainingOptions:
        """As many stages as bring the shorter side down to about 4 pixels."""
        if len(dataset.shape) != 3 or min(dataset.shape[1:]) < 4:
            raise UsageError(f"{self.name}: {dataset.name} has items {dataset.shape}, not images of side >= 4")
        stages = min(max(int(math.log2(min(dataset.shape[1:]) / 4)), 2), len(WIDTHS))
        return TrainingOptions(
            widths=WIDTHS[:stages], steps=2000, batch=self.batch, shift=self.shift, flip=self.flip
        )
