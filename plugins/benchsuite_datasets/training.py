"""From a data set to a readout on disk: train, calibrate, measure the stored weights, record how."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchsuite import Dataset, Split, Track
from benchsuite_datasets.base import fingerprint_splits, without_dummy
from benchsuite_datasets.fitting import CHECKPOINT, fit
from benchsuite_datasets.options import TrainingOptions
from benchsuite_datasets.readout import CnnReadout

CURVE = "training.json"
NOISE = 0.1  # residual noise at which the robustness of a readout is recorded


def train_readout(
    dataset: Dataset,
    out: Path,
    options: TrainingOptions,
    *,
    name: str,
    source: str = "",
    crop: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    track: Track = lambda steps, *_: steps,
) -> dict[str, Any]:
    """Train a readout of `dataset` and write it to `out`; a checkpoint found there is resumed from.

    Only the split "train" is learned from; "val" selects the step and sets the temperatures; "test" gives the
    published accuracy, of the weights as stored (half precision).

    Args:
        dataset: loaded data; a factor called "dummy" is ignored.
        out: directory for ``readout.safetensors``, ``readout.json`` and ``training.json`` (the loss curve).
        options: hyperparameters.
        name: the readout's name.
        source: where the data came from, in words, for the record.
        crop: side of the centre that the network looks at; None = whole images.
        device: torch device.
        seed: of initial weights, batches and augmentations.
        track: wraps the range of steps with a progress bar.

    Returns:
        The record that ``readout.json`` holds.
    """
    factors, splits = without_dummy(dataset)
    train, val, test = splits["train"], splits["val"], splits["test"]
    channels, height, width = dataset.shape
    record: dict[str, Any] = {
        "name": name,
        "dataset": dataset.name,
        "source": source,
        "dataset_fingerprint": fingerprint_splits(splits),
        "items": {name: len(part) for name, part in splits.items()},
        "factors": {f.name: list(f.values) for f in factors},
        "shape": [channels, crop or height, crop or width],
        "crop": crop is not None,
        "widths": list(options.widths),
        "hidden": options.hidden,
        "recipe": asdict(options),
        "seed": seed,
        "device": device,
        "versions": {package: version(package) for package in ("benchsuite", "torch", "numpy")},
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = CnnReadout.build(record).to(device)
    curve = fit(judge, train, val, out, options, seed, track)
    record["temperature"] = set_temperatures(judge, val)
    judge.save(out)
    stored = CnnReadout.open(out).to(device)
    stored.record = record | evaluate(stored, test) | {"seconds": curve[-1]["seconds"]}
    stored.save(out)
    (out / CURVE).write_text(json.dumps(curve, indent=0) + "\n", encoding="utf-8")
    (out / CHECKPOINT).unlink(missing_ok=True)
    return stored.record


def set_temperatures(judge: CnnReadout, val: Split) -> dict[str, float]:
    """Set the temperature of each factor to the one of least cross-entropy on `val` (Guo et al. 2017).

    Searched on a logarithmic grid from 1 to 4 in steps of 3 %. Never below 1: a small validation split without
    errors would ask for boundless confidence.
    """
    probabilities = judge.probabilities(val.images)
    grid = torch.logspace(0, 2, 48, base=2.0)
    buffer = judge.net.get_buffer("temperature")
    chosen = {}
    for i, f in enumerate(judge.factors):
        logits = probabilities[f.name].clamp_min(1e-30).log()
        target = val.labels[:, i]
        nats = [float(torch.nn.functional.cross_entropy(logits / t, target)) for t in grid]
        chosen[f.name] = round(float(grid[int(torch.tensor(nats).argmin())]), 4)
        buffer[i] *= chosen[f.name]
    return chosen


def evaluate(judge: CnnReadout, test: Split) -> dict[str, dict[str, float]]:
    """Accuracy, calibration and robustness of `judge` on `test`, per factor.

    Returns:
        ``accuracy``; ``nats`` (mean cross-entropy); ``confidence`` (mean largest probability, which equals the
        accuracy if calibrated); ``accuracy_at_noise_0.1`` (the same images plus Gaussian noise of 0.1).
    """
    clean = judge.probabilities(test.images)
    noise = torch.randn(test.images.shape, generator=torch.Generator().manual_seed(0))
    noisy = judge.probabilities(test.images + NOISE * noise)
    result: dict[str, dict[str, float]] = {
        "accuracy": {}, "nats": {}, "confidence": {}, f"accuracy_at_noise_{NOISE}": {},
    }  # fmt: skip
    for i, f in enumerate(judge.factors):
        target, p = test.labels[:, i], clean[f.name]
        values = (
            (p.argmax(1) == target).double().mean(),
            -p.gather(1, target[:, None]).clamp_min(1e-12).log().double().mean(),
            p.amax(1).double().mean(),
            (noisy[f.name].argmax(1) == target).double().mean(),
        )
        for key, value in zip(result, values, strict=True):
            result[key][f.name] = round(float(value), 6)
    return result
