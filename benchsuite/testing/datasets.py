"""Checks of a data set, its splits and its readout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from benchsuite.contracts import Dataset, Readout, Split
from benchsuite.testing.options import every_option_acts
from benchsuite.testing.results import CheckResult, Checks, Observation, Skip, findings
from benchsuite.testing.state import changed_by

NAMES = ("train", "val", "test")
#: share of test images that may also be in the training split: real sets hold a few doubles
DOUBLES = 0.01
#: test items that the readout is measured on, and how far off its stated accuracy may be
JUDGED, OFF = 2000, 0.02


class DatasetCase:
    """A data set that is being checked."""

    def __init__(self, dataset: Dataset, options: Mapping[str, Any], alternatives: Mapping[str, Any]) -> None:
        self.dataset, self.options, self.alternatives = dataset, options, alternatives
        self.loaded = False

    @property
    def splits(self) -> dict[str, Split]:
        """The three splits.

        Raises:
            Skip: the data set does not load.
        """
        if not self.loaded:
            try:
                self.dataset.load()
            except Exception as error:
                raise Skip("the data set does not load") from error
            self.loaded = True
        return {name: self.dataset.split(name) for name in NAMES}

    @property
    def readout(self) -> Readout:
        """The judge.

        Raises:
            Skip: there is none.
        """
        assert self.splits
        readout = self.dataset.readout()
        if readout is None:
            raise Skip("the data set has no readout")
        return readout

    @property
    def images(self) -> torch.Tensor:
        """A few test images."""
        return self.splits["test"].images[:16]


DATASET = Checks[DatasetCase]()


def check_dataset(
    dataset: Dataset,
    *,
    only: Iterable[str] | None = None,
    expected_failed: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    alternatives: Mapping[str, Any] | None = None,
) -> list[CheckResult]:
    """Hold a data set to its contract, and its readout to what it states.

    Args:
        dataset: as constructed; it is loaded here.
        only: names of the checks to run; all of `DATASET_CHECKS` by default.
        expected_failed: {check: reason} of known failures. Strict: one that passes is not ok either.
        options: keyword arguments that `dataset` was built with, if any.
        alternatives: {option: another value} for options that are neither numbers nor flags.

    Raises:
        UsageError: an unknown check.
    """
    return DATASET.run(
        dataset.name, DatasetCase(dataset, options or {}, alternatives or {}), only, expected_failed
    )


@DATASET.add("loads", "load succeeds and sets factors and shape")
def _loads(case: DatasetCase) -> Observation:
    dataset = case.dataset
    dataset.load()
    case.loaded = True
    wrong = [f"no {key}" for key in ("name", "version") if not getattr(dataset, key, "")]
    wrong += [f"no {key}" for key in ("factors", "shape") if not getattr(dataset, key, None)]
    names = [factor.name for factor in getattr(dataset, "factors", ())]
    wrong += [f"factors of one name: {names}"] if len(set(names)) < len(names) else []
    return findings(wrong, "name, version, distinct factors and a shape")


@DATASET.add("splits-valid", "images are float32 (N, *shape), labels int64 (N, F), ids N unique names")
def _valid(case: DatasetCase) -> Observation:
    wrong = []
    for name, part in case.splits.items():
        n = len(part.ids)
        if part.images.dtype != torch.float32 or tuple(part.images.shape) != (n, *case.dataset.shape):
            wrong.append(f"{name}: images {part.images.dtype} {tuple(part.images.shape)} for {n} ids")
        if part.labels.dtype != torch.int64 or tuple(part.labels.shape) != (n, len(case.dataset.factors)):
            wrong.append(f"{name}: labels {part.labels.dtype} {tuple(part.labels.shape)} for {n} ids")
        if len(set(part.ids)) < n:
            wrong.append(f"{name}: {n - len(set(part.ids))} ids twice")
        if not n:
            wrong.append(f"{name} is empty")
    return findings(wrong, "three splits of that form")


@DATASET.add("pixel-range", "pixels lie in [-1, 1] and use both signs")
def _range(case: DatasetCase) -> Observation:
    images = [part.images for part in case.splits.values()]
    if len(case.dataset.shape) != 3:
        raise Skip("items are vectors in coordinates of their own, not images")
    low, high = min(float(x.min()) for x in images), max(float(x.max()) for x in images)
    return Observation(
        -1 <= low < 0 < high <= 1, f"from {low:.3g} to {high:.3g}", "from below 0, at least -1, to at most 1"
    )


@DATASET.add("labels-in-range", "labels lie in 0 … K-1, and every value occurs in the training split")
def _labels(case: DatasetCase) -> Observation:
    splits, wrong = case.splits, []
    for index, factor in enumerate(case.dataset.factors):
        for name, part in splits.items():
            column = part.labels[:, index]
            if int(column.min()) < 0 or int(column.max()) >= factor.size:
                wrong.append(f"{factor.name} runs from {int(column.min())} to {int(column.max())} in {name}")
        unseen = set(range(factor.size)) - set(splits["train"].labels[:, index].tolist())
        if unseen:
            wrong.append(f"no training item has {factor.name} = {min(unseen)}")
    return findings(wrong, "every label among its factor's values")


@DATASET.add("splits-disjoint", "test and validation items are not in the training split, by id or by pixels")
def _disjoint(case: DatasetCase) -> Observation:
    if case.dataset.enumerated:
        raise Skip("the images are the whole population")
    train = case.splits["train"]
    ids, pixels, wrong = set(train.ids), {_bytes(image) for image in train.images}, []
    for name in ("val", "test"):
        part = case.splits[name]
        shared = len(ids & set(part.ids))
        doubles = sum(_bytes(image) in pixels for image in part.images)
        if shared:
            wrong.append(f"{shared} ids of {name}")
        if doubles > DOUBLES * len(part):
            wrong.append(f"the pixels of {doubles} of {len(part)} images of {name}")
    return findings(wrong, f"no id, and pixels of at most {DOUBLES:.0%}")


@DATASET.add("deterministic", "a second load gives the same items in the same order, and the same fingerprint")
def _deterministic(case: DatasetCase) -> Observation:
    before, mark = case.splits, case.dataset.fingerprint()
    try:
        again = type(case.dataset)(**case.options)
    except TypeError:
        again = case.dataset
    again.load()
    wrong = []
    for name in NAMES:
        part = again.split(name)
        same = part.ids == before[name].ids and torch.equal(part.images, before[name].images)
        if not (same and torch.equal(part.labels, before[name].labels)):
            wrong.append(f"{name} differs")
    if again.fingerprint() != mark:
        wrong.append("another fingerprint")
    return findings(wrong, "no difference")


@DATASET.add("no-global-state", "random generators, grad mode and default dtype are left alone")
def _global(case: DatasetCase) -> Observation:
    assert case.splits
    return findings([f"{name} changed" for name in changed_by(case.dataset.load)], "no change")


@DATASET.add("ignored-option", "every option changes the fingerprint, or the value is refused")
def _option(case: DatasetCase) -> Observation:
    assert case.splits

    def outcome(dataset: Dataset) -> str:
        dataset.load()
        return dataset.fingerprint()

    return every_option_acts(type(case.dataset), case.options, case.alternatives, outcome)


@DATASET.add("readout-normalised", "the readout gives probabilities (B, K) of factors of the data set")
def _normalised(case: DatasetCase) -> Observation:
    readout, wrong = case.readout, []
    sizes = {factor.name: factor.size for factor in case.dataset.factors}
    with torch.no_grad():
        found = readout.probabilities(case.images)
    for name, p in found.items():
        if tuple(p.shape) != (len(case.images), sizes.get(name, -1)):
            wrong.append(f"{name}: {tuple(p.shape)}")
        elif not (float(p.min()) >= 0 and float((p.sum(dim=1) - 1).abs().max()) < 1e-4):
            wrong.append(f"{name}: least {float(p.min()):.3g}, sums up to {float(p.sum(dim=1).max()):.4g}")
    return findings(wrong if found else ["no factor at all"], "rows that sum to 1")


@DATASET.add("readout-invariance", "a verdict does not depend on the images beside it, nor on the time of day")
def _invariance(case: DatasetCase) -> Observation:
    readout, images = case.readout, case.images
    with torch.no_grad():
        together = readout.probabilities(images.clone())
        again = readout.probabilities(images.clone())
        alone = readout.probabilities(images[:1].clone())
    wrong = [
        f"{name} differs when asked again" for name in together if not torch.equal(together[name], again[name])
    ]
    wrong += [
        f"{name} differs alone"
        for name in together
        if not torch.allclose(together[name][:1], alone[name], atol=1e-4)
    ]
    return findings(wrong, "no difference")


@DATASET.add("readout-accuracy", "the readout is as accurate on the test split as it states")
def _accuracy(case: DatasetCase) -> Observation:
    readout, part = case.readout, case.splits["test"]
    wrong = []
    with torch.no_grad():
        found = readout.probabilities(part.images[:JUDGED])
    names = [factor.name for factor in case.dataset.factors]
    for name, p in found.items():
        measured = float((p.argmax(dim=1) == part.labels[:JUDGED, names.index(name)]).float().mean())
        stated = readout.accuracy.get(name)
        if stated is None and not readout.exact:
            wrong.append(f"{name}: nothing is stated, {measured:.1%} measured")
        elif stated is not None and abs(measured - stated) > OFF:
            wrong.append(f"{name}: {stated:.1%} stated, {measured:.1%} measured")
    return findings(wrong, f"agreement within {OFF:.0%}")


@DATASET.add("readout-features", "hidden features are finite, (B, C) or (B, C, …)")
def _features(case: DatasetCase) -> Observation:
    with torch.no_grad():
        layers = case.readout.features(case.images)
    if not layers:
        raise Skip("the readout shows no features")
    wrong = [
        f"{name} {tuple(h.shape)}"
        for name, h in layers.items()
        if h.dim() < 2 or len(h) != len(case.images) or not bool(torch.isfinite(h).all())
    ]
    return findings(wrong, f"({len(case.images)}, C, …) each, finite")


@DATASET.add("readout-positions", "positions are finite (B, P) or (B, P, E), their distances a metric's (P, P)")
def _positions(case: DatasetCase) -> Observation:
    with torch.no_grad():
        found = case.readout.positions(case.images)
    if found is None:
        raise Skip("the readout has no positions")
    wrong = []
    if found.dim() not in (2, 3) or len(found) != len(case.images) or not bool(torch.isfinite(found).all()):
        wrong.append(f"positions {tuple(found.shape)}")
    distances = case.readout.position_distances()
    if distances is not None:
        d = np.asarray(distances)
        if d.shape != (found.shape[1], found.shape[1]):
            wrong.append(f"distances {d.shape}")
        elif not (np.array_equal(d, d.T) and not d.diagonal().any() and (d >= 0).all()):
            wrong.append("distances that are not symmetric, not 0 to oneself, or negative")
    return findings(wrong, f"({len(case.images)}, P, …), finite, with symmetric distances")


def _bytes(image: torch.Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


#: {name: promise} of everything that `check_dataset` runs
DATASET_CHECKS = DATASET.promises
