"""Channels: items of an exact model through each of its noise channels, and back in one shot.

Nothing is sampled step by step: what is kept is read off the exact posterior, and a copy is one draw from it.
The same noise serves all levels of a channel, so that its curves are smooth. Levels are equidistant, and denser
where the first factor falls.

With `ChannelSettings.redraws` > 1 the model's random parameters are drawn anew (the rules of a random grammar):
rows of one redraw then share one item id, since it is the redraws that an average over them is uncertain by.

Record arrays (N items, all redraws together; T levels, different from channel to channel; R passages):

================================ ========= =============================================================
``items``                        (N,) str  id of the item, or of the redraw
``levels/<channel>``             (T,)      ascending, on the channel's axis
``kept/<channel>/<factor>``      (N, T)    probability that a posterior draw keeps the factor, mean over passages
``changed/<channel>``            (N, T, R, P) bool, positions at which a posterior draw differs, if asked for
``theory_levels/<channel>``      (S,)      finer levels
``theory/<channel>/<quantity>``  (S,)      what a theory of the model expects, see `ChannelModel.theory`
================================ ========= =============================================================

``meta["channels"]``: name, axis of every channel; ``meta["theory"]``: `ChannelModel.theory_facts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.channels import ChannelModel, Channels, NoiseChannel
from benchsuite.contracts import FloatArray, Record
from benchsuite.protocols.common import Meter, chunks
from benchsuite.protocols.settings import ChannelSettings
from benchsuite.randomness import stream_key, stream_keys

#: levels at which theories are drawn
THEORY_NODES = 201


def count_passes(model: ChannelModel, request: Channels, settings: ChannelSettings) -> int:
    """Forward passes through the channels, before running them."""
    copies = settings.redraws if model.redrawn(1) is not None else 1
    per_level = sum(settings.draws if request.copies and c.random else 1 for c in model.channels())
    return copies * settings.items * (settings.nodes + settings.refine) * per_level


def channels(
    model: ChannelModel,
    request: Channels,
    settings: ChannelSettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
) -> Record:
    """Send items through every channel.

    Args:
        batch: largest number of rows in one forward pass.

    Returns:
        The record described above.
    """
    models = _models(model, settings.redraws)
    items = [_items(one, number, settings.items, seed) for number, one in enumerate(models)]
    shared = len(models) > 1
    names = [f"redraw/{n:05d}" if shared else item for n, (_, ids) in enumerate(items) for item in ids]
    arrays: dict[str, NDArray[Any]] = {"items": np.array(names)}
    for channel in model.channels():
        draws = 1
        if request.copies:
            draws = settings.draws if channel.random else settings.shared_draws
        passages = _Passages(
            channel, models, items, draws, request.copies, (seed, dataset, "channels"), batch, meter
        )
        coarse = np.linspace(channel.low, channel.high, settings.nodes)
        found = {float(level): passages.at(float(level)) for level in coarse}
        kept = np.array([found[level][0][model.factors[0].name].mean() for level in coarse])
        for level in finer_levels(coarse, kept, settings.refine):
            found[level] = passages.at(level)
        levels = sorted(found)
        arrays[f"levels/{channel.name}"] = np.array(levels)
        for factor in model.factors:
            rows = [found[level][0][factor.name] for level in levels]
            arrays[f"kept/{channel.name}/{factor.name}"] = np.stack(rows, axis=1)
        if request.copies:
            arrays[f"changed/{channel.name}"] = np.stack([found[level][1] for level in levels], axis=1)
        fine = np.linspace(channel.low, channel.high, THEORY_NODES)
        expected = model.theory(channel.name, fine)
        if expected:
            arrays[f"theory_levels/{channel.name}"] = fine
        arrays |= {f"theory/{channel.name}/{quantity}": value for quantity, value in expected.items()}
    meta = {
        "channels": [{"name": c.name, "axis": c.axis} for c in model.channels()],
        "redraws": len(models),
        "theory": model.theory_facts(),
    }
    return Record("channels", arrays, meta)


def finer_levels(levels: FloatArray, kept: FloatArray, count: int) -> list[float]:
    """`count` levels between those of a grid, where the curve moves most.

    One by one, each goes to the interval whose parts the curve moves most in; parts are equal.

    Args:
        levels: (T,) ascending.
        kept: (T,) mean retention of the deciding factor; may rise (log-SNR) or fall (losses).
    """
    moves = np.abs(np.diff(kept))
    inside = np.zeros(len(moves), dtype=int)
    for _ in range(count):
        inside[int(np.argmax(moves / (inside + 1)))] += 1
    return [
        float(level)
        for left, right, number in zip(levels, levels[1:], inside, strict=False)
        for level in np.linspace(left, right, number + 2)[1:-1]
    ]


class _Passages:
    """All items through one channel, level by level."""

    def __init__(
        self,
        channel: NoiseChannel,
        models: list[ChannelModel],
        items: list[tuple[torch.Tensor, tuple[str, ...]]],
        draws: int,
        copies: bool,
        names: tuple[object, ...],
        batch: int,
        meter: Meter,
    ) -> None:
        self.channel, self.models, self.copies, self.meter = channel, models, copies, meter
        self.items = [x for x, _ in items]
        self.step = max(1, batch // (draws if channel.random else 1))
        self.keys = [
            torch.stack(
                [stream_keys((*names, channel.name, number, draw), ids).to(x.device) for draw in range(draws)],
                dim=1,
            )
            for number, (x, ids) in enumerate(items)
        ]

    def at(self, level: float) -> tuple[dict[str, FloatArray], NDArray[np.bool_]]:
        """Kept {factor: (N,)} and changed (N, R, P), the latter empty if not asked for."""
        kept: dict[str, list[FloatArray]] = {}
        changed = []
        for model, x, keys in zip(self.models, self.items, self.keys, strict=True):
            for part in chunks(len(x), self.step):
                passage = model.send(self.channel.name, level, x[part], keys[part], self.copies)
                self.meter.add(len(x[part]) * (keys.shape[1] if self.channel.random else 1))
                for name, p in passage.kept.items():
                    kept.setdefault(name, []).append(p.mean(dim=1).double().cpu().numpy())
                if passage.changed is not None:
                    changed.append(passage.changed.cpu().numpy())
        rows = {name: np.concatenate(parts) for name, parts in kept.items()}
        return rows, np.concatenate(changed) if changed else np.zeros((0, 0, 0), dtype=bool)


def _models(model: ChannelModel, count: int) -> list[ChannelModel]:
    """The model and, if it has random parameters, `count` - 1 redraws of it."""
    redraws = [model.redrawn(number) for number in range(1, count)]
    return [model, *(one for one in redraws if one is not None)]


def _items(model: ChannelModel, number: int, count: int, seed: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    """`count` clean items of one redraw and their ids."""
    generator = torch.Generator().manual_seed(stream_key(seed, "channels", "items", number))
    return model.sample(count, generator)[0], tuple(f"{number}/{i:05d}" for i in range(count))
