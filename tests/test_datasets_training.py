"""Training a readout: it learns, resumes exactly, and never looks at the test split or the dummy factor."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchsuite_datasets.base import ImageDataset
from benchsuite_datasets.digits import Digits
from benchsuite_datasets.fitting import augment, schedule
from benchsuite_datasets.image_folder import ImageFolder
from benchsuite_datasets.options import TrainingOptions
from benchsuite_datasets.readout import CnnReadout
from benchsuite_datasets.recipes import DigitsReadout, FashionMNISTReadout, ImageReadout, MNISTReadout
from benchsuite_datasets.training import set_temperatures, train_readout
from PIL import Image  # noqa: TID253 - a test

from benchsuite import Factor, Split, UsageError

OPTIONS = TrainingOptions(widths=(4, 8), hidden=16, steps=40, batch=32, evaluate_every=10)


class Quadrants(ImageDataset):
    """A bright square in one of four quadrants; factors ``row`` and ``column``."""

    name = "quadrants"

    def __init__(self, dummy_factor=0, test_seed=3):
        super().__init__(dummy_factor)
        self.test_seed = test_seed

    def readout_path(self):
        return None

    def read(self):
        seeds = {"train": (1, 200), "val": (2, 80), "test": (self.test_seed, 80)}
        factors = (Factor("row", ("top", "bottom")), Factor("column", ("left", "right")))
        return factors, {name: self.draw(name, *how) for name, how in seeds.items()}

    def draw(self, name, seed, count):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 2, (count, 2), generator=generator)
        images = torch.full((count, 1, 12, 12), -1.0)
        for image, (row, column) in zip(images, labels.tolist(), strict=True):
            image[0, 1 + 6 * row : 5 + 6 * row, 1 + 6 * column : 5 + 6 * column] = 1.0
        images += 0.3 * torch.randn(images.shape, generator=generator)
        return Split(images, labels, tuple(f"{name}/{i}" for i in range(count)))


def quadrants(**options):
    data = Quadrants(**options)
    data.load()
    return data


def test_a_readout_without_files_is_none():
    assert quadrants().readout() is None


def test_training_learns_every_factor_and_records_how(tmp_path):
    data = quadrants(dummy_factor=3)
    record = train_readout(data, tmp_path, OPTIONS, name="q", source="made here", seed=4)
    assert min(record["accuracy"].values()) > 0.95
    assert json.loads(json.dumps({"schema": 1} | record)) == json.loads((tmp_path / "readout.json").read_text())
    assert record["factors"] == {"row": ["top", "bottom"], "column": ["left", "right"]}
    assert record["items"] == {"train": 200, "val": 80, "test": 80}
    assert record["seed"] == 4
    assert record["recipe"]["steps"] == 40
    assert set(record["versions"]) == {"benchsuite", "torch", "numpy"}
    assert record["dataset_fingerprint"] == quadrants().fingerprint()
    curve = json.loads((tmp_path / "training.json").read_text())
    assert [point["step"] for point in curve] == [10, 20, 30, 40]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "readout.json", "readout.safetensors", "training.json",
    ]  # fmt: skip

    judge, test = CnnReadout.open(tmp_path), data.split("test")
    p = judge.probabilities(test.images)
    for i, factor in enumerate(("row", "column")):
        accuracy = float((p[factor].argmax(1) == test.labels[:, i]).double().mean())
        assert accuracy == pytest.approx(record["accuracy"][factor], abs=1e-6)


def test_weights_depend_on_the_seed_but_not_on_the_test_split_or_the_global_generator(tmp_path):
    def weights(name, seed=0, **options):
        train_readout(quadrants(**options), tmp_path / name, replace(OPTIONS, steps=6), name="q", seed=seed)
        return CnnReadout.open(tmp_path / name).fingerprint()

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights("a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert weights("b", test_seed=99) == first
    assert weights("c", dummy_factor=2) == first
    assert weights("d", seed=1) != first


def test_an_interrupted_run_continues_where_it_stopped(tmp_path):
    class Killed(Exception):
        pass

    def dies(steps, *_):
        for step in steps:
            if step == 25:
                raise Killed
            yield step

    visited = []

    def watches(steps, *_):
        for step in steps:
            visited.append(step)
            yield step

    data = quadrants()
    train_readout(data, tmp_path / "whole", OPTIONS, name="q")
    with pytest.raises(Killed):
        train_readout(data, tmp_path / "cut", OPTIONS, name="q", track=dies)
    train_readout(data, tmp_path / "cut", OPTIONS, name="q", track=watches)
    assert visited == list(range(20, 40))
    whole, cut = (CnnReadout.open(tmp_path / name) for name in ("whole", "cut"))
    assert cut.fingerprint() == whole.fingerprint()
    curves = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("whole", "cut")]
    assert [p["val_nats"] for p in curves[0]] == [p["val_nats"] for p in curves[1]]

    with pytest.raises(Killed):
        train_readout(data, tmp_path / "other", OPTIONS, name="q", track=dies)
    visited.clear()
    train_readout(data, tmp_path / "other", replace(OPTIONS, batch=16), name="q", track=watches)
    assert visited[0] == 0  # a checkpoint of other options is not continued


def test_augmentation_moves_mirrors_and_blurs_no_more_than_stated():
    torch.manual_seed(0)
    images = torch.full((400, 1, 9, 9), -1.0)
    images[:, :, 4, 2] = 1.0
    moved = augment(images, TrainingOptions(widths=(1,), shift=2, flip=True, noise=0.0))
    places = torch.nonzero(moved[:, 0] == 1.0)
    assert len(places) == 400
    assert set(places[:, 1].tolist()) == {2, 3, 4, 5, 6}
    assert set(places[:, 2].tolist()) == {0, 1, 2, 3, 4, 5, 6, 7, 8}  # 2 ± 2, or mirrored: 6 ± 2
    assert torch.all((moved == -1.0).sum((1, 2, 3)) == 80)

    noisy = augment(images, TrainingOptions(widths=(1,), shift=0, noise=0.1)) - images
    spread = noisy.flatten(1).std(1)
    assert spread.max() < 0.1 * 1.3
    assert spread.mean() == pytest.approx(0.05, abs=0.01)


def test_learning_rate_warms_up_and_ends_at_zero():
    rates = [schedule(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3


def test_temperatures_undo_overconfidence(tmp_path):
    train_readout(quadrants(), tmp_path, replace(OPTIONS, steps=10), name="q")
    judge = CnnReadout.open(tmp_path)
    val = quadrants().split("val")
    noise = torch.rand(len(val), 2, generator=torch.Generator().manual_seed(0)) < 0.25
    wrong = replace(val, labels=torch.where(noise, 1 - val.labels, val.labels))
    with torch.no_grad():
        judge.net.get_buffer("temperature").mul_(0.05)  # sure of everything, while a quarter is wrong
    before = judge.probabilities(val.images)
    chosen = set_temperatures(judge, wrong)
    after = judge.probabilities(val.images)
    for i, factor in enumerate(("row", "column")):
        assert chosen[factor] > 1.5
        picked = [p[factor].gather(1, wrong.labels[:, i : i + 1]).log().mean() for p in (before, after)]
        assert picked[1] > picked[0]


def test_digits_recipe_goes_through_the_command_lines_opener(tmp_path):
    opened = []

    def datasets(spec):
        opened.append(spec)
        return Digits()

    measured = DigitsReadout().train(
        tmp_path, device="cpu", seed=0, steps=60, datasets=datasets, track=lambda steps, *_: steps
    )
    assert opened == ["digits"]
    assert measured["accuracy"]["class"] > 0.7
    record = json.loads((tmp_path / "readout.json").read_text())
    assert (record["name"], record["recipe"]["steps"]) == ("digits-cnn", 60)


def test_recipes_name_their_data():
    assert MNISTReadout().spec == "mnist"
    assert MNISTReadout("some/dir").spec == "mnist:some/dir"
    assert FashionMNISTReadout("d", source="a friend").source == "a friend"
    assert ImageReadout("image-folder:p;size=32").spec == "image-folder:p,size=32"
    with pytest.raises(UsageError, match="image-readout needs a data set: image-readout:DATASET"):
        ImageReadout()


def test_a_folder_of_images_gets_a_readout_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    for label, colour in (("red", (200, 40, 40)), ("blue", (40, 40, 200))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(40):
            pixels = np.clip(rng.normal(colour, 40, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{i}.png")
    folder, out = str(tmp_path / "data"), tmp_path / "judge"
    recipe = ImageReadout("image-folder:" + folder, batch=16)
    recipe.train(
        out, device="cpu", seed=0, steps=20, track=lambda steps, *_: steps,
        datasets=lambda spec: ImageFolder(spec.removeprefix("image-folder:"), size=16),
    )  # fmt: skip
    data = ImageFolder(folder, size=16, readout=str(out))
    data.load()
    assert data.readout().accuracy["class"] > 0.9
    other = ImageFolder(folder, size=20, readout=str(out))
    other.load()
    with pytest.raises(UsageError, match=re.escape("looks at images (3, 16, 16), the data have (3, 20, 20)")):
        other.readout()


@pytest.mark.parametrize(("shape", "stages"), [((1, 8, 8), 2), ((3, 32, 40), 3), ((3, 64, 64), 4)])
def test_stages_bring_any_image_down_to_about_four_pixels(shape, stages):
    data = quadrants()
    data.shape = shape
    assert len(ImageReadout("x").hyperparameters(data).widths) == stages


def test_items_that_are_no_images_have_no_image_readout():
    data = quadrants()
    data.shape = (17,)
    with pytest.raises(UsageError, match=re.escape("quadrants has items (17,), not images")):
        ImageReadout("x").hyperparameters(data)
