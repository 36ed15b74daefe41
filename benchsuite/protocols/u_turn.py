"""U-turn: noise an item to a level, come back by the reverse SDE, and let the readout judge what came back.

Record arrays (M = N draws × items, rows draw by draw; U starting levels):

====================== ============ ==================================================================
``log_snr``            (U,)         starting levels, ascending
``items``              (M,) str
``labels/<factor>``    (M,) int64
``reference/<factor>`` (M, 1, K)    what a copy is compared to: one-hot of the readout on the item itself (after
                                    an encode–decode round trip), or of its true label if the readout is exact.
                                    For an exact model judged by an exact readout, and for the oracle of the
                                    population, (M, U, K): its posterior given the noised item, the
                                    conditional expectation of the true label's one-hot (Rao–Blackwell: same
                                    mean, less noise)
``judged/<factor>``    (M, U, K)    the readout on what came back: one-hot, or the exact posterior
====================== ============ ==================================================================

The oracle of a data set is asked, not run: what comes back has its posterior at the noised item for law, which is
``judged`` then (``meta["stated"]``). Only features and positions need what came back.

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

import numpy as np

from benchsuite.blocks import Arrays, Blocks
from benchsuite.contracts import DiffusionModel, ExactModel, Readout, Record, UTurn
from benchsuite.errors import BenchsuiteError
from benchsuite.protocols.common import Items, Meter, chunks
from benchsuite.protocols.comparison import Similarities, geometry, position_changes
from benchsuite.protocols.returns import Streams, by_item, come_back, judge, schedule, stated_posterior
from benchsuite.protocols.settings import UTurnSettings


def count_passes(
    settings: UTurnSettings,
    items: int,
    sigma_range: tuple[float, float],
    request: UTurn = UTurn(),  # noqa: B008 - frozen
    stated: bool = False,
) -> int:
    """Forward passes of the U-turns, before running them; `stated`: of an oracle, see `u_turn`."""
    plan = schedule(settings, sigma_range)
    return items * settings.draws * plan.passes(settings.method) if _comes_back(request, stated) else 0


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
    blocks: Blocks | None = None,
    stated: bool = False,
    exact: bool = False,
) -> Record:
    """Run the U-turns.

    Args:
        batch: largest number of rows in one forward pass; items are taken in groups that fill it.
        request: what to record besides the verdicts.
        blocks: keeps blocks of items as soon as they are done. Streams belong to items, and hidden layers are
            standardised by all items, so blocks change no number.
        stated: the model, an exact one, is the ideal of this data set: its posterior answers for it.
        exact: the items come from the population whose posterior the model states.

    Returns:
        The record described above.
    """
    blocks = blocks or Blocks()
    plan = schedule(settings, model.sigma_range)
    levels = len(plan.entries)
    size = max(1, batch // levels)
    similarities = _similarities(model, items, readout, size) if request.features else None
    kind, distances = geometry(readout, model.decode(items.x[:1])) if request.positions else (None, {})

    def turn(draw: int, index: range) -> Arrays:
        """One draw of the items at `index`, all levels in one batch: arrays of (B, U, …)."""
        group = items.take(index)
        streams = Streams.of(
            seed, dataset, "u_turn", draw, group, plan.entry_sigmas, antithetic=settings.antithetic
        )
        noised = streams.noised(group.x, plan.entry_sigmas)
        found: Arrays = {}
        if _comes_back(request, stated):
            ends = model.decode(come_back(model, plan, noised, streams, settings.method, batch, meter))
            if similarities is not None:
                following = items.take([(i + 1) % len(items) for i in index])
                found |= similarities.compare(model.decode(group.x), model.decode(following.x), ends)
            if request.positions:
                found |= position_changes(readout, model.decode(group.x), ends)
            if not stated:
                found |= {f"judged/{name}": by_item(p, levels) for name, p in judge(readout, ends).items()}
        if stated or (readout.exact and isinstance(model, ExactModel)):  # it knows the posterior at the turn
            law = {n: by_item(p, levels) for n, p in stated_posterior(model, noised, plan, tuple(verdict)).items()}
            if stated:
                found |= {f"judged/{name}": p for name, p in law.items()}
            if exact or not stated:  # else the item is none of those whose posterior it is
                found |= {f"reference/{name}": p for name, p in law.items()}
        return found

    def block(draw: int, index: range) -> Arrays:
        def compute() -> Arrays:
            return joined([turn(draw, index[part]) for part in chunks(len(index), size)])

        return blocks.run({"draw": draw, "items": [items.ids[i] for i in index]}, meter, compute)

    verdict = _truth(readout, model, items, size)
    everything = range(len(items))
    parts = [everything[part] for part in chunks(len(items), blocks.size(len(items)))]
    done = joined([block(draw, part) for draw in range(settings.draws) for part in parts])
    arrays: Arrays = {
        "log_snr": plan.log_snr,
        "items": np.array(items.ids * settings.draws),
        **{f"labels/{f.name}": np.tile(items.column(f.name), settings.draws) for f in items.factors},
        **{f"reference/{name}": np.tile(p[:, None], (settings.draws, 1, 1)) for name, p in verdict.items()},
        **done,
        **distances,
    }
    agreement = {name: float((p.argmax(axis=1) == items.column(name)).mean()) for name, p in verdict.items()}
    meta = {
        "method": settings.method,
        "steps": len(plan.sigmas),
        "spacing": settings.every / settings.steps_per_level,
        "antithetic": settings.antithetic,
        "stated": stated,
        "readout_agrees_with_labels": agreement,
        "layers": similarities.layers if similarities is not None else [],
        "positions": kind,
    }
    return Record("u_turn", arrays, meta)


def _comes_back(request: UTurn, stated: bool) -> bool:
    """Whether anything asked for needs the way back."""
    return not stated or request.features or request.positions


def joined(parts: list[Arrays]) -> Arrays:
    """Parts with the same names one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _truth(readout: Readout, model: DiffusionModel, items: Items, size: int) -> Arrays:
    """One-hots (N, K) that copies are compared to: labels for an exact judge, else the judge's verdict."""
    if readout.exact:
        return {f.name: np.eye(f.size, dtype=np.float32)[items.column(f.name)] for f in items.factors}
    verdicts = [judge(readout, model.decode(items.x[part])) for part in chunks(len(items), size)]
    return joined([{name: p.cpu().numpy() for name, p in found.items()} for found in verdicts])


def _similarities(model: DiffusionModel, items: Items, readout: Readout, size: int) -> Similarities:
    """Ready to compare; hidden layers are standardised by the items themselves, as the judge sees them."""
    if len(items) < 2:
        raise BenchsuiteError(
            f"similarity needs at least 2 items, another for the level of chance; got {len(items)}"
        )
    return Similarities(readout, (model.decode(items.x[part]) for part in chunks(len(items), size)))
