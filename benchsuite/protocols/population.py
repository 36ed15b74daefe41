"""Population: what a model was trained on, in the model's own space.

Record arrays (N training items):

====================== ============ ==================================================================
``x``                  (N, *shape)  float32, encoded by models of latents
``labels/<factor>``    (N,) int64
``ids``                (N,) str     item ids of the data set
====================== ============ ==================================================================

The empirical distribution of ``x`` is what a trained model memorises in the limit, and what the geometry of its
paths is measured against. Nothing is subsampled: leaving items out would change that distribution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import Dataset, DiffusionModel, Record, Split
from benchsuite.errors import BenchsuiteError, NotApplicableError
from benchsuite.protocols.common import chunks
from benchsuite.specs import split_spec

#: images (C, H, W) lie in [-1, 1]; beyond this they are in another range
RANGE = 1.01


def states_its_own(model: DiffusionModel) -> bool:
    """Whether the record depends on the model: it holds its training items itself, or encodes them."""
    return model.space != "pixels" or model.training_points() is not None


def population(model: DiffusionModel, dataset: Dataset, *, batch: int, device: str) -> Record:
    """The training items of a loaded model.

    Args:
        dataset: what it is measured on; the split "train" if it was trained on that.
        batch: images encoded at a time.

    Raises:
        NotApplicableError: the training items are unknown, or of another data set.
        BenchsuiteError: they are not of the model's shape, not finite, or images not in [-1, 1].
    """
    part = model.training_points()
    if part is None:
        part = _encoded(model, _train_split(model, dataset), batch, device)
    x = part.images.float().cpu()
    if tuple(x.shape[1:]) != tuple(model.shape):
        raise BenchsuiteError(f"training items {tuple(x.shape[1:])} of {model.name} do not have {model.shape}")
    if not bool(torch.isfinite(x).all()):
        raise BenchsuiteError(f"training items of {model.name} hold values that are not finite")
    labels = part.labels.cpu()
    arrays: dict[str, NDArray[Any]] = {
        "x": x.numpy(),
        "ids": np.array(part.ids),
        **{f"labels/{f.name}": labels[:, i].numpy() for i, f in enumerate(dataset.factors)},
    }
    return Record("population", arrays, {"space": model.space})


def _train_split(model: DiffusionModel, dataset: Dataset) -> Split:
    if model.exact:
        raise NotApplicableError(f"{model.name} is a distribution, not a finite set of training items")
    if model.training_data is None:
        raise NotApplicableError(
            f"the training data of {model.name} are unknown: let its training_data (in benchsuite.json, dataset) "
            f"say {dataset.name!r} if that is what it was trained on"
        )
    if split_spec(model.training_data)[0] != dataset.name:  # options add factors or leave items out
        raise NotApplicableError(f"{model.name} was trained on {model.training_data!r}, not on {dataset.name!r}")
    return dataset.split("train")


def _encoded(model: DiffusionModel, part: Split, batch: int, device: str) -> Split:
    if not len(part):
        raise NotApplicableError(f"the training split of {model.name} is empty")
    low, high = float(part.images.min()), float(part.images.max())
    if part.images.dim() == 4 and (low < -RANGE or high > RANGE):
        raise BenchsuiteError(f"training images must lie in [-1, 1], found {low:g} to {high:g}")
    if model.space == "pixels":
        return part
    pieces = [model.encode(part.images[s].to(device)).float().cpu() for s in chunks(len(part), batch)]
    return Split(torch.cat(pieces), part.labels, part.ids)
