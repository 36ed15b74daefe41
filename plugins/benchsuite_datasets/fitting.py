"""The optimisation loop of a readout: seeded per step, validated, resumable from a checkpoint."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from benchsuite import Split, Track
from benchsuite_datasets.options import TrainingOptions
from benchsuite_datasets.readout import CnnReadout
from benchsuite_datasets.splits import item_hash

CHECKPOINT = "checkpoint.safetensors"


def fit(
    judge: CnnReadout, train: Split, val: Split, out: Path, options: TrainingOptions, seed: int, track: Track
) -> list[dict[str, float]]:
    """Train `judge` in place, leave it with the weights of its best validation, and return the loss curve.

    Batches, augmentations and dropout of a step depend on (seed, step) alone, so that a run resumed from the
    checkpoint in `out` repeats an uninterrupted one. A checkpoint of other options or data is ignored.
    """
    net, device = judge.net.requires_grad_(True), judge.net.hidden.weight.device
    optimizer = torch.optim.AdamW(net.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    key = f"{asdict(options)} {seed} {len(train)} {judge.record['dataset_fingerprint']}"
    state = Checkpoint(out / CHECKPOINT, key)
    state.restore(judge, optimizer)
    images, labels = judge.look(train.images).to(device), train.labels.to(device)
    per_epoch = max(1, len(train) // options.batch)

    def batch_indices(step: int) -> torch.Tensor:
        epoch, place = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(item_hash(f"epoch {seed} {epoch}") >> 1)
        order = torch.randperm(len(train), generator=generator)
        return order[place * options.batch : (place + 1) * options.batch].to(device)

    with torch.random.fork_rng(devices=[]):
        for step in track(range(state.step, options.steps), "training", options.steps - state.step):
            torch.manual_seed(item_hash(f"step {seed} {step}") >> 1)
            net.train()
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * schedule(step, options.steps)
            index = batch_indices(step)
            loss = cross_entropy(net(augment(images[index], options))[0], labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state.step = step + 1
            if state.step % options.evaluate_every == 0 or state.step == options.steps:
                net.eval()
                state.add(judge, loss=float(loss.detach()), val_nats=validate(judge, val))
                state.save(judge, optimizer)
    net.load_state_dict(state.best)
    net.eval().requires_grad_(False)
    return state.curve


def schedule(step: int, steps: int) -> float:
    """Learning rate at `step` as a fraction of the peak: linear warm-up over 10 %, then cosine to 0."""
    warm = max(1, steps // 10)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def cross_entropy(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Sum over factors of the mean cross-entropy in nats; logits [(B, K)] per factor, labels (B, F)."""
    return torch.stack([F.cross_entropy(z, labels[:, i]) for i, z in enumerate(logits)]).sum()


def validate(judge: CnnReadout, part: Split) -> float:
    """Cross-entropy of `judge` on `part` in nats per item, summed over factors."""
    p = judge.probabilities(part.images)
    picked = [p[f.name].gather(1, part.labels[:, i : i + 1]) for i, f in enumerate(judge.factors)]
    return float(torch.cat(picked, dim=1).clamp_min(1e-12).log().neg().sum(1).mean())


def augment(images: torch.Tensor, options: TrainingOptions) -> torch.Tensor:
    """Images (B, C, H, W) shifted, mirrored and made noisy as `options` say, from the global generator."""
    count, _, height, width = images.shape
    device, s = images.device, options.shift
    if s:
        padded = F.pad(images, (s, s, s, s), value=-1.0)
        rows = torch.randint(0, 2 * s + 1, (count, 1, 1)).to(device) + torch.arange(height, device=device)[:, None]
        columns = torch.randint(0, 2 * s + 1, (count, 1, 1)).to(device) + torch.arange(width, device=device)
        items = torch.arange(count, device=device)[:, None, None]
        images = padded.movedim(1, 3)[items, rows, columns].movedim(3, 1)  # NCHW, channels last in memory
    if options.flip:
        mirror = (torch.rand(count, 1, 1, 1) < 0.5).to(device)
        images = torch.where(mirror, images.flip(3), images)
    sigma = options.noise * torch.rand(count, 1, 1, 1)
    return images + (sigma * torch.randn(images.shape)).to(device)


class Checkpoint:
    """Progress of one run: step, loss curve, best weights; written to one safetensors file."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.started = time.monotonic()
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self.best: dict[str, torch.Tensor] = {}

    def add(self, judge: CnnReadout, *, loss: float, val_nats: float) -> None:
        """Append a point to the curve; remember the weights if no earlier point was better."""
        if all(val_nats < point["val_nats"] for point in self.curve):
            self.best = {k: v.detach().clone() for k, v in judge.net.state_dict().items()}
        seconds = round(time.monotonic() - self.started, 1)
        point = {"step": self.step, "loss": round(loss, 5), "val_nats": round(val_nats, 5), "seconds": seconds}
        self.curve.append(point)

    def save(self, judge: CnnReadout, optimizer: torch.optim.Optimizer) -> None:
        """Write everything needed to go on; a reader never sees half a file."""
        from safetensors.torch import save_file

        moments = optimizer.state_dict()["state"]
        tensors = {f"net.{k}": v for k, v in judge.net.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"optimizer.{i}.{k}": v for i, entry in moments.items() for k, v in entry.items()}
        facts = {"key": self.key, "step": str(self.step), "curve": json.dumps(self.curve)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.path.with_suffix(".tmp")
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, scratch, facts)
        os.replace(scratch, self.path)

    def restore(self, judge: CnnReadout, optimizer: torch.optim.Optimizer) -> None:
        """Go on from the file if it belongs to this run; otherwise start anew."""
        from safetensors import safe_open

        if not self.path.is_file():
            return
        device = str(judge.net.hidden.weight.device)
        with safe_open(self.path, "pt", device=device) as file:
            facts = file.metadata() or {}
            if facts.get("key") != self.key:
                return
            groups: dict[str, dict[str, Any]] = {"net": {}, "best": {}, "optimizer": {}}
            for name in file.keys():  # noqa: SIM118 - not a dict
                group, _, rest = name.partition(".")
                groups[group][rest] = file.get_tensor(name)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in groups["optimizer"].items():
            i, _, what = name.partition(".")
            moments.setdefault(int(i), {})[what] = value
        judge.net.load_state_dict(groups["net"])
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.best = groups["best"]
        self.step, self.curve = int(facts["step"]), json.loads(facts["curve"])
        self.started -= self.curve[-1]["seconds"]  # time spent before the interruption counts
