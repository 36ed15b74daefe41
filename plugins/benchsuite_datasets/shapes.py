"""Rendered rooms with one object: every combination of seven factors, once."""

from __future__ import annotations

import colorsys
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchsuite import Factor, Split, UsageError
from benchsuite_datasets.base import ImageDataset, take
from benchsuite_datasets.shapes_prior import multiplicities, parse_prior
from benchsuite_datasets.splits import stratified_order

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

SHAPES = ("cube", "cylinder", "sphere", "capsule")
TEXTURES = ("plain", "checker", "columns", "rows")
SCALES = (0.95, 1.5)  # smallest and largest
ORIENTATIONS = (-30.0, 30.0)  # degrees
#: first hue (in steps of the palette), saturation and value: no two regions ever have the same colour
PALETTES = {"floor": (0.0, 0.9, 0.7), "wall": (0.5, 0.55, 1.0), "object": (0.25, 0.85, 1.0)}
SMALLEST = 16  # pixels per side
HELD_OUT = 10  # one in ten for "val", as many for "test"
LARGEST = 2**34  # bytes of a population
SHIPPED = (32, 5, 5, 5, 3, 4, 3, 2)  # resolution and levels that the readout in the package judges


class Shapes(ImageDataset):
    """A coloured room with one object on the floor, (3, R, R): all combinations of seven factors, each once.

    Factors, in the order of the labels: ``floor``, ``wall``, ``object`` (hues, equidistant on the colour circle),
    ``scale`` (0.95 … 1.5), ``shape`` (cube, cylinder, sphere, capsule), ``orientation`` (the room and all that is
    in it, turned by -30° … 30°) and ``texture``, a pattern of single pixels on the object that leaves its mean
    colour alone: a local detail, and the first thing to vanish in noise. By default 5 · 5 · 5 · 3 · 4 · 3 · 2 =
    9 000 images. They follow 3D Shapes (Burgess & Kim 2018), are rendered here, and are the same to the last bit
    on every machine.

    The images are the whole population: "train" is all of them, and "val" and "test" are disjoint random tenths
    of it, whose items keep the ids (``shapes/2-0-4-1-3-1-0``, the labels) that they have in "train". The first
    four fifths of "train" are in neither.

    Args:
        resolution: pixels per side, at least 16.
        floor, wall, object: numbers of hues.
        scale, orientation: numbers of equidistant values.
        shape, texture: how many of cube, cylinder, sphere, capsule; of plain, checker, columns, rows.
        prior: probabilities of a factor's values, ``shape:0.4/0.3/0.2/0.1``, several joined by ``+``. The
            population keeps its size; likely combinations occur more than once, each with an id of its own.
        dummy_factor: if K >= 2, append a factor ``dummy`` with K values. Every image then occurs with each of
            them, so that in the population it is exactly independent of the image.
        readout: directory of a trained readout. One ships for the default resolution and levels; make others with
            ``benchsuite train image-readout:shapes:resolution=64,shift=0``.

    Raises:
        UsageError: a resolution below 16, a factor with fewer than 2 values or more than there are, an
            impossible prior, or a population beyond 16 GiB.
    """

    name = "shapes"
    enumerated = True

    def __init__(
        self,
        resolution: int = 32,
        floor: int = 5,
        wall: int = 5,
        object: int = 5,
        scale: int = 3,
        shape: int = 4,
        orientation: int = 3,
        texture: int = 2,
        prior: str = "",
        dummy_factor: int = 0,
        readout: str = "",
    ) -> None:
        super().__init__(dummy_factor, readout)
        self.resolution = resolution
        self.levels = {
            "floor": floor, "wall": wall, "object": object, "scale": scale,
            "shape": shape, "orientation": orientation, "texture": texture,
        }  # fmt: skip
        if resolution < SMALLEST:
            raise UsageError(
                f"{self.name}: resolution={resolution} is too small for its details; take {SMALLEST} or more"
            )
        most = {"shape": len(SHAPES), "texture": len(TEXTURES)}
        for factor, size in self.levels.items():
            if size < 2:
                raise UsageError(f"{self.name}: {factor}={size}: a factor needs at least 2 values to be one")
            if size > most.get(factor, size):
                raise UsageError(f"{self.name}: {factor}={size}: there are only {most[factor]}")
        self.prior = parse_prior(prior, self.levels, self.name)
        size = 12 * resolution**2 * math.prod(self.levels.values()) * max(1, dummy_factor)
        if size > LARGEST:
            raise UsageError(
                f"{self.name}: {math.prod(self.levels.values())} combinations need {size / 2**30:.0f} GiB, more "
                f"than {LARGEST / 2**30:.0f}; take fewer values or a lower resolution"
            )

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`."""
        import torch

        images, factors = self.render()
        combinations = np.stack(np.unravel_index(np.arange(len(images)), tuple(self.levels.values())), axis=1)
        ids = [f"{self.name}/" + "-".join(map(str, row)) for row in combinations.tolist()]
        chosen = np.arange(len(images))
        if self.prior:
            chosen, ids = repeated(multiplicities(self.levels, self.prior), ids)
            self._require_every_value(combinations[chosen])
            images = images[torch.from_numpy(chosen)]
        labels = torch.from_numpy(combinations[chosen])
        order = torch.from_numpy(stratified_order(ids, combinations[chosen, 0]))
        tenth = len(ids) // HELD_OUT
        parts = {
            "train": torch.cat([order[2 * tenth :], order[: 2 * tenth]]),
            "val": order[:tenth],
            "test": order[tenth : 2 * tenth],
        }
        return factors, {name: take(images, labels, tuple(ids), index) for name, index in parts.items()}

    def render(self) -> tuple[torch.Tensor, tuple[Factor, ...]]:
        """All images (N, 3, R, R) in lexicographic order of the labels, and the factors."""
        import torch

        from benchsuite_datasets import shapes_render

        scales = np.linspace(*SCALES, self.levels["scale"]).tolist()
        shapes = SHAPES[: self.levels["shape"]]
        orientations = np.linspace(*ORIENTATIONS, self.levels["orientation"]).tolist()
        textures = TEXTURES[: self.levels["texture"]]
        light = shapes_render.lights(self.resolution, scales, shapes, orientations, textures)
        colours = {region: palette(region, self.levels[region]) for region in PALETTES}
        images = shapes_render.paint(
            light.flatten(0, 3), *(torch.from_numpy(colour).float() for colour in colours.values())
        )
        factors = (
            *(Factor(region, hue_names(region, self.levels[region])) for region in PALETTES),
            Factor("scale", tuple(f"{scale:.4g}" for scale in scales)),
            Factor("shape", shapes),
            Factor("orientation", tuple(f"{angle:.4g}°" for angle in orientations)),
            Factor("texture", textures),
        )
        return images.flatten(0, 3), factors

    def readout_path(self) -> Path | None:
        """See `ImageDataset.readout_path`; what ships knows the default images only."""
        path = super().readout_path()
        shipped = (self.resolution, *self.levels.values()) == SHIPPED
        return path if shipped or self._readout_directory is not None else None

    def with_dummy(self, part: Split) -> Split:
        """`part` with every item once per value of the dummy; the copies of an item are far apart."""
        import torch

        k, n = self.dummy_factor, len(part)
        value = (torch.arange(n)[None] + torch.arange(k)[:, None]).flatten() % k  # copy c of item i: i + c
        return replace(
            part,
            images=part.images.repeat(k, 1, 1, 1),
            labels=torch.cat([part.labels.repeat(k, 1), value[:, None]], dim=1),
            ids=tuple(f"{name}/dummy-{v}" for name, v in zip(part.ids * k, value.tolist(), strict=True)),
        )

    def _require_every_value(self, labels: NDArray[np.int64]) -> None:
        for column, (factor, size) in enumerate(self.levels.items()):
            for value in range(size):
                if not (labels[:, column] == value).any():
                    raise UsageError(
                        f"{self.name}: with {self.prior[factor][value]:g} for value {value} of {factor}, none of "
                        f"{len(labels)} images has it; raise it"
                    )


def palette(region: str, count: int) -> NDArray[np.float64]:
    """`count` colours (count, 3) of equidistant hues, one saturation and one value: multiples of 1/256 below 1."""
    start, saturation, value = PALETTES[region]
    hues = [colorsys.hsv_to_rgb((start + k) / count % 1, saturation, value) for k in range(count)]
    return np.round(np.array(hues) * 255) / 256


def hue_names(region: str, count: int) -> tuple[str, ...]:
    """Hues in degrees, for reading."""
    start = PALETTES[region][0]
    return tuple(f"{360 * (start + k) / count:.4g}°" for k in range(count))


def repeated(counts: NDArray[np.int64], ids: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Indices of the combinations, each as often as counted, and ids: copies are called ``…/copy-1`` and so on."""
    chosen = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    copy = np.arange(len(chosen)) - first[chosen]
    return chosen, [
        ids[i] + (f"/copy-{c}" if c else "") for i, c in zip(chosen.tolist(), copy.tolist(), strict=True)
    ]
