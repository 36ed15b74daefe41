"""Noise sweep: every item at every level, one forward pass for all heads and taps.

Record arrays (M = N draws × items, rows draw by draw; T levels; S tapped levels; R = all probe rows):

====================== ============= ================================================================
``log_snr``            (T,)          ascending
``items``              (M,) str      item id of each row (repeated over draws)
``labels/<factor>``    (M,) int64
``error/unconditional`` (M, T)       ‖eps - eps_hat‖² with all labels null (nats after ½ ∫ d log_snr)
``error/<factor>``     (M, T)        the same with that factor's true label given
``gap/<factor>``       (M, T)        ‖eps_hat_factor - eps_hat_unconditional‖²
                                     (with two factors or more also a head ``joint``, given all labels)
``posterior/<factor>`` (M, T, K)     exact models only
``spread/<factor>``    (M, T)        exact models on their own population: sum_k p(k | x) ‖eps_hat_k - eps_hat‖²
``information/joint``  (M, T)        the same, where the model knows it: H(all factors) - H(all factors | x), nats
``tap_log_snr``        (S,)          the levels at which taps are kept
``tap_items``, ``tap_role`` (R,) str  role is "train", "val" or "test"
``tap_labels/<factor>`` (R,) int64
``tap/<name>``         (S, R, D)     pooled activations of the unconditional pass (``meta["taps"]`` names those of
                                     the model, others are layers asked for); also ``input`` (x scaled to
                                     unit variance), ``denoised`` (D(x)) and, for exact models,
                                     ``log-posterior``
====================== ============= ================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, Factor, FloatArray, NoiseSweep, Record
from benchsuite.errors import BenchsuiteError
from benchsuite.noise import log_snr_from_sigma, sigma_from_log_snr
from benchsuite.protocols.common import (
    Items,
    Meter,
    Taps,
    chunks,
    condition_on,
    denoise_batched,
    every_layer,
    flatten_small,
    forward_noise,
    item_keys,
    level_number,
    shared_factors,
)
from benchsuite.protocols.settings import SweepSettings
from benchsuite.protocols.spread import head_spread, values_in_use

#: pseudo-taps: what a probe finds without the network's help
BASELINE_TAPS = ("input", "denoised", "log-posterior")


#: The draw that the probe's other items see: never that of the evaluated items, should they be the same ones.
PROBE_DRAW = 2
#: head name -> factors that it is given
Conditions = Mapping[str, Sequence[str]]


def heads(model: DiffusionModel, factors: Sequence[Factor]) -> dict[str, list[str]]:
    """The conditional heads of a model on a data set: one per shared factor, and all of them together."""
    shared = shared_factors(model, factors)
    found = {name: [name] for name in shared}
    return found | {"joint": shared} if len(shared) > 1 else found


def levels(settings: SweepSettings, sigma_range: tuple[float, float]) -> FloatArray:
    """The grid, without the nodes outside the model's range, ascending."""
    grid = np.linspace(settings.low, settings.high, settings.nodes)
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    inside = grid[(grid >= low - 1e-9) & (grid <= high + 1e-9)]
    if len(inside) < 2:
        raise BenchsuiteError(
            f"only {len(inside)} levels of the grid [{settings.low}, {settings.high}] lie in the model's range: "
            f"log-SNR {low:.2f} to {high:.2f}"
        )
    return inside


def count_passes(
    settings: SweepSettings,
    request: NoiseSweep,
    items: int,
    probe_items: int,
    conditional_heads: int,
    sigma_range: tuple[float, float],
    spread_heads: int = 0,
) -> int:
    """Forward passes of a sweep, before running it."""
    nodes = len(levels(settings, sigma_range))
    per_row = 1 + conditional_heads + spread_heads
    tapped, extra = tapped_levels(settings, request, sigma_range)
    swept = nodes * items * settings.draws * per_row + len(extra) * items
    return (swept if request.heads else len(tapped) * items) + len(tapped) * probe_items


def tapped_levels(
    settings: SweepSettings, request: NoiseSweep, sigma_range: tuple[float, float]
) -> tuple[list[float], list[float]]:
    """Levels at which taps are kept, ascending, and those of them that are not on the grid."""
    grid = [float(level) for level in levels(settings, sigma_range)]
    strided = grid[:: settings.tap_stride] if request.taps else []
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    asked = [level for level in request.tap_levels if low - 1e-9 <= level <= high + 1e-9]
    # a level of the grid that is asked for in other digits is still that level
    extra = [level for level in asked if min(abs(level - node) for node in grid) > 1e-6]
    near = [min(grid, key=lambda node: abs(node - level)) for level in asked if level not in extra]
    return sorted({*strided, *near, *extra}), sorted(set(extra))


def noise_sweep(
    model: DiffusionModel,
    items: Items,
    probe: Mapping[str, Items],
    request: NoiseSweep,
    settings: SweepSettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
    exact: bool = False,
) -> Record:
    """Run the sweep.

    Args:
        items: evaluated items; their role for probes is "test".
        probe: items of the roles "train" and "val", and further ones of "test", swept at the tapped levels only.
        request: the union of what the metrics need.
        batch: largest number of rows in one forward pass.
        exact: the items come from the population whose posterior the model states.

    Returns:
        The record described above.
    """
    grid = levels(settings, model.sigma_range)
    tapped, extra = tapped_levels(settings, request, model.sigma_range)
    conditions = heads(model, items.factors) if request.heads else {}
    # without heads only the tapped levels carry anything
    used = [float(level) for level in grid] if request.heads else tapped
    draws = settings.draws if request.heads else 1
    values = values_in_use(model, items.factors) if exact and conditions and isinstance(model, ExactModel) else {}
    names = tuple(dict.fromkeys(model.taps + (every_layer(model.network) if request.layers else ())))
    sweep = _Sweep(model, values, batch, meter, names)
    columns: dict[str, list[FloatArray]] = {}
    taps: dict[str, list[FloatArray]] = {}

    def keys_of(group: Items) -> torch.Tensor:
        return item_keys(seed, dataset, "noise_sweep", group.ids, group.x.device)

    groups = [(role, group, keys_of(group)) for role, group in probe.items() if tapped and len(group)]
    own_keys = keys_of(items)
    for t in sorted({*used, *extra}):
        sigma, level = float(sigma_from_log_snr(t)), level_number(t)
        rows: dict[str, list[FloatArray]] = {}
        seen: list[dict[str, FloatArray]] = []
        for draw in range(draws if t in used else 1):
            keep = t in tapped and draw == 0
            given = conditions if t in used else {}
            measured, pooled = sweep.run(items, own_keys, sigma, level, draw, given, keep)
            for name, value in measured.items() if t in used else ():
                rows.setdefault(name, []).append(value)
            seen += [pooled] if keep else []
        for name, parts in rows.items():
            columns.setdefault(name, []).append(np.concatenate(parts))
        if t in tapped:
            for _, group, keys in groups:
                seen.append(sweep.run(group, keys, sigma, level, PROBE_DRAW, {}, True)[1])
            for name in seen[0]:
                taps.setdefault(name, []).append(np.concatenate([part[name] for part in seen]))
    everyone = [("test", items), *((role, group) for role, group, _ in groups)] if tapped else []
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": np.array(used),
        "items": np.array(items.ids * draws),
        **{name: np.stack(parts, axis=1) for name, parts in columns.items()},
        **{f"labels/{f.name}": np.tile(items.column(f.name), draws) for f in items.factors},
        **{f"tap/{name}": np.stack(parts) for name, parts in taps.items()},
    }
    if everyone:
        arrays["tap_log_snr"] = np.array(tapped)
        arrays["tap_items"] = np.array([i for _, group in everyone for i in group.ids])
        arrays["tap_role"] = np.array([role for role, group in everyone for _ in group.ids])
        for f in items.factors:
            arrays[f"tap_labels/{f.name}"] = np.concatenate([g.column(f.name) for _, g in everyone])
    return Record("noise_sweep", arrays, {"heads": list(conditions), "draws": draws, "taps": list(model.taps)})


class _Sweep:
    """One model being swept: a chunk of rows goes through all heads in one forward pass."""

    def __init__(
        self,
        model: DiffusionModel,
        values: Mapping[str, Sequence[int]],
        batch: int,
        meter: Meter,
        taps: Sequence[str],
    ) -> None:
        self.model, self.values, self.batch, self.meter = model, values, batch, meter
        self.taps = Taps(model.network, taps)

    def run(
        self,
        items: Items,
        keys: torch.Tensor,
        sigma: float,
        level: int,
        draw: int,
        conditions: Conditions,
        keep_taps: bool,
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Errors and posteriors (N, …) and, if asked for, taps (N, D) of `items` at one level and draw."""
        given = {head: condition_on(self.model, items, factors) for head, factors in conditions.items()}
        values: dict[str, list[torch.Tensor]] = {}
        pooled: dict[str, list[torch.Tensor]] = {}
        # exact models bound their own memory and are quicker the more rows share a label
        rows = self.batch if isinstance(self.model, ExactModel) else max(1, self.batch // (1 + len(conditions)))
        for part in chunks(len(items), rows):
            x0 = items.x[part]
            x = x0 + sigma * forward_noise(keys[part], level, draw, tuple(x0.shape[1:])).to(x0.dtype)
            sigmas = x.new_full((len(x),), sigma)
            outcome, hidden, plain = self._chunk(x, x0, sigma, {f: g[part] for f, g in given.items()}, keep_taps)
            if isinstance(self.model, ExactModel):
                posterior = self.model.posterior(x, sigmas)
                outcome |= {f"posterior/{name}": p.float() for name, p in posterior.items()}
                if given and self.values:
                    spread = head_spread(self.model, x, sigma, plain, posterior, self.values, self.meter)
                    outcome |= {f"spread/{name}": value for name, value in spread.items()}
                    known = self.model.joint_information(x, sigmas) if "joint" in given else None
                    outcome |= {} if known is None else {"information/joint": known.float()}
                if keep_taps:
                    # a floor far below what matters keeps the features finite
                    logs = [p.clamp_min(1e-12).log() for k, p in outcome.items() if k.startswith("posterior/")]
                    hidden["log-posterior"] = torch.cat(logs, dim=1)
            for store, found in ((values, outcome), (pooled, hidden)):
                for name, value in found.items():
                    store.setdefault(name, []).append(value)
        return (
            {name: torch.cat(parts).cpu().numpy() for name, parts in values.items()},
            {name: torch.cat(parts).cpu().numpy() for name, parts in pooled.items()},
        )

    def _chunk(
        self, x: torch.Tensor, x0: torch.Tensor, sigma: float, given: dict[str, torch.Tensor], keep_taps: bool
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], torch.Tensor]:
        count = len(x)
        null = torch.full((count, len(self.model.factors)), -1, dtype=torch.int64, device=x.device)
        stacked = torch.cat([x] * (1 + len(given)))
        labels = torch.cat([null, *given.values()]) if given else None
        sigmas = x.new_full((len(stacked),), sigma)
        with self.taps.recording():
            denoised = denoise_batched(self.model, stacked, sigmas, labels, len(stacked), self.meter)
        heads = dict(zip(("unconditional", *given), denoised.split(count), strict=True))
        plain = heads["unconditional"]
        outcome = {f"error/{name}": _squared((head - x0) / sigma) for name, head in heads.items()}
        outcome |= {f"gap/{name}": _squared((heads[name] - plain) / sigma) for name in given}
        hidden: dict[str, torch.Tensor] = {}
        if keep_taps:
            hidden["input"] = flatten_small(x / (1 + sigma**2) ** 0.5)
            hidden["denoised"] = flatten_small(plain)
            hidden |= {name: value[:count] for name, value in self.taps.pooled.items()}
        return outcome, hidden, plain


def _squared(difference: torch.Tensor) -> torch.Tensor:
    """(B, *shape) => squared norms (B,), float32."""
    return difference.float().square().flatten(1).sum(dim=1)
