"""The renderer of `shapes`, held to solids stated by inequalities, to projected points and to exact arithmetic."""

import math

import numpy as np
import pytest
import torch
from benchsuite_datasets import shapes_render
from benchsuite_datasets.shapes import PALETTES, palette
from benchsuite_datasets.shapes_render import AMBIENT, CAMERA, DIFFUSE, FIELD, LIGHT, ROOM, SHADOW, TARGET

SHAPES = ("cube", "cylinder", "sphere", "capsule")
SIDE = 16
ANGLES = (-30.0, 0.0, 20.0)

# What the solids are at size 1, as inequalities; none of the renderer's formulas is used.
SOLIDS = {
    "cube": lambda x, y, z: (np.abs(x) <= 0.7) & (np.abs(y) <= 0.7) & (z >= 0) & (z <= 1.4),
    "cylinder": lambda x, y, z: (x**2 + y**2 <= 0.8**2) & (z >= 0) & (z <= 1.6),
    "sphere": lambda x, y, z: x**2 + y**2 + (z - 0.95) ** 2 <= 0.95**2,
    "capsule": lambda x, y, z: x**2 + y**2 + (z - np.clip(z, 0.56, 2.15 - 0.56)) ** 2 <= 0.56**2,
}


def project(points, angle, side):
    """Column and row (in pixels) and depth of points (n, 3), by a pinhole camera written down anew."""
    azimuth = np.radians(225 + angle)
    eye = np.array([CAMERA[0] * np.cos(azimuth), CAMERA[0] * np.sin(azimuth), CAMERA[1]])
    forward = np.array([0, 0, TARGET]) - eye
    forward /= np.linalg.norm(forward)
    right = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0]) * -1
    down = np.cross(forward, right)
    offset = points - eye
    depth = offset @ forward
    scale = side / 2 / math.tan(math.radians(FIELD / 2)) / depth
    return side / 2 + offset @ right * scale, side / 2 + offset @ down * scale, depth


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouettes_are_those_of_the_solids(shape):
    """A point inside the solid covers the pixel it projects to, and every covered pixel has one."""
    scale = 1.3
    step = np.linspace(-1.3, 1.3, 105)
    x, y, z = np.meshgrid(step, step, np.linspace(0, 2.6, 105), indexing="ij")
    inside = SOLIDS[shape](x, y, z)
    points = np.stack([x[inside], y[inside], z[inside]], axis=1) * scale
    light = shapes_render.lights(SIDE, [scale], [shape], ANGLES, ["plain"])[0, 0, :, 0, 2]
    for angle, image in zip(ANGLES, light.numpy(), strict=True):
        column, row, _ = project(points, angle, SIDE * 4)  # the renderer casts 4 x 4 rays per pixel
        hit = np.zeros((SIDE * 4, SIDE * 4), dtype=bool)
        hit[row.astype(int), column.astype(int)] = True
        tiles = hit.reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3))
        np.testing.assert_array_equal(image[tiles == 1] > 0.2, True)
        np.testing.assert_array_equal(image[tiles == 0], 0)
        assert 10 < (tiles == 1).sum() < (image > 0).sum() < SIDE**2 / 2


def test_light_of_flat_faces_is_lamberts_law():
    sun = np.array(LIGHT) / np.linalg.norm(LIGHT)
    light = shapes_render.lights(64, [1.5], ["cube"], [0.0], ["plain"])[0, 0, 0, 0].numpy()

    def at(point, region):
        column, row, _ = project(np.array([point]), 0.0, 64)
        return light[region, int(row[0]), int(column[0])]

    edge = 1.5 * 0.7
    faces = {(-edge, -0.5, 1.0): -sun[0], (-0.5, -edge, 1.0): -sun[1], (0.0, 0.0, 2 * edge): sun[2]}
    for point, facing in faces.items():
        assert at(point, 2) == pytest.approx(AMBIENT["object"] + DIFFUSE["object"] * facing, abs=1e-4)
    assert at((ROOM, 1.5, 3.0), 1) == pytest.approx(AMBIENT["wall"] - DIFFUSE["wall"] * sun[0], abs=1e-4)
    assert at((1.5, ROOM, 3.0), 1) == pytest.approx(AMBIENT["wall"] - DIFFUSE["wall"] * sun[1], abs=1e-4)
    assert at((-1.4, -1.2, 0.0), 0) == pytest.approx(AMBIENT["floor"] + DIFFUSE["floor"] * sun[2], abs=1e-4)


def test_shadows_fall_where_the_sun_is_hidden():
    sun = np.array(LIGHT) / np.linalg.norm(LIGHT)
    light = shapes_render.lights(64, [1.2], ["sphere"], [30.0], ["plain"])[0, 0, 0, 0, 0].numpy()
    centre = 1.2 * np.array([0, 0, 0.95])
    middle = centre - sun * centre[2] / sun[2]  # the centre's shadow on the floor
    checked = set()
    for x, y in np.random.default_rng(0).uniform(-2.5, 2.5, (3000, 2)):
        point = np.array([x, y, 0.0])
        ray = centre - point
        gap = np.linalg.norm(ray - (ray @ sun) * sun) - 1.2 * 0.95  # from the sphere to the ray to the sun
        column, row, _ = project(point[None], 30.0, 64)
        i, j = int(row[0]), int(column[0])
        if not (0 <= i < 64 and 0 <= j < 64) or abs(gap) < 0.15 or light[i, j] == 0:
            continue
        pure = {AMBIENT["floor"] + DIFFUSE["floor"] * sun[2] * s: s for s in (1.0, SHADOW)}
        expected = SHADOW if gap < 0 and ray @ sun > 0 else 1.0
        nearest = min(pure, key=lambda value: abs(value - light[i, j]))
        if abs(nearest - light[i, j]) > 1e-3:  # a pixel that the object covers in part
            continue
        assert pure[nearest] == expected, (x, y)
        checked.add(expected)
    assert checked == {1.0, SHADOW}
    assert np.linalg.norm(middle[:2]) > 0.3  # it is not hidden under the object


def test_every_pixel_shows_something_and_lights_stay_below_one():
    light = shapes_render.lights(SIDE, [0.95, 1.5], SHAPES, ANGLES, ["plain", "checker"])
    assert light.shape == (2, 4, 3, 2, 3, SIDE, SIDE)
    assert float(light.min()) >= 0
    assert float(light.sum(dim=4).min()) > 0.2
    assert float(light.sum(dim=4).max()) <= 1


@pytest.mark.parametrize("texture", ["checker", "columns", "rows"])
def test_textures_keep_the_mean_and_alternate(texture):
    light = shapes_render.lights(32, [0.95, 1.5], SHAPES, [0.0], ["plain", texture]).double()[:, :, 0]
    plain, grained = light[:, :, 0], light[:, :, 1]  # (scales, shapes, regions, R, R)
    assert torch.equal(plain[:, :, :2], grained[:, :, :2])
    before, after = plain[:, :, 2], grained[:, :, 2]
    step = 2.0**-14  # of light; it is rounded to that in every pixel
    pixels = (before > 0).sum(dim=(-1, -2))
    assert bool(((after - before).sum(dim=(-1, -2)).abs() <= step * pixels).all())
    image_before, image_after = before[1, 2], after[1, 2]  # the large sphere
    ratio = (image_after / image_before)[12:20, 13:19]
    sign = (ratio > 1).long()
    assert ratio.sub(1).abs().sub(shapes_render.GRAIN).abs().max() < 0.01
    along_row, along_column = sign.diff(dim=1).abs(), sign.diff(dim=0).abs()
    changes = {"checker": (1, 1), "columns": (1, 0), "rows": (0, 1)}[texture]
    assert (set(along_row.unique().tolist()), set(along_column.unique().tolist())) == tuple({c} for c in changes)


def test_painting_is_the_sum_of_three_products_and_exact_in_float32():
    light = shapes_render.lights(SIDE, [1.0], ["cube", "capsule"], [-30.0, 30.0], ["plain", "checker"]).flatten(
        0, 3
    )
    colours = [torch.from_numpy(palette(region, 3)).float() for region in PALETTES]
    images = shapes_render.paint(light, *colours)
    assert images.shape == (3, 3, 3, 8, 3, SIDE, SIDE)
    exact = 2 * torch.einsum("gkij,fwokc->fwogcij", light.double(), combined(*colours).double()) - 1
    assert torch.equal(images.double(), exact)  # not a single rounding error: the same bits on every machine
    assert bool((images * 2**21 == (images * 2**21).round()).all())


def combined(floor, wall, thing):
    """Colours of the three regions in every combination: (F, W, O, 3 regions, 3 channels)."""
    sizes = (len(floor), len(wall), len(thing))
    parts = (floor[:, None, None], wall[None, :, None], thing[None, None])
    return torch.stack([part.expand(*sizes, 3) for part in parts], dim=3)


def test_more_rays_change_nothing_but_the_edges(monkeypatch):
    coarse = shapes_render.lights(SIDE, [1.2], ["sphere"], [10.0], ["plain"])
    monkeypatch.setattr(shapes_render, "SAMPLES", 16)
    fine = shapes_render.lights(SIDE, [1.2], ["sphere"], [10.0], ["plain"])
    assert float((coarse - fine).abs().mean()) < 5e-3
    assert float((coarse - fine).abs().max()) < 0.15


def test_orientation_turns_the_view_of_the_whole_room():
    """The corner of the walls, a vertical edge in the room, is where the pinhole camera puts it."""
    angles = np.linspace(-30, 30, 5)
    walls = shapes_render.lights(64, [1.0], ["sphere"], angles, ["plain"])[0, 0, :, 0, 1].numpy()
    corners = []
    for angle, light in zip(angles, walls, strict=True):
        seen = int(np.abs(np.diff(light[2])).argmax()) + 1  # near the upper border, where brightness jumps
        height = next(
            z for z in np.arange(8.0, 0.0, -0.01) if project(np.array([[ROOM, ROOM, z]]), angle, 64)[1][0] > 2.5
        )
        column = project(np.array([[ROOM, ROOM, height]]), angle, 64)[0][0]
        assert abs(seen - column) < 1.5
        corners.append(seen)
    assert min(np.diff(corners)) > 5
