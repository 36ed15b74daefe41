"""A results document as a run would write it, with smooth made-up curves. Deterministic, no engine needed."""

from __future__ import annotations

import math
from typing import Any

H10 = math.log(10)
MI, RETENTION, PROBE = "mutual-information", "class-retention", "linear-probe"
UNITS = {MI: "nats", RETENTION: "fraction", PROBE: "nats"}
PAPERS = {MI: "arXiv:2410.21257", RETENTION: "arXiv:2402.16991", PROBE: "arXiv:1610.01644"}
ONSETS = {MI: -0.95, RETENTION: -0.55, PROBE: -0.70}  #: of the oracle on its own population
WIDTHS = {MI: 4.0, RETENTION: 3.4, PROBE: 4.4}
#: label → paper, clock, gap to the oracle, stretch of the width, tap
MODELS = {
    "ddpm": ("arXiv:2006.11239", "vp", 0.05, 1.02, "mid_block"),
    "score-sde": ("arXiv:2011.13456", "ve", -0.09, 1.06, "up_blocks.0"),
    "latent-diffusion": ("arXiv:2112.10752", "vp", 0.38, 1.15, "mid_block"),
}


def estimate(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def native_time(clock: str, log_snr: float) -> float:
    """VE: linear in log sigma from 0.01 to 50. VP: linear beta from 0.1 to 20 in continuous time."""
    if clock == "ve":
        return min(1.0, max(0.0, (-log_snr / 2 - math.log(0.01)) / (math.log(50) - math.log(0.01))))
    minus_log_alpha_bar = math.log1p(math.exp(-log_snr))  # = 0.1 t + 9.95 t²
    return min(1.0, (-0.1 + math.sqrt(0.01 + 4 * 9.95 * minus_log_alpha_bar)) / (2 * 9.95))


def curve(
    metric: str,
    onset: float,
    width: float,
    *,
    entropy: float = H10,
    variant: str = "",
    tail: float = 0.0,
    clock: str | None = None,
    tap: str | None = None,
) -> dict[str, Any]:
    """A logistic with the given onset and width; `tail` is what is added to it at log-SNR 9."""
    information = UNITS[metric] == "nats" and variant != "accuracy"
    nodes, reach = (16, 6.0) if metric == RETENTION else (64, 9.0)  # a U-turn is expensive: few levels
    floor, ceiling = (0.0, entropy) if information else (math.exp(-entropy), 1.0)
    low = max(-8.0, -reach)
    log_snr = [low + (reach - low) * i / (nodes - 1) for i in range(nodes)]
    way = [1 / (1 + math.exp(-2 * math.log(9) * (x - onset) / width)) for x in log_snr]
    value = [
        floor + (ceiling - floor) * w + tail * max(0.0, x / 9) ** 2 for w, x in zip(way, log_snr, strict=True)
    ]
    spread = [0.02 * ceiling * (0.3 + 4 * w * (1 - w)) for w in way]
    return {
        "variant": variant,
        "unit": "nats" if information else "fraction",
        "floor": floor,
        "ceiling": ceiling,
        "tap": tap,
        "log_snr": log_snr,
        "value": value,
        "low": [v - s for v, s in zip(value, spread, strict=True)],
        "high": [v + s for v, s in zip(value, spread, strict=True)],
        "native_time": [native_time(clock, x) for x in log_snr] if clock else None,
    }


def row(label: str, metric: str, **changes: Any) -> dict[str, Any]:
    """An ok row without values; `changes` replace its entries."""
    base: dict[str, Any] = {
        "cell_id": f"{label}/{metric}",
        "model": label,
        "label": label,
        "family": label,
        "paper": "",
        "oracle": False,
        "space": "pixels",
        "reference": "empirical-bayes",
        "dataset": "digits",
        "split": "test",
        "metric": metric,
        "metric_version": "1",
        "metric_paper": PAPERS.get(metric, ""),
        "unit": UNITS.get(metric, "nats"),
        "factor": "class",
        "status": "ok",
        "stage": "",
        "reason": "",
        "n_items": 397,
        "draws": 2,
        "entropy": H10,
        "scalars": {},
        "scalar_notes": {},
        "flags": [],
        "curves": [],
        "model_fingerprint": "0f" * 16,
        "dataset_fingerprint": "a1" * 16,
        "readout_accuracy": {"class": 0.985},
        "forward_passes": 53210,
        "extra": {},
    }
    return base | changes


def measured(label: str, metric: str, onset: float, gap: float | None, **changes: Any) -> dict[str, Any]:
    """An ok row whose scalars and curve agree; `width`, `tail`, `clock` and `tap` shape the curve."""
    width = changes.pop("width", WIDTHS[metric])
    shape = {key: changes.pop(key) for key in ("tail", "clock", "tap") if key in changes}
    scalars = {
        "log_snr_50": estimate(onset, 0.07),
        "width": estimate(width, 0.15),
        "gap": None if gap is None else estimate(gap, 0.06),
        "area": None if gap is None else estimate(abs(gap) * 0.9 + 0.02, 0.02),
    }
    drawn = curve(metric, onset, width, entropy=changes.get("entropy", H10), **shape)
    return row(label, metric, scalars=scalars, curves=[drawn], **changes)


def unavailable(label: str, metric: str, status: str, reason: str, **changes: Any) -> dict[str, Any]:
    return row(label, metric, status=status, reason=reason, n_items=None, draws=None, **changes)


def board_rows(
    dataset: str = "digits", factor: str = "class", entropy: float = H10, shift: float = 0.0
) -> list[dict[str, Any]]:
    """The oracle's two rows and three models, by three routes."""
    common = {"dataset": dataset, "factor": factor, "entropy": entropy, "readout_accuracy": {factor: 0.985}}
    oracle = common | {"family": "exact", "oracle": True, "reference": None, "extra": {"population": 1200}}
    rows = []
    for split, later in (("train", 0.0), ("test", 0.3)):
        for metric in (MI, RETENTION):
            onset = ONSETS[metric] + shift + later
            rows.append(measured("empirical-bayes", metric, onset, None, split=split, **oracle))
        reason = "an exact model has no activations to probe"
        rows.append(unavailable("empirical-bayes", PROBE, "not_applicable", reason, split=split, **oracle))
    for label, (paper, clock, gap, stretch, tap) in MODELS.items():
        space = "latents" if "latent" in label else "pixels"
        facts: dict[str, Any] = common | {"paper": paper, "space": space, "clock": clock}
        found = {}
        for metric in (MI, RETENTION, PROBE):
            onset, width = ONSETS[metric] + shift + gap, WIDTHS[metric] * stretch
            tail = 0.21 if (label, metric) == ("latent-diffusion", MI) else 0.0
            read = tap if metric == PROBE else None
            found[metric] = measured(label, metric, onset, gap, width=width, tail=tail, tap=read, **facts)
        shape = {"entropy": entropy, "clock": clock}
        plug_in = curve(MI, ONSETS[MI] + shift + gap, 4.2, variant="plug-in", tail=1.8 + gap, **shape)
        found[MI]["curves"].append(plug_in)
        accuracy = curve(PROBE, ONSETS[PROBE] + shift, 4.4, variant="accuracy", tap=tap, **shape)
        found[PROBE]["curves"].append(accuracy)
        if label == "latent-diffusion":
            found[MI]["flags"] = ["tail 0.21 nats above H at log-SNR 9.0"]
        if label == "score-sde":
            found[PROBE]["scalars"]["width"] = None
            found[PROBE]["scalar_notes"] = {"width": "never reaches 90 %"}
        rows += found.values()
    return rows


def ranking(dataset: str = "digits", factor: str = "class") -> list[dict[str, Any]]:
    """Two models tied on rank 1, the third on rank 3."""
    places = {"ddpm": (1, 0.05), "score-sde": (1, 0.09), "latent-diffusion": (3, 0.38)}
    return [
        {
            "dataset": dataset,
            "factor": factor,
            "label": label,
            "rank": rank,
            "score": score,
            "low": score - 0.04,
            "high": score + 0.04,
            "routes": [MI, RETENTION],
        }
        for label, (rank, score) in places.items()
    ]


def consistency(dataset: str = "digits", factor: str = "class") -> list[dict[str, Any]]:
    """Two identities per trained model, the second a bound that only score-sde exceeds."""
    entries = []
    for label, (_, _, gap, _, _) in MODELS.items():
        where = {"label": label, "dataset": dataset, "split": "test", "factor": factor}
        missed = {"check": "fork entropy + I = H", "unit": "nats", **estimate(abs(gap) / 2, 0.01)}
        excess = {"check": "probe ≤ I", "unit": "nats", **estimate(0.004 if gap < 0 else 0.0, 0.0)}
        entries += [where | e | {"worst": 0.1, "at_log_snr": 0.0} for e in (missed, excess)]
    return entries


def verdict(passed: bool, tolerance: float, unit: str, reason: str = "") -> dict[str, Any]:
    bias = 0.4 * tolerance if passed else 3 * tolerance
    limits = {"passed": passed, "tolerance": tolerance, "unit": unit, "bias": bias}
    return {"metric": "", "version": "1", "coverage": 0.95, "reason": reason, **limits}


def document(
    rows: list[dict[str, Any]] | None = None, ranks: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The document of a default run, or one with other rows and ranking."""
    return {
        "schema_version": 1,
        "provenance": {
            "benchsuite": "0.1.0",
            "git": {"revision": "4f1c2ab9d0", "dirty": False},
            "versions": {"torch": "2.13.0", "diffusers": "0.42.1", "numpy": "2.4.6"},
            "plugins": ["benchsuite 0.1.0"],
            "device": "cpu",
            "dtype": "float32",
            "python": "3.11.9",
            "command": ["benchsuite", "run", "--seed", "0"],
            "started": "2025-11-22T10:15:00+00:00",
            "seconds": 212.3,
            "seed": 0,
        },
        "settings": {"datasets": ["digits"], "nodes": 64, "draws": 2},
        "rows": board_rows() if rows is None else rows,
        "ranking": ranking() if ranks is None else ranks,
        "consistency": consistency(),
        "calibration": {
            MI: verdict(True, 0.03, "nats"),
            RETENTION: verdict(True, 0.01, "fraction"),
            PROBE: verdict(False, 0.03, "nats", "bias 0.09 nats on exact-mixture at log-SNR 0.0"),
        },
    }


NASTY = "<script>|x"


def crowded_document() -> dict[str, Any]:
    """Two data sets, three boards, and every way in which a cell can have no value."""
    rows = [
        *board_rows(),
        *board_rows("fashion-mnist", "class", H10, 0.6),
        *board_rows("fashion-mnist", "garment", math.log(4), -1.4),
        unavailable("ddpm-unconditional", MI, "not_applicable", "needs a conditional and an unconditional head"),
        measured("ddpm-unconditional", RETENTION, -0.42, 0.13, clock="vp"),
        measured("ddpm-unconditional", PROBE, -0.6, None, clock="vp", tap="mid_block"),
    ]
    for metric in (MI, RETENTION, PROBE):
        rows.append(
            unavailable(NASTY, metric, "failed", "weights.safetensors: NaN in 3 of 214 tensors", stage="load")
        )
    for metric in (MI, RETENTION):
        rows.append(unavailable("big-dit", metric, "oom", "out of memory at batch 1", stage="noise_sweep"))
    missing = {"dataset": "fashion-mnist", "factor": ""}
    rows.append(unavailable("hub-model", MI, "not_installed", "pip install benchsuite-hub", **missing))
    ranks = [*ranking(), *ranking("fashion-mnist", "class"), *ranking("fashion-mnist", "garment")]
    return document(rows, ranks)


# ------------------------------------------------------------------------------------- several factors

FORK, PATH = "fork-entropy", "path-filter"
#: factor → number of values and onset of the oracle by mutual information; the last one never emerges
FACTORS = {
    "floor": (10, -6.0),
    "wall": (10, -5.8),
    "object": (10, -3.2),
    "scale": (8, -1.0),
    "shape": (4, -0.2),
    "orientation": (15, 0.9),
    "texture": (4, 3.4),
    "dummy": (2, None),
}
#: label → gap to the oracle
ZOO = {"ddpm": 0.1, "score-sde": -0.05, "latent-diffusion": 0.5, "dit": 0.25, "ddpm-small": 0.8}


def falling(drawn: dict[str, Any], entropy: float) -> dict[str, Any]:
    """Information turned into the entropy that is left, on every sixth node."""
    kept = {key: values[::6] for key, values in drawn.items() if isinstance(values, list)}
    low, high = [entropy - v for v in kept["high"]], [entropy - v for v in kept["low"]]
    turned = {"value": [entropy - v for v in kept["value"]], "low": low, "high": high}
    return drawn | kept | turned | {"floor": entropy, "ceiling": 0.0, "unit": "nats"}


def _routes(label: str, factor: str, gap: float, swap: float, **facts: Any) -> list[dict[str, Any]]:
    """Rows of one model and factor by four routes; `swap` moves the onset further."""
    size, onset = FACTORS[factor]
    entropy = math.log(size)
    at = 40.0 if onset is None else onset + gap + swap  # beyond the grid: never
    common = {"dataset": "shapes", "factor": factor, "entropy": entropy, "readout_accuracy": {factor: 0.99}}
    rows = []
    for metric, shift, width in ((MI, 0.0, 3.0), (FORK, 0.1, 3.2), (PATH, -0.15, 3.2), (PROBE, 0.5, 3.4)):
        if facts.get("oracle") and metric in (PATH, PROBE):
            continue
        drawn = curve(MI, at + shift, width, entropy=entropy)
        drawn = falling(drawn, entropy) if metric == FORK else drawn
        scalars: dict[str, Any] = {"log_snr_50": None, "width": None, "gap": None, "area": None}
        if onset is not None:
            scalars["log_snr_50"] = estimate(at + shift, 0.08)
            scalars["width"] = estimate(width, 0.15)
        if onset is not None and not facts.get("oracle"):
            scalars |= {"gap": estimate(gap + swap, 0.1), "area": estimate(entropy * abs(gap + swap), 0.03)}
        notes = {} if onset is not None else {"log_snr_50": "never reaches 50% of the way from floor to ceiling"}
        made = row(
            label, metric, unit="nats", scalars=scalars, scalar_notes=notes, curves=[drawn], **common, **facts
        )
        rows.append(made | {"lower_bound": metric == PROBE})
    return rows


def factors_document() -> dict[str, Any]:
    """Eight factors by four routes for five models and their oracle; `dit` fixes shape before scale."""
    rows, orders = [], []
    oracle = {
        "oracle": True,
        "reference": None,
        "family": "exact",
        "extra": {"population": 9000, "enumerated": True},
    }
    for factor in FACTORS:
        for split in ("train", "test"):
            rows += _routes("empirical-bayes", factor, 0.0, 0.0, split=split, **oracle)
        for label, gap in ZOO.items():
            swap = {"scale": 0.6, "shape": -0.6}.get(factor, 0.0) if label == "dit" else 0.0
            rows += _routes(label, factor, gap, swap)
    for found in rows:
        if (found["label"], found["factor"], found["metric"]) == ("ddpm-small", "shape", FORK):
            found["flags"] = ["disagrees with mutual-information: 0.21 H below it at log-SNR 1.0"]
    cells = dict.fromkeys((found["label"], found["split"], found["metric"]) for found in rows)
    for label, split, metric in cells:
        mine = [r for r in rows if (r["label"], r["split"], r["metric"]) == (label, split, metric)]
        emerged = sorted(
            (r for r in mine if r["scalars"]["log_snr_50"]), key=lambda r: r["scalars"]["log_snr_50"]["value"]
        )
        order = [
            {"factor": r["factor"], "tied": r["factor"] == "wall", "log_snr_50": onset["value"]}
            | {"low": onset["low"], "high": onset["high"]}
            for r in emerged
            for onset in [r["scalars"]["log_snr_50"]]
        ]
        compared = label in ZOO and metric in (MI, FORK)
        value = 1.0 if label != "dit" else 19 / 21  # one of 21 pairs is reversed
        orders.append(
            {"label": label, "dataset": "shapes", "split": split, "metric": metric, "order": order}
            | {"tau": {"value": value, "low": value - 0.1, "high": 1.0} if compared else None}
            | {"compared": 7 if compared else 0, "reference": "empirical-bayes" if compared else None}
            | {"left_out": {"dummy": "never reaches 50% of the way from floor to ceiling"}}
        )
    return document(rows, []) | {"schema_version": 2, "emergence": orders, "consistency": [], "calibration": {}}
