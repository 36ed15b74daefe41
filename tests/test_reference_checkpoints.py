"""The checkpoints that ship: they open without arguments and are what their records say."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from benchsuite_datasets.digits import Digits, FewDigits
from benchsuite_datasets.shapes import Shapes
from benchsuite_models.ddpm import DDPM
from benchsuite_models.diffusers_model import REFERENCE
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.recipes import (
    DDPMDigits,
    DDPMFashionMNIST,
    DDPMFewDigits,
    DDPMShapes,
    LatentDiffusionDigits,
    LatentDiffusionFashionMNIST,
    LatentDiffusionMNIST,
    LatentDiffusionShapes,
    ScoreSDEDigits,
    ScoreSDEFashionMNIST,
    ScoreSDEShapes,
)
from benchsuite_models.score_sde import ScoreSDE
from diffusers_factory import Images

from benchsuite import DiffusionModel, Factor, Split
from benchsuite.samplers import reverse

CLASSES: list[type[DiffusionModel]] = [DDPM, ScoreSDE, LatentDiffusion]


@pytest.fixture(scope="module")
def digits() -> Digits:
    dataset = Digits()
    dataset.load()
    return dataset


@pytest.fixture(scope="module", params=CLASSES, ids=lambda cls: cls.name)
def model(request: pytest.FixtureRequest, digits: Digits) -> DiffusionModel:
    made: DiffusionModel = request.param()
    made.bind(digits)
    made.load()
    return made


def folder(model: DiffusionModel) -> Path:
    return REFERENCE / "digits" / model.name


def error(model: DiffusionModel, x0: torch.Tensor, labels: torch.Tensor | None, log_snr: float) -> float:
    """Mean squared error of the denoised item per dimension."""
    sigma = torch.full((len(x0),), math.exp(-log_snr / 2))
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    denoised = model.denoise(x0 + sigma.view(-1, 1, 1, 1) * noise, sigma, labels)
    return float((denoised - x0).pow(2).mean())


def baseline(train: Split, test: Split, model: DiffusionModel, by_class: bool) -> float:
    """Error of the best constant, or of the best constant per class, learned on the training split."""
    items, x0 = model.encode(train.images), model.encode(test.images)
    if not by_class:
        return float((items.mean(0) - x0).pow(2).mean())
    means = torch.stack([items[train.labels[:, 0] == k].mean(0) for k in range(10)])
    return float((means[test.labels[:, 0]] - x0).pow(2).mean())


def test_they_are_small() -> None:
    def size(*names: str) -> int:
        return sum(p.stat().st_size for name in names for p in (REFERENCE / name).rglob("*") if p.is_file())

    assert size("shapes", "fashion-mnist", "mnist") < 40e6
    assert size("digits", "few-digits") < 10e6
    assert {p.suffix for p in REFERENCE.rglob("*") if p.is_file()} == {".safetensors", ".json", ".csv"}


def test_it_knows_the_digits(model: DiffusionModel, digits: Digits) -> None:
    assert model.factors == digits.factors
    assert model.sigma_range[0] <= math.exp(-9 / 2)
    assert model.sigma_range[1] >= math.exp(8 / 2)


def ideal_error(model: DiffusionModel, train: Split, x0: torch.Tensor, log_snr: float) -> float:
    """Error of the posterior mean over the training items, on the noise of `error`."""
    items = model.encode(train.images).flatten(1).double()
    sigma = math.exp(-log_snr / 2)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    x = (x0 + sigma * noise).flatten(1).double()
    posterior = (-(torch.cdist(x, items) ** 2) / (2 * sigma**2)).softmax(dim=1)
    return float((posterior @ items - x0.flatten(1)).pow(2).mean())


def test_denoising_beats_every_guess_without_the_image(model: DiffusionModel, digits: Digits) -> None:
    """And comes within a tenth of the ideal of the training images, where that ideal holds for new ones too."""
    train, test = digits.split("train"), digits.split("test")
    x0 = model.encode(test.images)
    guess, guess_of_class = (baseline(train, test, model, by_class) for by_class in (False, True))
    for log_snr in (-2.0, -1.0, 0.0):
        told, untold = error(model, x0, test.labels, log_snr), error(model, x0, None, log_snr)
        assert untold < guess
        assert told < guess_of_class
        assert told < 0.95 * untold  # the class is worth knowing there
        assert untold < 1.1 * ideal_error(model, train, x0, log_snr)
    told, untold = error(model, x0, test.labels, 3.0), error(model, x0, None, 3.0)
    assert told == pytest.approx(untold, rel=0.05)  # and no longer here
    assert untold < 0.75 * math.exp(-3)  # the noise itself has variance exp(-3)


def test_the_class_survives_little_noise_and_not_much_noise(model: DiffusionModel, digits: Digits) -> None:
    test, readout = digits.split("test"), digits.readout()
    assert readout is not None
    n = 100
    x0 = model.encode(test.images[:n])
    generator = torch.Generator().manual_seed(0)
    grid = np.arange(-6.0, 8.01, 0.5)
    sigmas = [math.exp(-level / 2) for level in grid]
    noisy, clean = 0, int(np.flatnonzero(grid == 4.0)[0])
    starts = [(i, x0 + sigmas[i] * torch.randn(x0.shape, generator=generator)) for i in (noisy, clean)]
    returned = reverse(
        model.denoise,
        starts,
        sigmas,
        method="sde-2m",
        noise=lambda i: torch.randn((2 * n, *model.shape), generator=generator),
    )
    before = readout.probabilities(test.images[:n])["class"].argmax(1)
    after = readout.probabilities(model.decode(returned))["class"].argmax(1)
    assert (after[n:] == before).float().mean().item() >= 0.95
    assert (after[:n] == before).float().mean().item() <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / n)


def test_the_autoencoder_keeps_the_digits_readable(digits: Digits) -> None:
    model = LatentDiffusion()
    model.load()
    test, readout = digits.split("test"), digits.readout()
    assert readout is not None
    returned = model.decode(model.encode(test.images))
    assert (returned - test.images).pow(2).mean().item() < 0.02
    accuracy = [
        (readout.probabilities(images)["class"].argmax(1) == test.labels[:, 0]).float().mean().item()
        for images in (test.images, returned)
    ]
    assert accuracy[1] > accuracy[0] - 0.01
    assert model.encode(digits.split("train").images).std().item() == pytest.approx(1.0, abs=5e-3)


RECIPES = (
    DDPMDigits,
    ScoreSDEDigits,
    LatentDiffusionDigits,
    DDPMFashionMNIST,
    ScoreSDEFashionMNIST,
    LatentDiffusionFashionMNIST,
    DDPMShapes,
    ScoreSDEShapes,
    LatentDiffusionShapes,
    LatentDiffusionMNIST,
    DDPMFewDigits,
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_the_record_is_that_of_the_recipe(recipe: type[DDPMDigits], digits: Digits) -> None:
    data = recipe.config.dataset.partition(":")[0]
    record = json.loads((REFERENCE / data / recipe.config.family / "recipe.json").read_text())
    assert record["recipe"] == recipe.name
    assert record["config"] == json.loads(json.dumps(asdict(recipe.config)))
    assert data != "digits" or record["data"] == digits.fingerprint()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
def test_garments_are_known_by_class_garment_and_control(cls: type[DiffusionModel]) -> None:
    """What ships for Fashion-MNIST opens without its images, and each factor by itself moves the prediction."""

    class Garments(Images):
        name = "fashion-mnist"

        def __init__(self) -> None:
            self.factors = (Factor("class", tuple("0123456789")), Factor("garment", tuple("01234")))
            self.shape = (1, 32, 32)

    made = cls()
    made.bind(Garments())
    made.load()
    assert [(f.name, f.size) for f in made.factors] == [("class", 10), ("garment", 5), ("dummy", 2)]
    x = torch.zeros(1, *made.shape)
    sigma = torch.tensor([4.0])
    plain, told, control = (
        made.denoise(x, sigma, torch.tensor([row])) for row in ([-1, -1, -1], [1, -1, -1], [-1, -1, 1])
    )
    assert (told - plain).norm() > 5 * (control - plain).norm()


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    dataset = Shapes(dummy_factor=2)
    dataset.load()
    return dataset


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.name)
def test_rooms_are_clear_and_as_asked(cls: type[DiffusionModel], shapes: Shapes) -> None:
    """Samples told every factor are judged to have it, and samples told nothing have clear factors."""
    made = cls()
    made.bind(shapes)
    made.load()
    readout = shapes.readout()
    assert readout is not None
    n, generator = 32, torch.Generator().manual_seed(0)
    told = shapes.split("test").labels[:n]
    labels = torch.cat([told, torch.full_like(told, -1)])
    sigmas = [math.exp(-level / 2) for level in np.arange(-9.0, 5.01, 0.5)]
    start = sigmas[0] * torch.randn((2 * n, *made.shape), generator=generator)
    ends = reverse(
        lambda x, sigma: made.denoise(x, sigma, labels),
        [(0, start)],
        sigmas,
        method="sde-2m",
        noise=lambda i: torch.randn((2 * n, *made.shape), generator=generator),
    )
    judged = readout.probabilities(made.decode(ends))
    for i, factor in enumerate(shapes.factors[:-1]):
        p = judged[factor.name]
        right = (p[:n].argmax(1) == told[:, i]).float().mean().item()
        assert right >= 0.9, factor.name
        assert (p[n:].max(1).values >= 0.9).float().mean().item() >= 0.9, factor.name


def test_the_network_of_few_digits_knows_them_by_heart_in_the_end() -> None:
    """Samples three times nearer to one training image than to the next: none early, many at the end."""
    dataset = FewDigits()
    dataset.load()
    train = dataset.split("train").images.flatten(1)
    sigmas = [math.exp(-level / 2) for level in np.arange(-7.0, 8.01, 0.5)]
    share = {}
    for step in (400, None):
        made = DDPM(step=step)
        made.bind(dataset)
        made.load()
        generator = torch.Generator().manual_seed(0)
        start = sigmas[0] * torch.randn((64, 1, 8, 8), generator=generator)
        ends = reverse(
            made.denoise,
            [(0, start)],
            sigmas,
            method="sde-2m",
            noise=lambda i, g=generator: torch.randn((64, 1, 8, 8), generator=g),  # type: ignore[misc]
        )
        first, second = torch.cdist(ends.flatten(1), train).topk(2, largest=False).values.T
        share[step] = (first < second / 3).float().mean().item()
    assert share[400] <= 0.05
    assert share[None] >= 0.3


def test_the_recorded_held_out_losses_are_the_models(model: DiffusionModel, digits: Digits) -> None:
    """Same val split, other noise: the error in units of the noise, at every third recorded level."""
    part = digits.split("val")
    x0 = model.encode(part.images)
    with (folder(model) / "held_out.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows[::3]:
        log_snr = float(row["log_snr"])
        for head, labels in (("unconditional", None), ("conditional", part.labels)):
            measured = error(model, x0, labels, log_snr) * math.exp(log_snr)
            assert measured == pytest.approx(float(row[head]), rel=0.15), (log_snr, head)
