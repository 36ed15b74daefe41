"""The digits, their fixed splits, the dummy control and the fingerprint."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchsuite_datasets.base import fingerprint_splits
from benchsuite_datasets.digits import Digits, FewDigits
from benchsuite_datasets.splits import cut, stratified_order
from scipy.stats import chi2_contingency
from sklearn.datasets import load_digits  # noqa: TID253 - a test

from benchsuite import Factor, UsageError

SIZES = {"train": 1200, "val": 200, "test": 397}


@pytest.fixture(scope="module")
def digits():
    data = Digits()
    data.load()
    return data


def test_listing_the_plugin_imports_nothing_heavy():
    heavy = ("torch", "sklearn", "PIL", "safetensors", "scipy")
    code = (
        "import sys, benchsuite_datasets as b; b.benchsuite_datasets(); b.benchsuite_recipes();"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_image_is_scikit_learns_under_its_id(digits):
    source = load_digits()
    assert digits.shape == (1, 8, 8)
    assert digits.factors == (Factor("class", tuple("0123456789")),)
    seen = []
    for name, size in SIZES.items():
        part = digits.split(name)
        assert len(part) == size
        assert part.images.dtype == torch.float32
        assert part.labels.dtype == torch.int64
        index = [int(i.removeprefix("digits/")) for i in part.ids]
        seen += index
        np.testing.assert_array_equal(part.images[:, 0].numpy(), source.images[index] / 8 - 1)
        np.testing.assert_array_equal(part.labels[:, 0].numpy(), source.target[index])
    assert sorted(seen) == list(range(1797))


def test_splits_are_stratified_and_so_is_every_prefix(digits):
    share = np.bincount(load_digits().target) / 1797
    for name, size in SIZES.items():
        labels = digits.split(name).labels[:, 0].numpy()
        for count in (50, 100, size):
            assert np.abs(np.bincount(labels[:count], minlength=10) - share * count).max() < 2


def test_membership_and_order_are_fixed_for_good(digits):
    pinned = {"train": "fa9c4cb8396664a1", "val": "ad50f571e4da8819", "test": "55417625bfcad09f"}
    found = {n: hashlib.sha256("\n".join(digits.split(n).ids).encode()).hexdigest()[:16] for n in SIZES}
    assert found == pinned


def test_no_image_occurs_in_two_splits(digits):
    grey = {name: (digits.split(name).images.flatten(1) + 1) * 8 for name in SIZES}
    closest = {
        (a, b): float(torch.cdist(grey[a], grey[b]).min())
        for a, b in (("train", "val"), ("train", "test"), ("val", "test"))
    }
    assert min(closest.values()) == pytest.approx(28**0.5, abs=1e-3)  # 1585 and 1648: sum of squares 28
    assert closest["train", "test"] == min(closest.values())


def test_order_does_not_depend_on_other_items():
    ids = [f"x/{i}" for i in range(60)]
    labels = np.arange(60) % 3
    order = stratified_order(ids, labels)
    assert sorted(order) == list(range(60))
    assert [labels[i] for i in order].count(0) == 20
    shuffled = np.random.default_rng(0).permutation(60)
    again = stratified_order([ids[i] for i in shuffled], labels[shuffled])
    assert [ids[shuffled[i]] for i in again] == [ids[i] for i in order]


def test_cut_refuses_sizes_that_do_not_add_up():
    with pytest.raises(ValueError, match="add up to 5, not to 6 items"):
        cut(np.arange(6), {"train": 3, "val": 2})


def test_fingerprint_changes_with_a_pixel_a_label_or_an_id(digits):
    parts = {name: digits.split(name) for name in SIZES}
    original = digits.fingerprint()
    assert original == fingerprint_splits(parts)
    test = parts["test"]
    images, labels = test.images.clone(), test.labels.clone()
    images[396, 0, 7, 7] += 1 / 8
    labels[0, 0] = (labels[0, 0] + 1) % 10
    changed = (
        replace(test, images=images),
        replace(test, labels=labels),
        replace(test, ids=("digits/other", *test.ids[1:])),
    )
    prints = {fingerprint_splits({**parts, "test": part}) for part in changed}
    moved = fingerprint_splits({**parts, "train": parts["val"], "val": parts["train"]})
    assert len(prints | {original, moved}) == 5


def test_fingerprint_is_the_same_in_a_new_object(digits):
    other = Digits()
    other.load()
    assert other.fingerprint() == digits.fingerprint()


def test_dummy_factor_knows_nothing_of_the_image(digits):
    data = Digits(dummy_factor=4)
    data.load()
    assert data.factors == (*digits.factors, Factor("dummy", ("0", "1", "2", "3")))
    columns = []
    for name in SIZES:
        part = data.split(name)
        assert torch.equal(part.images, digits.split(name).images)
        assert torch.equal(part.labels[:, :1], digits.split(name).labels)
        columns.append(part.labels)
    labels = torch.cat(columns).numpy()
    table = np.zeros((10, 4))
    np.add.at(table, (labels[:, 0], labels[:, 1]), 1)
    assert set(labels[:, 1]) == {0, 1, 2, 3}
    assert table.sum(0).min() > 1797 / 4 - 4 * (1797 * 3 / 16) ** 0.5  # four standard errors
    assert chi2_contingency(table).pvalue > 0.01
    assert data.fingerprint() != digits.fingerprint()


def test_dummy_factor_belongs_to_the_item_id():
    data = Digits(dummy_factor=5)
    data.load()
    part = data.split("val")
    for i in (0, 17, 199):
        digest = hashlib.blake2b(f"dummy:{part.ids[i]}".encode(), digest_size=8).hexdigest()
        assert part.labels[i, 1] == int(digest, 16) % 5


@pytest.mark.parametrize("value", [1, -2])
def test_dummy_factor_of_no_use_is_refused(value):
    with pytest.raises(UsageError, match=f"digits: dummy_factor={value} is not a number of values"):
        Digits(dummy_factor=value)


def test_data_before_load_and_unknown_splits_are_refused(digits):
    with pytest.raises(UsageError, match=r"call load\(\) before"):
        Digits().split("train")
    with pytest.raises(UsageError, match="no split 'valid'; known: train, val, test"):
        digits.split("valid")


def test_few_digits_are_the_first_of_the_digits() -> None:
    """150 balanced training images; what is held out and its judge are those of all digits."""
    few, all_of_them = FewDigits(), Digits()
    few.load()
    all_of_them.load()
    train, whole = few.split("train"), all_of_them.split("train")
    assert train.ids == whole.ids[:150]
    assert torch.equal(train.images, whole.images[:150])
    assert torch.bincount(train.labels[:, 0]).tolist() == [15] * 10
    for name in ("val", "test"):
        assert few.split(name).ids == all_of_them.split(name).ids
    assert few.fingerprint() != all_of_them.fingerprint()
    mine, theirs = few.readout(), all_of_them.readout()
    assert mine is not None
    assert theirs is not None
    assert mine.fingerprint() == theirs.fingerprint()
