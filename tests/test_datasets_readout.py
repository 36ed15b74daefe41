"""The shipped readouts, and what their files and images must be."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from benchsuite_datasets.base import READOUTS, DataError
from benchsuite_datasets.digits import Digits
from benchsuite_datasets.readout import CnnReadout
from safetensors.torch import load_file, save_file

from benchsuite import Factor, MissingDataError, UsageError

SHIPPED = ("digits", "fashion-mnist", "mnist")


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    data.load()
    return data


@pytest.fixture
def files(tmp_path):
    return shutil.copytree(READOUTS / "digits", tmp_path / "readout")


def accuracy(judge, part):
    guess = judge.probabilities(part.images)["class"].argmax(1)
    return float((guess == part.labels[:, 0]).double().mean())


def test_digits_readout_is_as_good_as_it_says(digits):
    judge, test = digits.readout(), digits.split("test")
    assert judge.trained_on == digits.fingerprint()
    assert accuracy(judge, test) == pytest.approx(judge.accuracy["class"], abs=1e-6)
    assert accuracy(judge, test) >= 0.985


def test_digits_readout_is_calibrated_and_bears_slight_noise(digits):
    judge, test = digits.readout(), digits.split("test")
    p = judge.probabilities(test.images)["class"]
    torch.testing.assert_close(p.sum(1), torch.ones(len(test)), atol=1e-5, rtol=0)
    assert abs(float(p.amax(1).mean()) - accuracy(judge, test)) < 0.01
    nats = -p.gather(1, test.labels).log().mean()
    assert nats < 0.05
    noise = torch.randn(test.images.shape, generator=torch.Generator().manual_seed(5))
    assert accuracy(judge, replace(test, images=test.images + 0.1 * noise)) >= 0.98


def test_noise_is_not_always_the_same_class(digits):
    """Far off the data a judge has a favourite; it must not swallow everything, or retention cannot fall."""
    noise = torch.randn((256, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    p = digits.readout().probabilities(noise)["class"]
    assert p.argmax(1).bincount(minlength=10).max() < 0.75 * 256


def test_features_go_from_shallow_to_deep_and_belong_to_the_image(digits):
    judge, images = digits.readout(), digits.split("val").images[:7]
    before = images.clone()
    found = judge.features(images)
    assert [(k, tuple(v.shape)) for k, v in found.items()] == [
        ("stage1", (7, 32, 4, 4)),
        ("stage2", (7, 64, 2, 2)),
        ("hidden", (7, 128)),
        ("logits", (7, 10)),
    ]
    assert torch.equal(images, before)
    alone = judge.features(images[3:4])
    for layer, value in found.items():
        torch.testing.assert_close(alone[layer][0], value[3], atol=1e-4, rtol=1e-4)
    assert not found["hidden"].requires_grad


def test_large_inputs_are_judged_in_pieces(digits, monkeypatch):
    judge, images = digits.readout(), digits.split("test").images[:10]
    whole = judge.probabilities(images)["class"]
    monkeypatch.setattr("benchsuite_datasets.readout.BATCH", 4)
    torch.testing.assert_close(judge.probabilities(images)["class"], whole, atol=1e-5, rtol=0)
    assert judge.features(images)["hidden"].shape == (10, 128)


def test_the_dummy_factor_is_not_judged(digits):
    data = Digits(dummy_factor=3)
    data.load()
    judge = data.readout()
    assert set(judge.probabilities(data.split("val").images[:2])) == {"class"}
    assert judge.accuracy == digits.readout().accuracy


def test_accuracy_is_measured_anew_on_other_data(digits):
    class Relabelled(Digits):
        """The test labels of the first 100 items are wrong."""

        def read(self):
            factors, splits = super().read()
            labels = splits["test"].labels.clone()
            labels[:100] = (labels[:100] + 1) % 10
            return factors, {**splits, "test": replace(splits["test"], labels=labels)}

    data = Relabelled()
    data.load()
    assert data.readout().accuracy["class"] == pytest.approx(296 / 397, abs=3 / 397)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_records_are_complete(name):
    judge = CnnReadout.open(READOUTS / name)
    record = judge.record
    needed = {"accuracy", "dataset_fingerprint", "source", "items", "recipe", "seed", "versions", "temperature"}
    assert needed <= set(record)
    assert record["source"]
    assert set(record["items"]) == {"train", "val", "test"}
    assert set(judge.accuracy) == {f.name for f in judge.factors}
    assert min(judge.accuracy.values()) > 0.9
    curve = json.loads((READOUTS / name / "training.json").read_text())
    assert curve[-1]["step"] == record["recipe"]["steps"]
    assert curve[-1]["val_nats"] < curve[0]["val_nats"] / 1.2
    size = (READOUTS / name / "readout.safetensors").stat().st_size
    assert size < 700_000
    assert "/" not in record["source"]  # words, not somebody's directory


@pytest.mark.parametrize("name", ["fashion-mnist", "mnist"])
def test_padding_does_not_change_the_judgement(name):
    judge = CnnReadout.open(READOUTS / name)
    inner = torch.rand((3, 1, 28, 28), generator=torch.Generator().manual_seed(2)) * 2 - 1
    padded = torch.full((3, 1, 32, 32), -1.0)
    padded[:, :, 2:30, 2:30] = inner
    for factor, p in judge.probabilities(inner).items():
        torch.testing.assert_close(judge.probabilities(padded)[factor], p)
    with pytest.raises(UsageError, match=re.escape("looks at images (1, 28, 28), got (1, 27, 32)")):
        judge.probabilities(padded[:, :, :27])
    with pytest.raises(UsageError, match=re.escape("got (3, 28, 28)")):
        judge.probabilities(inner.expand(3, 3, 28, 28))


def test_images_of_another_shape_and_other_factors_are_refused(digits):
    judge = digits.readout()
    with pytest.raises(UsageError, match=re.escape("looks at images (1, 8, 8), got (1, 9, 9)")):
        judge.probabilities(torch.zeros(2, 1, 9, 9))
    with pytest.raises(UsageError, match=re.escape("judges class (10), the data have class (2)")):
        judge.require((Factor("class", ("cat", "dog")),), (1, 8, 8))
    with pytest.raises(UsageError, match=re.escape("looks at images (1, 8, 8), the data have (3, 8, 8)")):
        judge.require(digits.factors, (3, 8, 8))


def test_another_readout_can_be_named(digits, files, tmp_path):
    judge = CnnReadout.open(files)
    judge.net.state_dict()["heads.0.bias"][3] += 50.0  # everything is a 3
    judge.save(files)
    data = Digits(readout=str(files))
    data.load()
    assert set(data.readout().probabilities(data.split("val").images)["class"].argmax(1).tolist()) == {3}
    assert data.fingerprint() == digits.fingerprint()
    nowhere = Digits(readout=str(tmp_path / "nowhere"))
    nowhere.load()
    with pytest.raises(MissingDataError, match=re.escape(f"no readout in {tmp_path / 'nowhere'}")):
        nowhere.readout()


def test_save_and_open_are_inverse(files, tmp_path):
    judge = CnnReadout.open(files)
    judge.save(tmp_path / "copy")
    assert CnnReadout.open(tmp_path / "copy").fingerprint() == judge.fingerprint()
    assert (tmp_path / "copy" / "readout.json").read_text() == (files / "readout.json").read_text()


def test_fingerprint_covers_weights_and_temperatures(files):
    prints = {CnnReadout.open(files).fingerprint()}
    for name in ("hidden.weight", "temperature"):
        judge = CnnReadout.open(files)
        judge.net.state_dict()[name].view(-1)[0].add_(0.25)
        prints.add(judge.fingerprint())
    assert len(prints) == 3


def test_damaged_files_are_named(files):
    weights, record = files / "readout.safetensors", files / "readout.json"
    state, text = load_file(weights), record.read_text()

    def refused(kind, message):
        with pytest.raises(kind, match=re.escape(message)) as caught:
            CnnReadout.open(files)
        assert "\n" not in str(caught.value)

    save_file(state | {"heads.0.bias": torch.full((10,), float("nan"))}, weights)
    refused(DataError, f"{weights}: heads.0.bias holds values that are not finite")
    save_file(state | {"heads.0.bias": torch.zeros(9)}, weights)
    refused(DataError, f"{weights} does not fit its record")
    weights.write_bytes(b"\x00" * 64)
    refused(DataError, f"{weights} does not fit its record")
    record.write_text(text.replace('"schema": 1', '"schema": 99'))
    refused(DataError, f"{record}: schema 99, this version reads 1")
    record.write_text(text[: len(text) // 2])
    refused(DataError, f"{record} is not a readout record")
    record.write_text("{}")
    refused(DataError, f"{record} is not a readout record")
    record.unlink()
    refused(MissingDataError, f"no readout in {files}: readout.json is missing")
