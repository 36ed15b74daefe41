"""Drawings that go with a row: states over density and ridge, and the three stages. Data only; pages draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve
from benchsuite_metrics.ridge_geometry.contours import level_lines, simplified
from benchsuite_metrics.ridge_geometry.points import Floats

#: noise levels of the panels, in root-mean-square radii of the training points; the last level is drawn too
NOISES = (1.0, 1 / 3, 1 / 10)
#: grid nodes along a side, an even number so that lines of symmetry lie between nodes, and paths drawn at most
NODES, PATHS = 120, 150
#: training points beyond which the plane is not drawn: the grid would take too long
POINTS = 2000
#: how far a drawn line may be from the line found, in sides of the panel: a sixth of a pixel
TOLERANCE = 6e-4
#: log density below its maximum of the lines of equal density: those of 1, 2 and 3 standard deviations
BELOW = (0.5, 2.0, 4.5)


def drawings(
    x: NDArray[Any], log_snr: Floats, points: NDArray[Any], curves: Sequence[Curve], dim: int
) -> dict[str, Any]:
    """The drawings of one row, as entries of its `extra`.

    Args:
        x: (P, T, d) states.
        log_snr: (T,).
        points: (N, d) training points.
        curves: of the metric, with their variants.
        dim: the published ridge dimension.
    """
    found = {"drawing stages": stages({curve.variant: curve for curve in curves}, dim, points.shape[1])}
    if points.shape[1] == 2 and len(points) <= POINTS:
        found["drawing paths"] = planar(x, log_snr, points.astype(np.float64))
    return found


# ------------------------------------------------------------------------------------------- stages


def stages(curves: Mapping[str, Curve], dim: int, width: int) -> dict[str, Any]:
    """Reach, align and slide against log-SNR: {title, panels}, see `benchsuite.report.drawings`."""
    rho = curves[f"rho d={dim}"]
    level, distance = np.asarray(rho.log_snr), rho.per_item.mean(axis=0)
    sigma = np.exp(-level / 2)
    align = [
        _line("ridge distance, rms per normal direction", "c0", level, distance * sigma),
        _line("noise floor", "grey", level, sigma),
    ]
    if error := curves.get(f"normal error d={dim}"):
        # an exact denoiser errs by rounding, which is not worth an axis
        value = error.per_item.mean(axis=0)
        own = np.exp(-np.asarray(error.log_snr) / 2)
        align.insert(
            1,
            _line(
                "normal error of the denoiser", "c1", error.log_snr, np.where(value > 1e-3 * own, value, np.nan)
            ),
        )
    panels = [
        _panel(
            "Reach: distance from the ridge over the noise",
            [_line("rho", "c0", level, distance), _line("noise floor", "grey", level, np.ones_like(level))],
            {"log": True, "low": min(0.5, float(distance.min())), "high": max(2.0, float(distance.max()))},
        ),
        _panel("Align: the late normal error is the offset", align, {"log": True}),
    ]
    if slide := curves.get(f"slide d={dim}"):
        flat = np.ones(len(slide.log_snr))
        panels.append(
            _panel(
                "Slide: share of the motion along the ridge, isotropic = 1",
                [
                    _line("slide", "c0", slide.log_snr, slide.per_item.mean(axis=0)),
                    _line("isotropic", "grey", slide.log_snr, flat),
                ],
            )
        )
    return {"title": f"Reach, align, slide: ridge of dimension {dim} in {width}", "panels": panels}


def _panel(title: str, layers: list[dict[str, Any]], y: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"title": title, "x": {"name": "log-SNR"}, "y": dict(y or {}), "layers": layers}


def _line(name: str, style: str, x: NDArray[Any], y: NDArray[Any]) -> dict[str, Any]:
    return {"kind": "line", "name": name, "style": style, "x": _numbers(x, 3), "y": _numbers(y, 5)}


# ------------------------------------------------------------------------------------------- planar


def planar(x: NDArray[Any], log_snr: Floats, points: Floats) -> dict[str, Any]:
    """States (P, T, 2) over lines of equal density and the ridge of dimension 1 at a few levels."""
    radius = float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean()))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    half = float(np.ptp(points, axis=0).max()) / 2 + 0.6 * radius
    low, high = middle - half, middle + half
    wanted = [int(np.abs(-log_snr / 2 - np.log(noise * radius)).argmin()) for noise in NOISES]
    panels = []
    for t in sorted({*wanted, len(log_snr) - 1}):
        sigma = float(np.exp(-log_snr[t] / 2))
        density, ridge = density_and_ridge(points, sigma, low, high)
        states = x[:PATHS, t].astype(np.float64)
        layers = [_lines("density", "grey", density), _lines("ridge", "c2", ridge)]
        layers.append(_dots("samples", "c0", states))
        layers.append(_dots("training points", "ink", points[:500]))
        panels.append(
            {
                "title": f"log-SNR {log_snr[t] + 0.0:.3g}, sigma {sigma:.3g}",  # + 0.0: no negative zero
                "x": {"low": round(float(low[0]), 3), "high": round(float(high[0]), 3)},
                "y": {"low": round(float(low[1]), 3), "high": round(float(high[1]), 3)},
                "square": True,
                "layers": layers,
            }
        )
    return {"title": "Samples over density and ridge", "panels": panels}


def density_and_ridge(
    points: Floats, sigma: float, low: Floats, high: Floats
) -> tuple[list[Floats], list[Floats]]:
    """Lines of equal density, and the ridge of dimension 1, of points (N, 2) smoothed by sigma, as polylines.

    On the ridge the gradient has no part along e, the last eigenvector of the posterior covariance, and the
    eigenvalue of e is below sigma².

    Args:
        low, high: (2,) corners of the box looked at.
    """
    across, down = np.linspace(low[0], high[0], NODES), np.linspace(low[1], high[1], NODES)
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    logits = -((points[None] - grid[:, None]) ** 2).sum(axis=2) / (2 * sigma**2)  # (G, N)
    density = np.logaddexp.reduce(logits, axis=1)
    logits -= density[:, None]
    # as seen from the nearest point and in units of the second-largest weight: at little noise all weights but one
    # are next to nothing, and what they say about the frame must not drown in rounding
    nearest = logits.argmax(axis=1)
    rows = np.arange(len(grid))
    first = logits[rows, nearest].copy()
    logits[rows, nearest] = -np.inf
    unit = logits.max(axis=1)
    weight = np.exp(logits - unit[:, None])
    apart = points[None] - points[nearest][:, None]  # (G, N, 2)
    drift = np.einsum("gn,gni->gi", weight, apart)  # (m - nearest) / e^unit
    gradient = points[nearest] - grid + np.exp(unit)[:, None] * drift  # times sigma²
    away = apart - np.exp(unit)[:, None, None] * drift[:, None]
    shape = np.einsum("gn,gni,gnj->gij", weight, away, away)
    shape += np.exp(first + unit)[:, None, None] * drift[:, :, None] * drift[:, None, :]
    values, vectors = np.linalg.eigh(shape)
    normal = vectors[:, :, 0]
    square = (NODES, NODES)
    ridge = level_lines(
        across,
        down,
        (gradient * normal).sum(axis=1).reshape(square),
        normal.reshape(*square, 2),
        (values[:, 0] * np.exp(unit) < sigma**2).reshape(square),
    )
    density, peak = density.reshape(square), density.max()
    contours = [line for below in BELOW for line in level_lines(across, down, density - (peak - below))]
    tolerance = TOLERANCE * float(high[0] - low[0])
    return [simplified(line, tolerance) for line in contours], [simplified(line, tolerance) for line in ridge]


def _lines(name: str, style: str, lines: Sequence[Floats]) -> dict[str, Any]:
    """Several polylines as one layer, with gaps between."""
    gap = np.full((1, 2), np.nan)
    joined = np.concatenate([part for line in lines for part in (line, gap)]) if lines else np.zeros((0, 2))
    return {"kind": "line", "name": name, "style": style, **_columns(joined)}


def _dots(name: str, style: str, points: Floats) -> dict[str, Any]:
    return {"kind": "dots", "name": name, "style": style, **_columns(points)}


def _columns(points: Floats) -> dict[str, Any]:
    return {"x": _numbers(points[:, 0], 3), "y": _numbers(points[:, 1], 3)}


def _numbers(values: Any, digits: int) -> list[float | None]:
    """To `digits` significant digits or so; None where there is no number."""
    return [float(f"{v:.{digits + 1}g}") if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]
