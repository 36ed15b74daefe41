"""What is drawn of ridge geometry: level lines and ridges against formulas, and the entries of a row."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from benchsuite_datasets.points import Points
from benchsuite_metrics.ridge_geometry.contours import level_lines, simplified
from benchsuite_metrics.ridge_geometry.drawing import density_and_ridge, drawings, planar
from scipy.special import i0e, i1e

from benchsuite import Curve
from benchsuite.report.drawings import drawing

LOW, HIGH = np.array([-4.0, -4.0]), np.array([4.0, 4.0])


def coordinates(**options: Any) -> np.ndarray:
    dataset = Points(**options)
    dataset.load()
    return dataset.split("train").images.double().numpy()


def test_level_lines_of_a_circle() -> None:
    x, y = np.linspace(-2, 2, 60), np.linspace(-1.5, 1.5, 80)
    (line,) = level_lines(x, y, x[None] ** 2 + y[:, None] ** 2 - 1.0)
    np.testing.assert_allclose(np.hypot(*line.T), 1, atol=2e-3)
    assert (line[0] == line[-1]).all()
    length = np.linalg.norm(np.diff(line, axis=0), axis=1).sum()
    assert length == pytest.approx(2 * math.pi, rel=2e-3)


def test_simplified_lines_stay_within_the_tolerance() -> None:
    """A circle of radius 1 needs about pi / sqrt(2 tolerance) chords, and no point is farther off than told."""
    angle = np.linspace(0, 2 * np.pi, 2001)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    circle[-1] = circle[0]
    for tolerance in (1e-1, 1e-2, 1e-3):
        line = simplified(circle, tolerance)
        assert (line[0] == line[-1]).all()
        chords = len(line) - 1
        assert math.pi / math.sqrt(2 * tolerance) <= chords <= 2.5 * math.pi / math.sqrt(2 * tolerance)
        middles = (line[1:] + line[:-1]) / 2  # where a chord is farthest from its arc
        assert (1 - np.hypot(*middles.T)).max() <= tolerance * (1 + 1e-9)
    straight = np.stack([np.linspace(0, 5, 50), np.zeros(50)], axis=1)
    np.testing.assert_array_equal(simplified(straight, 1e-9), [[0, 0], [5, 0]])
    np.testing.assert_array_equal(simplified(straight[:1], 1e-9), [[0, 0]])


def test_level_lines_of_several_pieces_and_of_none() -> None:
    x, y = np.linspace(0, 10, 101), np.linspace(0, 2, 21)
    lines = level_lines(x, y, np.broadcast_to(np.cos(x), (21, 101)))
    assert sorted(float(line[0, 0]) for line in lines) == pytest.approx(
        [math.pi / 2 + k * math.pi for k in range(3)], abs=1e-3
    )
    assert all(np.ptp(line[:, 1]) == pytest.approx(2) for line in lines)
    assert level_lines(x, y, np.ones((21, 101))) == []
    left = np.broadcast_to(x < 3, (21, 101))
    assert len(level_lines(x, y, np.broadcast_to(np.cos(x), (21, 101)), keep=left)) == 1


def test_a_frame_of_any_sign_finds_the_same_line() -> None:
    """The radial part of a field that vanishes at radius 1, along directions whose sign is drawn at random."""
    x = np.linspace(-2, 2, 60)
    grid = np.stack(np.meshgrid(x, x), axis=-1)
    radius = np.linalg.norm(grid, axis=-1)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], radius.shape)
    frame = signs[..., None] * grid / radius[..., None]
    lines = level_lines(x, x, signs * (1 - radius), frame, radius > 0.5)
    assert len(lines) == 1
    np.testing.assert_allclose(np.hypot(*lines[0].T), 1, atol=2e-3)


@pytest.mark.parametrize("sigma", [3.0, 1.0, 0.2, 0.03])
def test_two_points_have_a_straight_ridge_at_every_noise(sigma: float) -> None:
    _, ridge = density_and_ridge(coordinates(), sigma, LOW, HIGH)
    assert len(ridge) == 1
    assert np.abs(ridge[0][:, 1]).max() < 1e-9
    assert np.ptp(ridge[0][:, 0]) == pytest.approx(8, abs=0.2)


@pytest.mark.parametrize("sigma", [0.3, 0.6, 1.0])
def test_the_circle_has_the_ridge_of_the_formula(sigma: float) -> None:
    """r = R I1(z) / I0(z), z = r R / sigma²."""
    _, ridge = density_and_ridge(coordinates(which="circle"), sigma, LOW, HIGH)
    (line,) = ridge
    r = 2.0
    for _ in range(500):
        r = 2 * float(i1e(2 * r / sigma**2) / i0e(2 * r / sigma**2))
    np.testing.assert_allclose(np.hypot(*line.T), r, atol=2e-3)


def test_without_a_ridge_there_is_no_line() -> None:
    """Beyond sigma² = R² / 2 the circle is one bump, the same in all directions."""
    _, ridge = density_and_ridge(coordinates(which="circle"), 1.7, LOW, HIGH)
    assert sum(map(len, ridge)) < 5


def test_lines_of_equal_density_are_those_of_a_gaussian() -> None:
    """Far from other points the lines about one are circles of 1, 2 and 3 sigma."""
    density, _ = density_and_ridge(coordinates(), 0.5, LOW, HIGH)
    radii = sorted(float(np.hypot(line[:, 0] - 3, line[:, 1]).mean()) for line in density if line[:, 0].min() > 0)
    assert radii == pytest.approx([0.5, 1.0, 1.5], abs=0.01)


def curves(levels: np.ndarray, width: int) -> list[Curve]:
    names = ("rho d=1", "normal error d=1", "slide d=1")
    values = np.ones((5, len(levels)))
    items = tuple("abcde")
    return [Curve("", levels, values * (k + 1) / width, items, "", variant=name) for k, name in enumerate(names)]


def test_the_drawings_of_a_row() -> None:
    levels = np.arange(-4.0, 7.0)
    x = np.random.default_rng(0).normal(size=(300, len(levels), 2))
    found = drawings(x, levels, coordinates(which="three-modes"), curves(levels, 2), 1)
    json.dumps(found, allow_nan=False)
    assert set(found) == {"drawing stages", "drawing paths"}
    assert all(drawing(data) is not None for data in found.values())
    reach, align, slide = found["drawing stages"]["panels"]
    assert reach["layers"][0]["y"] == [0.5] * len(levels)
    offset, error, floor = align["layers"]
    np.testing.assert_allclose(offset["y"], 0.5 * np.exp(-levels / 2), rtol=1e-4)
    assert error["y"] == [1.0] * len(levels)
    np.testing.assert_allclose(floor["y"], np.exp(-levels / 2), rtol=1e-4)
    assert slide["layers"][0]["y"] == [1.5] * len(levels)


def test_planes_are_drawn_at_levels_that_suit_the_points_and_at_the_last() -> None:
    points = coordinates(which="three-modes")
    radius = math.sqrt(((points - points.mean(axis=0)) ** 2).sum(axis=1).mean())
    levels = np.arange(-6.0, 9.0)
    x = np.zeros((3, len(levels), 2)) + levels[None, :, None]
    panels = planar(x, levels, points)["panels"]
    samples = [next(layer for layer in panel["layers"] if layer["name"] == "samples") for panel in panels]
    shown = [layer["x"][0] for layer in samples]
    sigmas = np.exp(-np.array(shown) / 2)
    np.testing.assert_allclose(np.log(sigmas[:3] / radius), np.log([1, 1 / 3, 1 / 10]), atol=0.26)
    assert shown[-1] == levels[-1]
    assert all(
        panel["x"]["high"] - panel["x"]["low"] == pytest.approx(panel["y"]["high"] - panel["y"]["low"])
        for panel in panels
    )


def test_wide_spaces_have_stages_only() -> None:
    levels = np.arange(-4.0, 7.0)
    found = drawings(np.zeros((5, len(levels), 3)), levels, coordinates(which="sphere"), curves(levels, 3), 1)
    assert set(found) == {"drawing stages"}
