"""Ray casting of the room of `shapes`: which light of floor, wall and object reaches each pixel.

A pixel is linear in the three colours: value = floor light x floor colour + wall light x wall colour + object
light x object colour. The lights depend on the geometry alone, so that a population of F x W x O x G images
costs G ray-cast geometries and three outer products.

The scene (z up, lengths in units of the object's size at scale 1): a floor z = 0, two walls x = ROOM and
y = ROOM that meet in a corner, an object standing at the origin, its axes along the walls. The camera looks at
it from the opposite side of the corner and is turned about the vertical axis by the orientation, so that corner,
shadow and object all turn. Light is directional and fixed to the room, with an ambient part and cast shadows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

REGIONS = ("floor", "wall", "object")

ROOM = 3.4  # distance of the walls from the object
CAMERA = (5.3, 3.9)  # distance from the vertical axis and height
TARGET = 1.0  # height of the point looked at
FIELD = 47.0  # degrees, vertical and horizontal
LIGHT = (-0.80, -0.30, 1.05)  # towards the light
AMBIENT = {"floor": 0.45, "wall": 0.50, "object": 0.30}
DIFFUSE = {"floor": 0.55, "wall": 0.55, "object": 0.56}
SHADOW = 0.5  # share of the diffuse light that is left in a shadow
GRAIN = 0.10  # relative amplitude of the texture
SAMPLES = 4  # rays per pixel and axis
STEPS = 2**14  # of light, from none to full
FAR = 1e9

Hit = tuple[torch.Tensor, torch.Tensor]  # distance (…,), FAR where nothing is hit; unit normal (…, 3)


def lights(
    resolution: int,
    scales: Sequence[float],
    shapes: Sequence[str],
    orientations: Sequence[float],
    textures: Sequence[str],
) -> torch.Tensor:
    """The light of floor, wall and object in every geometry.

    Args:
        resolution: pixels per side R.
        scales: sizes of the object.
        shapes: keys of `HITS`.
        orientations: of the camera about the vertical axis, degrees.
        textures: "plain" or a pattern of `grain`.

    Returns:
        (scales, shapes, orientations, textures, 3, R, R) float32 in [0, 1], regions in the order of `REGIONS`,
        rounded to multiples of 2^-14: with colours of 8 bits every pixel is exact in float32, so that images do
        not depend on the machine.
    """
    origin, direction = camera(resolution, orientations)
    rows = []
    for scale in scales:
        for shape in shapes:
            plain = trace(origin, direction, scale, shape)  # (A, 3, rays), one per orientation
            tiles = plain.view(len(orientations), 3, resolution, SAMPLES, resolution, SAMPLES).mean(dim=(3, 5))
            rows.append(torch.stack([grained(tiles, texture) for texture in textures], dim=1))
    size = (len(scales), len(shapes), len(orientations), len(textures), 3, resolution, resolution)
    return (torch.stack(rows).view(size) * STEPS).round().div(STEPS).float()


def paint(light: torch.Tensor, floor: torch.Tensor, wall: torch.Tensor, thing: torch.Tensor) -> torch.Tensor:
    """Images of all combinations of colours and geometries.

    Args:
        light: (G, 3, R, R), from `lights`.
        floor, wall, thing: colours (F, 3), (W, 3), (O, 3) in [0, 1], multiples of 2^-8; `thing` is the object's.

    Returns:
        (F, W, O, G, 3, R, R) float32 in [-1, 1].
    """
    count, _, side, _ = light.shape
    out = light.new_empty(len(floor), len(wall), len(thing), count, 3, side, side)
    of_floor, of_wall, of_thing = (  # (colours, G, 3, R, R), 0 … 2
        2 * colour[:, None, :, None, None] * light[None, :, i, None]
        for i, colour in enumerate((floor, wall, thing))
    )
    for f, back in enumerate(of_floor - 1):
        for w, side_wall in enumerate(of_wall):
            torch.add(of_thing, back + side_wall, out=out[f, w])
    return out


def grained(light: torch.Tensor, texture: str) -> torch.Tensor:
    """`light` (A, 3, R, R) with the object's light modulated pixel by pixel, its sum over the image kept."""
    if texture == "plain":
        return light
    thing = light[:, 2]
    sign = grain(texture, thing.shape[-1]).to(thing)
    sign = sign - (thing * sign).sum(dim=(1, 2), keepdim=True) / thing.sum(dim=(1, 2), keepdim=True)
    return torch.stack([light[:, 0], light[:, 1], thing * (1 + GRAIN * sign)], dim=1)


def grain(texture: str, side: int) -> torch.Tensor:
    """The pattern of a texture on the pixel grid: (side, side) of ±1, the finest that pixels can hold."""
    row, column = torch.arange(side)[:, None], torch.arange(side)[None, :]
    parity = {"checker": row + column, "columns": column + 0 * row, "rows": row + 0 * column}[texture]
    return 1.0 - 2.0 * (parity % 2)


def camera(resolution: int, orientations: Sequence[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins (A, 1, 3) and unit directions (A, rays, 3) of SAMPLES² rays per pixel, row by row, float64."""
    azimuth = torch.tensor([math.radians(225 + a) for a in orientations], dtype=torch.float64)
    distance, height = CAMERA
    flat = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=1)  # (A, 3)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    origin = distance * flat + height * up
    forward = TARGET * up - origin
    forward = forward / forward.norm(dim=1, keepdim=True)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    right = right / right.norm(dim=1, keepdim=True)
    above = torch.linalg.cross(right, forward)
    count = resolution * SAMPLES
    place = ((torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1) * math.tan(math.radians(FIELD / 2))
    v, u = torch.meshgrid(-place, place, indexing="ij")
    rays = (
        forward[:, None] + u.reshape(1, -1, 1) * right[:, None] + v.reshape(1, -1, 1) * above[:, None]
    )  # (A, rays, 3)
    return origin[:, None], rays / rays.norm(dim=2, keepdim=True)


def trace(origin: torch.Tensor, direction: torch.Tensor, scale: float, shape: str) -> torch.Tensor:
    """Light of floor, wall and object along each ray: (A, 3, rays), nonzero for the region that is hit."""
    sun = torch.tensor(LIGHT, dtype=torch.float64)
    sun = sun / sun.norm()
    distance, normal = HITS[shape](origin / scale, direction)
    distance = distance * scale
    room, wall = hit_room(origin, direction)  # wall: 0 = floor, 1 = x, 2 = y
    point = origin + room[..., None] * direction
    shaded = HITS[shape](point / scale, sun.expand_as(point))[0] < FAR
    facing = torch.stack([sun[2], -sun[0], -sun[1]])[wall] * torch.where(shaded, SHADOW, 1.0)
    seen = distance < room
    floor = torch.where(~seen & (wall == 0), AMBIENT["floor"] + DIFFUSE["floor"] * facing, 0.0)
    walls = torch.where(~seen & (wall > 0), AMBIENT["wall"] + DIFFUSE["wall"] * facing, 0.0)
    lit = (normal * sun).sum(dim=-1).clamp_min(0)
    thing = torch.where(seen, AMBIENT["object"] + DIFFUSE["object"] * lit, 0.0)
    return torch.stack([floor, walls, thing], dim=1)


# ------------------------------------------------------------------- where a ray meets a thing of size 1


def hit_room(origin: torch.Tensor, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the room and which part is hit: 0 floor, 1 wall x = ROOM, 2 wall y = ROOM."""
    planes = torch.stack(
        [
            along(-origin[..., 2], direction[..., 2]),
            along(ROOM - origin[..., 0], direction[..., 0]),
            along(ROOM - origin[..., 1], direction[..., 1]),
        ]
    )
    distance, which = planes.min(dim=0)
    return distance, which


def hit_cube(origin: torch.Tensor, direction: torch.Tensor) -> Hit:
    """An upright cube of edge 1.4 on the floor."""
    half = 0.7
    centre = torch.tensor([0.0, 0.0, half], dtype=origin.dtype)
    inverse = 1 / torch.where(direction.abs() < 1e-12, torch.full_like(direction, 1e-12), direction)
    low = (centre - half - origin) * inverse
    high = (centre + half - origin) * inverse
    near, axis = torch.minimum(low, high).max(dim=-1)
    far = torch.maximum(low, high).amin(dim=-1)
    normal = torch.nn.functional.one_hot(axis, 3) * -direction.sign()
    return torch.where((near < far) & (near > 1e-6), near, FAR), normal


def hit_sphere(origin: torch.Tensor, direction: torch.Tensor) -> Hit:
    """A sphere of radius 0.95 on the floor."""
    return ball(origin, direction, 0.95, 0.95)


def hit_cylinder(origin: torch.Tensor, direction: torch.Tensor) -> Hit:
    """An upright cylinder of radius 0.8 and height 1.6."""
    radius, height = 0.8, 1.6
    side = tube(origin, direction, radius, 0.0, height)
    top = along(height - origin[..., 2], direction[..., 2])
    point = origin + top[..., None] * direction
    inside = point[..., 0] ** 2 + point[..., 1] ** 2 <= radius**2
    up = torch.tensor([0.0, 0.0, 1.0], dtype=origin.dtype).expand_as(direction)
    return nearest([side, (torch.where(inside, top, FAR), up)])


def hit_capsule(origin: torch.Tensor, direction: torch.Tensor) -> Hit:
    """An upright capsule of radius 0.56 and height 2.15."""
    radius, height = 0.56, 2.15
    side = tube(origin, direction, radius, radius, height - radius)
    return nearest([side, *(ball(origin, direction, radius, z) for z in (radius, height - radius))])


HITS: dict[str, Callable[[torch.Tensor, torch.Tensor], Hit]] = {
    "cube": hit_cube, "cylinder": hit_cylinder, "sphere": hit_sphere, "capsule": hit_capsule,
}  # fmt: skip


def ball(origin: torch.Tensor, direction: torch.Tensor, radius: float, height: float) -> Hit:
    """A ball whose centre is `height` above the floor."""
    offset = origin - torch.tensor([0.0, 0.0, height], dtype=origin.dtype)
    b = (offset * direction).sum(dim=-1)
    distance = first_root(torch.ones_like(b), b, (offset * offset).sum(dim=-1) - radius**2)
    return distance, (offset + distance[..., None] * direction) / radius


def tube(origin: torch.Tensor, direction: torch.Tensor, radius: float, low: float, high: float) -> Hit:
    """The side of an upright cylinder between two heights."""
    o, d = origin[..., :2], direction[..., :2]
    distance = first_root((d * d).sum(dim=-1), (o * d).sum(dim=-1), (o * o).sum(dim=-1) - radius**2)
    point = origin + distance[..., None] * direction
    between = (point[..., 2] >= low) & (point[..., 2] <= high)
    normal = torch.cat([point[..., :2] / radius, torch.zeros_like(point[..., :1])], dim=-1)
    return torch.where(between, distance, FAR), normal


def nearest(hits: Sequence[Hit]) -> Hit:
    """The first of several things along each ray."""
    distance, which = torch.stack([distance for distance, _ in hits]).min(dim=0)
    normals = torch.stack([normal for _, normal in hits])  # (things, …, 3)
    return distance, normals.gather(0, which[None, ..., None].expand(1, *which.shape, 3))[0]


def along(gap: torch.Tensor, speed: torch.Tensor) -> torch.Tensor:
    """Distance at which a ray that closes a gap at `speed` per length has closed it; FAR if never."""
    distance = gap / torch.where(speed.abs() < 1e-12, torch.full_like(speed, 1e-12), speed)
    return torch.where(distance > 1e-6, distance, FAR)


def first_root(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The smaller root of a t² + 2 b t + c = 0, of rays that start outside; FAR if none is ahead."""
    discriminant = b * b - a * c
    root = (-b - discriminant.clamp_min(0).sqrt()) / a.clamp_min(1e-12)
    return torch.where((discriminant > 0) & (root > 1e-6), root, FAR)
