"""The population of `shapes`: every combination once, splits of the same items, priors, controls, refusals."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from benchsuite_datasets.shapes import Shapes
from benchsuite_datasets.shapes_prior import multiplicities, parse_prior

from benchsuite import Factor, UsageError, specs
from benchsuite.testing import assert_passed, check_dataset

FACTORS = ("floor", "wall", "object", "scale", "shape", "orientation", "texture")
LEVELS = (5, 5, 5, 3, 4, 3, 2)
SMALL = {"resolution": 16, "floor": 2, "wall": 3, "object": 2, "scale": 2, "shape": 3, "orientation": 2}
SMALL_LEVELS = (2, 3, 2, 2, 3, 2, 2)


def loaded(**options):
    data = Shapes(**options)
    data.load()
    return data


@pytest.fixture(scope="module")
def shapes():
    return loaded()


@pytest.fixture(scope="module")
def grid(shapes):
    """Images by label: (5, 5, 5, 3, 4, 3, 2, 3, 32, 32)."""
    part = shapes.split("train")
    place = np.ravel_multi_index(part.labels.numpy().T, LEVELS)
    images = torch.empty_like(part.images)
    images[torch.from_numpy(place)] = part.images
    return images.view(*LEVELS, *shapes.shape)


# ---------------------------------------------------------------------------------- population


def test_every_combination_occurs_once(shapes):
    part = shapes.split("train")
    assert shapes.enumerated
    assert shapes.shape == (3, 32, 32)
    assert tuple(factor.name for factor in shapes.factors) == FACTORS
    assert tuple(factor.size for factor in shapes.factors) == LEVELS
    assert shapes.factors[4].values == ("cube", "cylinder", "sphere", "capsule")
    assert shapes.factors[5].values == ("-30°", "0°", "30°")
    assert sorted(map(tuple, part.labels.tolist())) == list(itertools.product(*map(range, LEVELS)))
    assert part.ids == tuple("shapes/" + "-".join(map(str, row)) for row in part.labels.tolist())


def test_no_two_images_are_alike(grid):
    assert len({image.numpy().tobytes() for image in grid.flatten(0, 6)}) == 9000
    # the finest detail of the smallest, darkest object survives noise of 0.1 a pixel by more than four deviations
    for k in range(5):
        geometries = grid[(k + 1) % 5, k, k].flatten(0, 3).flatten(1).double()
        distance = torch.cdist(geometries, geometries, compute_mode="donot_use_mm_for_euclid_dist")
        assert float(distance.fill_diagonal_(9).min()) / 2 > 4 * 0.1


def test_hues_reach_further_than_shapes_and_texture_least(grid):
    """Mean squared distance between images that differ in one factor: the scale on which noise hides it."""
    distance = {}
    for axis, (name, size) in enumerate(zip(FACTORS, LEVELS, strict=True)):
        pairs = [
            (grid.select(axis, i) - grid.select(axis, j)).square().sum(dim=(-1, -2, -3)).mean()
            for i, j in itertools.combinations(range(size), 2)
        ]
        distance[name] = float(torch.stack(pairs).mean())
    assert distance["floor"] > 1.5 * distance["wall"] > 1.5 * 1.2 * distance["object"]
    for name in ("scale", "shape", "orientation"):
        assert distance["object"] > 1.5 * distance[name]
        assert distance["texture"] < distance[name] / 4
    assert 2 < distance["texture"] < 5


def test_regions_have_the_hues_of_their_factors(shapes, grid):
    def hue(pixel):
        """Degrees, by the formula for the hue angle of the plane orthogonal to grey."""
        r, g, b = ((pixel + 1) / 2).tolist()
        return math.degrees(math.atan2(math.sqrt(3) * (g - b), 2 * r - g - b)) % 360

    # the middle of the lower border is floor, of the upper one wall, the centre object, in every combination
    places = {"floor": (30, 15), "wall": (0, 12), "object": (18, 15)}
    for axis, (region, (row, column)) in enumerate(places.items()):
        for k, value in enumerate(shapes.factors[axis].values):
            images = grid.select(axis, k)[..., row, column].reshape(-1, 3)
            for pixel in images[:: len(images) // 40]:
                # hexagonal and circular hue differ by up to 1.2 degrees, 8-bit colours by as much again
                gap = (hue(pixel) - float(value.removesuffix("°")) + 180) % 360 - 180
                assert abs(gap) < 3, (region, value)


def test_texture_leaves_mean_colour_alone(grid):
    plain, grained = (grid[0, 0, ..., k, :, :, :].double() for k in range(2))
    # light is rounded to 2^-14 in each of up to 320 pixels, and a pixel is twice the light
    assert float((plain - grained).mean(dim=(-1, -2)).abs().max()) < 2 * 320 * 2**-14 / 32**2
    assert float((plain - grained).abs().amax(dim=(-1, -2, -3)).min()) > 0.05


def test_resolutions_show_the_same_scene(grid):
    data = Shapes(resolution=64, floor=5, wall=5, object=5, scale=3, texture=2)
    data.levels |= {"floor": 2, "wall": 2, "object": 2}  # fewer images, other hues
    fine, _ = data.render()
    averaged = torch.nn.functional.avg_pool2d(fine, 2).view(2, 2, 2, *LEVELS[3:], 3, 32, 32)
    coarse = Shapes(floor=2, wall=2, object=2).render()[0].view_as(averaged)
    difference = (averaged - coarse)[..., 0, :, :, :].abs()  # plain: textures are made of pixels
    assert float(difference.mean()) < 2e-3
    assert float(difference.max()) < 0.25


# -------------------------------------------------------------------------------------- splits


def test_val_and_test_are_disjoint_tenths_of_the_same_items(shapes):
    train, val, test = (shapes.split(name) for name in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (9000, 900, 900)
    place = {name: i for i, name in enumerate(train.ids)}
    assert len(place) == 9000
    assert not set(val.ids) & set(test.ids)
    for part in (val, test):
        index = [place[name] for name in part.ids]
        assert min(index) >= 7200  # what learns from a prefix of "train" is not asked what it has seen
        assert torch.equal(part.images, train.images[index])
        assert torch.equal(part.labels, train.labels[index])


def test_splits_are_random_in_every_factor_and_balanced_in_the_first(shapes):
    for name in ("val", "test"):
        labels = shapes.split(name).labels.numpy()
        assert np.bincount(labels[:, 0]).tolist() == [180] * 5
        for column, size in enumerate(LEVELS):
            share = np.bincount(labels[:, column], minlength=size) / 900
            assert np.abs(share - 1 / size).max() < 4 * math.sqrt((1 - 1 / size) / size / 900)
    for count in (100, 1000, 5000):
        prefix = np.bincount(shapes.split("train").labels[:count, 0].numpy())
        assert np.ptp(prefix) <= 1


def test_fingerprint_is_fixed_for_good(shapes):
    """Images are exact in float32 and splits follow hashes, so that this holds on every machine."""
    assert shapes.fingerprint() == "8cb8eb30fc8e6d8d1b49b883817cdeb0"


# -------------------------------------------------------------------------------------- options


def test_the_kit_is_satisfied():
    assert_passed(check_dataset(Shapes(**SMALL), options=SMALL, alternatives={"prior": "texture:0.9/0.1"}))


def test_options_are_read_from_the_command_line():
    options = specs.parse_options(
        Shapes, "data set", "shapes", "16,floor=7,prior=shape:0.4/0.6+texture:0.9/0.1,shape=2"
    )
    data = Shapes(**options)
    assert (data.resolution, data.levels["floor"], data.levels["shape"]) == (16, 7, 2)
    assert data.prior == {"shape": (0.4, 0.6), "texture": (0.9, 0.1)}


def test_dummy_is_exactly_independent_of_the_image():
    plain, data = loaded(**SMALL), loaded(**SMALL, dummy_factor=3)
    assert data.factors == (*plain.factors, Factor("dummy", ("0", "1", "2")))
    for name in ("train", "val", "test"):
        part, source = data.split(name), plain.split(name)
        n = len(source)
        assert len(part) == 3 * n
        assert len(set(part.ids)) == 3 * n
        assert {i.rpartition("/")[0] for i in part.ids} == set(source.ids)
        table = torch.zeros(n, 3)
        place = {item: i for i, item in enumerate(source.ids)}
        for image, row, item in zip(part.images, part.labels, part.ids, strict=True):
            i = place[item.rpartition("/")[0]]
            assert torch.equal(image, source.images[i])
            assert torch.equal(row[:-1], source.labels[i])
            assert item.endswith(f"/dummy-{int(row[-1])}")
            table[i, row[-1]] += 1
        assert bool((table == 1).all())
        assert np.ptp(np.bincount(part.labels[: n // 2, -1].numpy())) <= 1  # balanced in a prefix, too


# ---------------------------------------------------------------------------------------- prior


@pytest.mark.parametrize(
    "text",
    [
        "shape:0.4/0.3/0.2/0.1",
        "texture:0.9/0.1",
        "texture:0.5/0.5",
        "floor:0.3/0.3/0.2/0.1/0.1",
        "shape:0.4/0.3/0.2/0.1+texture:0.7/0.3",
        "wall:0.123/0.177/0.3/0.2/0.2+orientation:0.61/0.29/0.1",
    ],
)
def test_frequencies_are_those_of_the_prior(text):
    levels = dict(zip(FACTORS, LEVELS, strict=True))
    prior = parse_prior(text, levels, "shapes")
    counts = multiplicities(levels, prior).reshape(LEVELS)
    assert counts.sum() == 9000
    cells = math.prod(levels[factor] for factor in prior)
    marginals = {}
    for axis, (factor, size) in enumerate(levels.items()):
        found = counts.sum(axis=tuple(i for i in range(7) if i != axis)) / 9000
        wanted = np.array(prior.get(factor, [1 / size] * size))
        # rounding of the cells for a factor with a prior; others are balanced as far as the images repeated allow
        assert np.abs(found - wanted).max() <= (cells / 9000 if factor in prior else 0.002)
        marginals[factor] = found
    for i, j in itertools.combinations(range(7), 2):  # the prior is a product: factors stay independent
        joint = counts.sum(axis=tuple(k for k in range(7) if k not in (i, j))) / 9000
        product = np.outer(marginals[FACTORS[i]], marginals[FACTORS[j]])
        assert (joint * np.log(joint / product)).sum() < 2e-4
    expected = np.ones(LEVELS)
    for axis, (factor, size) in enumerate(levels.items()):
        expected *= np.array(prior.get(factor, [1 / size] * size)).reshape(
            [-1 if i == axis else 1 for i in range(7)]
        )
    assert np.abs(counts - 9000 * expected).max() < 1 + 1e-9 + cells / 9000


def test_a_population_with_a_prior():
    plain, data = loaded(**SMALL), loaded(**SMALL, prior="scale:0.75/0.25")
    part, n = data.split("train"), math.prod(SMALL_LEVELS)
    assert len(part) == len(set(part.ids)) == n
    assert np.bincount(part.labels[:, 3].numpy()).tolist() == [3 * n // 4, n // 4]
    images = dict(zip(plain.split("train").ids, plain.split("train").images, strict=True))
    copies = [item for item in part.ids if "/copy-" in item]
    assert len(copies) == n // 4  # half of the large ones give way to copies of the small ones
    for image, row, item in zip(part.images, part.labels, part.ids, strict=True):
        combination = item.partition("/copy-")[0]
        assert combination == "shapes/" + "-".join(map(str, row.tolist()))
        assert torch.equal(image, images[combination])
    assert set(data.split("test").ids) <= set(part.ids)
    assert data.fingerprint() != plain.fingerprint()


# --------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 15}, "shapes: resolution=15 is too small for its details; take 16 or more"),
        ({"wall": 1}, "shapes: wall=1: a factor needs at least 2 values to be one"),
        ({"texture": 0}, "shapes: texture=0: a factor needs at least 2 values"),
        ({"shape": 5}, "shapes: shape=5: there are only 4"),
        ({"texture": 5}, "shapes: texture=5: there are only 4"),
        ({"dummy_factor": 1}, "shapes: dummy_factor=1 is not a number of values"),
        ({"floor": 10, "wall": 10, "object": 10, "scale": 8, "orientation": 15, "resolution": 64}, "need 44 GiB"),
        ({"prior": "shape:0.4/0.3/0.2/0.2"}, "the prior of shape sums to 1.1, not to 1: 0.4/0.3/0.2/0.2"),
        ({"prior": "shape:0.5/0.5"}, "the prior of shape has 2 entries for 4 values"),
        ({"prior": "texture:1.2/-0.2"}, "the prior of texture has an entry that is not positive: 1.2/-0.2"),
        ({"prior": "texture:nan/0.5"}, "has an entry that is not positive"),
        ({"prior": "texture:a/b"}, "prior 'texture:a/b' must read FACTOR:P/P/…"),
        ({"prior": "texture"}, "prior 'texture' must read"),
        ({"prior": "texture:0.5/0.5+texture:0.5/0.5"}, "the prior of texture is given twice"),
        ({"prior": "colour:0.5/0.5"}, "unknown factor in the prior of shapes: 'colour'"),
        ({"prior": "dummy:0.5/0.5", "dummy_factor": 2}, "unknown factor in the prior of shapes: 'dummy'"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Shapes(**options)


def test_a_value_too_rare_for_any_image_is_refused():
    data = Shapes(**SMALL, prior="texture:0.999/0.001")
    with pytest.raises(
        UsageError, match=r"with 0\.001 for value 1 of texture, none of 288 images has it; raise it"
    ):
        data.load()


# ---------------------------------------------------------------------------------------- readout


def test_readout_knows_every_image_and_survives_noise(shapes):
    judge = shapes.readout()
    assert judge.trained_on == shapes.fingerprint()
    part = shapes.split("train")
    clean = judge.probabilities(part.images[::20])
    noise = torch.randn(450, *shapes.shape, generator=torch.Generator().manual_seed(3))
    noisy = judge.probabilities(part.images[::20] + 0.1 * noise)
    for column, factor in enumerate(shapes.factors):
        assert judge.accuracy[factor.name] == 1
        truth = part.labels[::20, column]
        for p in (clean[factor.name], noisy[factor.name]):
            assert float((p.argmax(1) == truth).double().mean()) >= 0.995
            assert float(p.gather(1, truth[:, None]).mean()) > 0.995  # sure, and rightly so


def test_readout_agrees_with_the_exact_posterior(shapes):
    """Where noise makes details doubtful (small blue capsules), against brute force over all images."""
    part, judge, sigma = shapes.split("train"), shapes.readout(), 0.2
    chosen = (part.labels[:, 2] == 3) & (part.labels[:, 3] == 0) & (part.labels[:, 4] == 3)
    count = int(chosen.sum())
    assert count == 5 * 5 * 3 * 2
    x = part.images[chosen] + sigma * torch.randn(count, *shapes.shape, generator=torch.Generator().manual_seed(4))
    population = part.images.flatten(1)
    fit = (x.flatten(1) @ population.T - population.square().sum(1) / 2) / sigma**2
    posterior = fit.double().softmax(1)
    found = judge.probabilities(x)
    for column, factor in enumerate(shapes.factors):
        exact = torch.zeros(count, factor.size, dtype=torch.float64)
        exact.index_add_(1, part.labels[:, column], posterior)
        difference = (found[factor.name] - exact).abs().sum(1) / 2
        assert float(difference.mean()) < 0.04, factor.name
    assert int((posterior.amax(1) < 0.99).sum()) >= 8  # some were doubtful, one in fifteen


def test_only_the_default_images_have_a_readout_that_ships(shapes):
    assert Shapes(dummy_factor=2).readout_path() == shapes.readout_path() is not None
    assert Shapes(prior="texture:0.9/0.1").readout_path() == shapes.readout_path()
    for options in ({"resolution": 64}, {"floor": 4}, {"texture": 3}):
        assert Shapes(**options).readout_path() is None
        assert str(Shapes(**options, readout="elsewhere").readout_path()) == "elsewhere"
