"""U-turn: noise an item to a level, come back by the reverse SDE, and let the readout judge what came back.

Record arrays (M = N draws × items, rows draw by draw; U starting levels):

====================== ============ ==================================================================
``log_snr``            (U,)         starting levels, ascending
``items``              (M,) str
``labels/<factor>``    (M,) int64
``reference/<factor>`` (M, 1, K)    what a copy is compared to: one-hot of the readout on the item itself (after
                                    an encode–decode round trip), or of its true label if the readout is exact.
                                    For an exact model judged by an exact readout (M, U, K): its posterior
                                    given the noised item, the conditional expectation of the true label's
                                    one-hot (Rao–Blackwell: same mean, less noise)
``judged/<factor>``    (M, U, K)    the readout on what came back: one-hot, or the exact posterior
====================== ============ ==================================================================

If features are asked for and the readout shows some, per hidden layer (``meta["layers"]``, shallow to deep),
standardised per channel as described in `benchsuite.protocols.comparison`:

====================== ============ ==================================================================
``similarity/<layer>`` (M, U)       cosine between the item and what came back
``unrelated/<layer>``  (M, U)       cosine between the next item and what came back: the level of chance
``distance/<layer>``   (M, U)       ‖a - b‖² / ‖a‖‖b‖ of the item and what came back
====================== ============ ==================================================================

If positions are asked for and the readout has some (``meta["positions"]`` says of what kind):

====================== ============ ==================================================================
``changed``            (M, U, P)    how much every position changed, see `Readout.positions`
``position_distances`` (P, P)       distances between positions, if they have a geometry
====================== ============ ==================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, Readout, Record, UTurn
from benchsuite.errors import BenchsuiteError
from benchsuite.protocols.common import Items, Meter, chunks
from benchsuite.protocols.comparison import Changes, Similarities
from benchsuite.protocols.returns import Streams, by_item, come_back, judge, schedule
from benchsuite.protocols.settings import UTurnSettings


def count_passes(settings: UTurnSettings, items: int, sigma_range: tuple[float, float]) -> int:
    """Forward passes of the U-turns, before running them."""
    return items * settings.draws * schedule(settings, sigma_range).passes(settings.method)


def u_turn(
    model: DiffusionModel,
    items: Items,
    readout: Readout,
    settings: UTurnSettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
    request: UTurn = UTurn(),  # noqa: B008 - frozen
) -> Record:
    """Run the U-turns.

    Args:
        batch: largest number of rows in one forward pass; items are taken in blocks that fill it.
        request: what to record besides the verdicts.

    Returns:
        The record described above.
    """
    plan = schedule(settings, model.sigma_range)
    levels = len(plan.entries)
    soft = readout.exact and isinstance(model, ExactModel)  # the model also knows the posterior at the turn
    judged: dict[str, list[NDArray[Any]]] = {}
    expected: dict[str, list[NDArray[Any]]] = {}
    size = max(1, batch // levels)
    similarities = _similarities(model, items, readout, size) if request.features else None
    changes = Changes(readout) if request.positions else None
    for draw in range(settings.draws):
        for part in chunks(len(items), size):
            group = items.take(range(part.start, part.stop))
            streams = Streams.of(
                seed, dataset, "u_turn", draw, group, plan.entry_sigmas, antithetic=settings.antithetic
            )
            noised = streams.noised(group.x, plan.entry_sigmas)
            ends = model.decode(come_back(model, plan, noised, streams, settings.method, batch, meter))
            for name, p in judge(readout, ends).items():
                judged.setdefault(name, []).append(by_item(p, levels))
            if similarities is not None:
                following = items.take([(i + 1) % len(items) for i in range(part.start, part.stop)])
                similarities.add(model.decode(group.x), model.decode(following.x), ends)
            if changes is not None:
                changes.add(model.decode(group.x), ends)
            if soft:
                assert isinstance(model, ExactModel)
                sigmas = torch.cat(
                    [x.new_full((len(x),), s) for x, s in zip(noised, plan.entry_sigmas, strict=True)]
                )
                for name, p in model.posterior(torch.cat(noised), sigmas).items():
                    expected.setdefault(name, []).append(by_item(p, levels))
    verdict = _truth(readout, model, items)
    fixed = {name: np.tile(p.cpu().numpy()[:, None], (settings.draws, 1, 1)) for name, p in verdict.items()}
    reference = fixed | {name: np.concatenate(parts) for name, parts in expected.items()}
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": plan.log_snr,
        "items": np.array(items.ids * settings.draws),
        **{f"labels/{f.name}": np.tile(items.column(f.name), settings.draws) for f in items.factors},
        **{f"judged/{name}": np.concatenate(parts) for name, parts in judged.items()},
        **{f"reference/{name}": p for name, p in reference.items()},
        **(similarities.arrays() if similarities is not None else {}),
        **(changes.arrays() if changes is not None else {}),
    }
    agreement = {
        name: float((p.argmax(dim=1).cpu().numpy() == items.column(name)).mean()) for name, p in verdict.items()
    }
    meta = {
        "method": settings.method,
        "steps": len(plan.sigmas),
        "spacing": settings.every / settings.steps_per_level,
        "antithetic": settings.antithetic,
        "readout_agrees_with_labels": agreement,
        "layers": similarities.layers if similarities is not None else [],
        "positions": changes.kind if changes is not None else None,
    }
    return Record("u_turn", arrays, meta)


def _truth(readout: Readout, model: DiffusionModel, items: Items) -> dict[str, torch.Tensor]:
    """One-hots (N, K) that copies are compared to: labels for an exact judge, else the judge's verdict."""
    if readout.exact:
        columns = {f: torch.from_numpy(items.column(f.name)) for f in items.factors}
        return {f.name: torch.nn.functional.one_hot(y, f.size).float() for f, y in columns.items()}
    return judge(readout, model.decode(items.x))


def _similarities(model: DiffusionModel, items: Items, readout: Readout, size: int) -> Similarities:
    """Ready to compare; hidden layers are standardised by the items themselves, as the judge sees them."""
    if len(items) < 2:
        raise BenchsuiteError(f"similarity needs at least 2 items, another for the level of chance; got {len(items)}")
    return Similarities(readout, (model.decode(items.x[part]) for part in chunks(len(items), size)))
