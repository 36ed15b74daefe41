"""Feature similarity: how much of an image each hidden layer of a network still recognises after a U-turn.

Forward–backward experiments of Sclocchi, Favero & Wyart (arXiv:2402.16991): between an image and its U-turned
copy the deep layers of a classifier stay alike up to a threshold of noise and drop there at once, while the
shallow layers lose similarity gradually.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve, Metric, NotApplicableError, Record, UTurn
from benchsuite.contracts import FloatArray
from benchsuite.statistics import LEVEL, cluster_means, resampling_weights

#: resamples of the items behind the interval of the flip
REPLICATES = 400


class FeatureSimilarity(Metric):
    """Cosine similarity of the readout's hidden layers between items and their U-turned copies.

    Published is the deepest layer that the readout shows (the logits, if it shows them); its onset is where the
    similarity is half way from chance to 1. Layers are standardised per channel by mean and centred standard
    deviation over the clean items. 1 = unchanged; the floor is the similarity of copies from the noisiest level
    with another item, stated per layer in ``extra``.

    Variants: every other layer by its name, shallow to deep; ``distance/LAYER``, the normalised L2 form
    ‖a - b‖² / ‖a‖‖b‖; ``top-1/FACTOR``, how often the readout's verdict is the same. ``extra["flip"]`` is the
    log-SNR at which the order of the layers turns over: above it the deepest layer stays more alike than the
    shallowest, below it less.
    """

    name = "feature-similarity"
    version = "1"
    paper = "arXiv:2402.16991"
    unit = "cosine"
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    needs = (UTurn(features=True),)
    per_factor = False
    tolerance = 0.03

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Curves of all layers in both forms, and of verdicts."""
        record = records["u_turn"]
        layers: list[str] = record.meta["layers"]
        if not layers:
            raise NotApplicableError("the data set's readout shows no hidden layers")
        items = tuple(record["items"])
        floors = {layer: float(record[f"unrelated/{layer}"][:, 0].mean()) for layer in layers}
        common: dict[str, Any] = {"factor": "", "log_snr": record["log_snr"], "items": items}
        facts = {name: record.meta[name] for name in ("steps", "method", "spacing")}
        facts |= {"layers": layers, "floors": floors, "flip": _flip(record, layers, items)}
        deepest, curves = layers[-1], []
        for layer in layers:
            similarity = record[f"similarity/{layer}"].astype(np.float64)
            published = layer == deepest
            curves.append(
                Curve(
                    **common,
                    per_item=similarity,
                    unit=self.unit,
                    floor=floors[layer],
                    variant="" if published else layer,
                    tap=layer,
                    extra=facts if published else {},
                )
            )
        for layer in layers:
            distance = record[f"distance/{layer}"].astype(np.float64)
            chance = 2 * (1 - floors[layer])  # between vectors of equal length
            curves.append(
                Curve(
                    **common,
                    per_item=distance,
                    unit="normalised squared distance",
                    floor=chance,
                    ceiling=0.0,
                    variant=f"distance/{layer}",
                    tap=layer,
                )
            )
        for name in record.arrays:
            if name.startswith("judged/"):
                factor = name.removeprefix("judged/")
                hits, chance = agreement(record, factor)
                curves.append(
                    Curve(**common, per_item=hits, unit="probability", floor=chance, variant=f"top-1/{factor}")
                )
        return sorted(curves, key=lambda curve: curve.variant != "")


def agreement(record: Record, factor: str) -> tuple[FloatArray, float]:
    """Whether the most probable value is that of the item (M, U), and how often it would be by chance."""
    size = record.factor_size(factor)
    judged = record[f"judged/{factor}"]  # (M, U, K)
    if not record.meta.get("stated"):  # else it is the law of the most probable value, not an opinion
        judged = np.eye(size)[_top(judged)]
    reference = record[f"reference/{factor}"]
    if reference.shape[1] == 1:
        value = _top(reference)
    else:  # a posterior given the noised item; the item's own value is its label
        value = record[f"labels/{factor}"][:, None]
    own = np.eye(size)[value]  # (M, 1, K)
    chance = judged[:, 0].mean(axis=0) @ own[:, 0].mean(axis=0)
    return (judged * own).sum(axis=2).astype(np.float64), float(chance)


def flip_point(deep: FloatArray, shallow: FloatArray, log_snr: FloatArray) -> float:
    """Where the deep layer, coming from little noise, falls below the shallow one; NaN if it does not.

    Args:
        deep, shallow: (T,) mean similarities.
        log_snr: (T,) ascending.

    Returns:
        The interpolated zero of deep - shallow next to its maximum, on the noisier side: both layers tend to 1
        at the one end and to chance at the other, where the sign of their difference means nothing.
    """
    lead = deep - shallow
    top = int(lead.argmax())
    below = np.flatnonzero(lead[:top] < 0)
    if not lead[top] > 0 or not len(below):
        return float("nan")
    i = below[-1]
    share = lead[i] / (lead[i] - lead[i + 1])
    return float(log_snr[i] + share * (log_snr[i + 1] - log_snr[i]))


def _flip(record: Record, layers: Sequence[str], items: tuple[str, ...]) -> dict[str, Any] | None:
    """The flip between the deepest and the shallowest layer with its bootstrap interval; None if there is none."""
    if len(layers) < 2:
        return None
    log_snr, names = record["log_snr"], (layers[-1], layers[0])
    pair = [cluster_means(record[f"similarity/{layer}"].astype(np.float64), items) for layer in names]
    (deep, ids), (shallow, _) = pair
    value = flip_point(deep.mean(axis=0), shallow.mean(axis=0), log_snr)
    if not np.isfinite(value):
        return None
    weights = resampling_weights(ids, REPLICATES, record.meta["seed"])
    found = np.array([flip_point(d, s, log_snr) for d, s in zip(weights @ deep, weights @ shallow, strict=True)])
    flip: dict[str, Any] = {"log_snr": value, "deep": names[0], "shallow": names[1], "low": None, "high": None}
    known = found[np.isfinite(found)]
    if len(known) >= LEVEL * len(found):
        tail = (1 - LEVEL) / 2
        low, high = np.quantile(known, [tail, 1 - tail])
        flip |= {"low": float(min(low, value)), "high": float(max(high, value))}
    return flip


def _top(p: NDArray[Any]) -> NDArray[np.int64]:
    top: NDArray[np.int64] = p.argmax(axis=-1)
    return top
