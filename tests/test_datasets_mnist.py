"""MNIST and Fashion-MNIST from IDX files: padding, splits, factors, where they are looked for."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from benchsuite_datasets.base import DataError
from benchsuite_datasets.mnist import MNIST, FashionMNIST
from idx_files import NAMES, write_idx, write_mnist

from benchsuite import MissingDataError, UsageError

SYSTEM = Path(FashionMNIST.system_directory)
GARMENTS = {
    "top": {"T-shirt/top", "Pullover", "Coat", "Shirt"},
    "trousers": {"Trouser"},
    "dress": {"Dress"},
    "footwear": {"Sandal", "Sneaker", "Ankle boot"},
    "bag": {"Bag"},
}


def loaded(cls, *arguments, **options):
    data = cls(*arguments, **options)
    data.load()
    return data


@pytest.mark.parametrize(("size", "start"), [(28, 0), (32, 2), (33, 2)])
def test_images_are_scaled_and_centred_on_minus_one(tmp_path, size, start):
    arrays = write_mnist(tmp_path)
    data = loaded(MNIST, str(tmp_path), size=size)
    assert data.shape == (1, size, size)
    for name, source in (("train", "train"), ("val", "train"), ("test", "t10k")):
        part = data.split(name)
        for image, label, item in zip(part.images, part.labels, part.ids, strict=True):
            _, _, number = item.rpartition("/")
            expected = np.full((size, size), -1.0)
            pixels = arrays[f"{source}-images"][int(number)]
            expected[start : start + 28, start : start + 28] = pixels / 255 * 2 - 1
            np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-6)
            assert label.tolist() == [arrays[f"{source}-labels"][int(number)]]
            assert item == f"mnist/{'test' if source == 't10k' else 'train'}/{int(number):05d}"


def test_val_is_a_stratified_twelfth_of_the_training_file(tmp_path):
    write_mnist(tmp_path, train=600)
    data = loaded(MNIST, str(tmp_path))
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [550, 50, 40]
    assert data.split("val").labels[:, 0].bincount().tolist() == [5] * 10
    ids = [i for name in ("train", "val", "test") for i in data.split(name).ids]
    assert len(set(ids)) == 640


def test_garments_group_the_classes(tmp_path):
    write_mnist(tmp_path)
    data = loaded(FashionMNIST, str(tmp_path))
    classes, garments = data.factors
    assert (classes.name, classes.size, garments.name, garments.size) == ("class", 10, "garment", 5)
    pairs = {(garments.values[g], classes.values[c]) for c, g in data.split("train").labels.tolist()}
    assert pairs == {(garment, c) for garment, members in GARMENTS.items() for c in members}


@pytest.mark.parametrize("spelling", ["{}.gz", "dotted"])
def test_compressed_and_dotted_names_are_found(tmp_path, spelling):
    write_mnist(tmp_path / "plain")
    expected = loaded(MNIST, str(tmp_path / "plain")).fingerprint()
    write_mnist(tmp_path / "other", suffix=".gz" if spelling == "{}.gz" else "")
    if spelling == "dotted":
        for name in NAMES.values():
            path = tmp_path / "other" / name
            path.rename(path.with_name(name.replace("-idx", ".idx")))
    assert loaded(MNIST, str(tmp_path / "other")).fingerprint() == expected


def test_default_directory_comes_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("BENCHSUITE_DATA", str(tmp_path))
    assert len(loaded(MNIST).split("test")) == 40


def test_missing_data_say_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCHSUITE_DATA", str(tmp_path))
    with pytest.raises(MissingDataError) as missing:
        loaded(MNIST)
    assert str(missing.value) == (
        f"mnist: no data in {tmp_path / 'mnist'}; put the four MNIST files (train-images-idx3-ubyte.gz, "
        "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz) there, or name "
        "their directory: mnist:DIR"
    )
    monkeypatch.setattr(FashionMNIST, "system_directory", str(tmp_path / "system"))
    with pytest.raises(MissingDataError) as missing:
        loaded(FashionMNIST)
    assert str(missing.value) == (
        f"fashion-mnist: no data in {tmp_path / 'fashion-mnist'}, {tmp_path / 'system'}; install it with "
        "`apt-get install dataset-fashion-mnist`, or name its directory: fashion-mnist:DIR"
    )
    monkeypatch.delenv("BENCHSUITE_DATA")
    assert MNIST().candidates() == [Path.home() / ".cache/benchsuite/mnist"]


def test_incomplete_directory_names_what_is_absent(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / NAMES["t10k", "labels"]).unlink()
    with pytest.raises(MissingDataError, match=re.escape(f"{tmp_path} lacks t10k-labels-idx1-ubyte (plain")):
        loaded(MNIST, str(tmp_path))


def test_a_label_outside_its_range_names_file_and_value(tmp_path):
    arrays = write_mnist(tmp_path)
    labels = arrays["t10k-labels"]
    labels[3] = 10
    path = write_idx(tmp_path / NAMES["t10k", "labels"], labels)
    with pytest.raises(DataError, match=re.escape(f"{path}: label 10 at position 3 is outside 0 … 9")):
        loaded(FashionMNIST, str(tmp_path))


def test_too_few_images_and_too_small_a_size(tmp_path):
    write_mnist(tmp_path, train=11)
    with pytest.raises(DataError, match="11 images are too few"):
        loaded(MNIST, str(tmp_path))
    with pytest.raises(UsageError, match="mnist: size=16 would cut the images; it must be at least 28"):
        MNIST(size=16)


@pytest.fixture(scope="module")
def real():
    if not SYSTEM.is_dir():
        pytest.skip(f"Fashion-MNIST is not installed in {SYSTEM}")
    return loaded(FashionMNIST, str(SYSTEM))


def test_real_fashion_mnist(real):
    assert real.shape == (1, 32, 32)
    counts = {"train": 5500, "val": 500, "test": 1000}
    for name, count in counts.items():
        assert real.split(name).labels[:, 0].bincount().tolist() == [count] * 10
    test = real.split("test")
    first = test.ids.index("fashion-mnist/test/00000")
    assert real.factors[0].values[test.labels[first, 0]] == "Ankle boot"  # first of the published test labels
    assert float(test.images.min()) == -1
    assert float(test.images.max()) == 1
    assert torch.all(test.images[:, :, :2] == -1)  # padding


def test_fashion_mnist_readout_holds_its_accuracy(real):
    judge, part = real.readout(), real.split("test")
    assert judge.trained_on == real.fingerprint()
    count = 1500
    p = judge.probabilities(part.images[:count])
    for i, (factor, least) in enumerate((("class", 0.91), ("garment", 0.975))):
        assert judge.accuracy[factor] >= least
        accuracy = float((p[factor].argmax(1) == part.labels[:count, i]).double().mean())
        error = (judge.accuracy[factor] * (1 - judge.accuracy[factor]) / count) ** 0.5
        assert abs(accuracy - judge.accuracy[factor]) < 4 * error


def test_one_class_alone_keeps_splits_order_and_factors(tmp_path):
    write_mnist(tmp_path, train=600)
    whole, sevens = loaded(MNIST, str(tmp_path)), loaded(MNIST, str(tmp_path), only="7")
    assert sevens.factors == whole.factors
    for name in ("train", "val", "test"):
        part, kept = whole.split(name), sevens.split(name)
        chosen = part.labels[:, 0] == 7
        assert torch.equal(kept.images, part.images[chosen])
        assert kept.ids == tuple(i for i, wanted in zip(part.ids, chosen.tolist(), strict=True) if wanted)
        assert set(kept.labels[:, 0].tolist()) == {7}
    assert sevens.fingerprint() != whole.fingerprint()


def test_a_class_by_its_name(tmp_path):
    write_mnist(tmp_path, train=600)
    dresses = loaded(FashionMNIST, str(tmp_path), only="Dress")
    assert set(dresses.split("train").labels[:, 0].tolist()) == {3}
    assert dresses.fingerprint() == loaded(FashionMNIST, str(tmp_path), only="3").fingerprint()
    with pytest.raises(UsageError, match="fashion-mnist: only='Hat' is no class; known: 0 … 9, T-shirt/top"):
        FashionMNIST(str(tmp_path), only="Hat")
