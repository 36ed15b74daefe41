"""Image folders: decoding, splits, and what is refused."""

import re

import numpy as np
import pytest
import torch
from benchsuite_datasets.base import DataError
from benchsuite_datasets.image_folder import ImageFolder, decode
from PIL import Image  # noqa: TID253 - a test

from benchsuite import MissingDataError, UsageError


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **options)
    return path


def make_folder(root, classes=("cat", "dog"), count=40, side=8):
    rng = np.random.default_rng(3)
    for label in classes:
        for i in range(count):
            save(root / label / f"{i:03d}.png", rng.integers(0, 256, (side, side, 3)))
    return root


def loaded(*arguments, **options):
    data = ImageFolder(*arguments, **options)
    data.load()
    return data


def ids(data):
    return {name: set(data.split(name).ids) for name in ("train", "val", "test")}


def refused(message, kind=DataError):
    return pytest.raises(kind, match=re.escape(message))


def test_pixels_labels_and_ids(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"junk")
    (tmp_path / ".cache").mkdir()
    data = loaded(str(tmp_path), size=8)
    assert data.shape == (3, 8, 8)
    assert [(f.name, f.values) for f in data.factors] == [("class", ("cat", "dog"))]
    seen = 0
    for name in ("train", "val", "test"):
        part = data.split(name)
        assert part.images.dtype == torch.float32
        for image, label, item in zip(part.images, part.labels, part.ids, strict=True):
            with Image.open(tmp_path / item) as file:
                pixels = np.asarray(file)
            np.testing.assert_allclose(image.numpy(), pixels.transpose(2, 0, 1) / 255 * 2 - 1, atol=1e-6)
            assert data.factors[0].values[label] == item.split("/")[0]
            seen += 1
    assert seen == 80


def test_short_side_is_resized_and_the_centre_cut_out(tmp_path):
    wide = np.zeros((20, 60, 3))
    wide[:, 20:40] = (10, 200, 30)  # the central square
    pixels = decode(save(tmp_path / "wide.png", wide), 10, "RGB")
    assert pixels.shape == (3, 10, 10)
    inner = pixels[:, :, 2:-2]  # the filter mixes neighbours at the borders of the square
    assert np.abs(inner - np.array([10, 200, 30])[:, None, None]).max() <= 1
    tall = decode(save(tmp_path / "tall.png", wide.transpose(1, 0, 2)), 10, "RGB")
    np.testing.assert_array_equal(tall, pixels.transpose(0, 2, 1))


def test_gray_is_luma_and_transparency_is_black(tmp_path):
    red = decode(save(tmp_path / "red.png", np.full((4, 4, 3), (255, 0, 0))), 4, "L")
    assert red.shape == (1, 4, 4)
    assert set(red.ravel()) == {76}  # ITU-R 601: 0.299 * 255
    half = np.full((4, 4, 4), (255, 255, 255, 255))
    half[:2, :, 3] = 0
    pixels = decode(save(tmp_path / "half.png", half), 4, "RGB")
    assert pixels[:, :2].max() == 0
    assert pixels[:, 2:].min() == 255


def test_rotation_in_the_metadata_is_applied(tmp_path):
    pixels = np.zeros((8, 8, 3))
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    found = decode(save(tmp_path / "a.png", pixels, exif=exif), 8, "L")
    assert found[0, :4].max() == 0
    assert found[0, 4:].min() == 255


def test_splits_by_hash_are_fixed_and_stay_when_files_are_added(tmp_path):
    make_folder(tmp_path, count=150, side=4)
    before = ids(loaded(str(tmp_path), size=4))
    sizes = {name: len(found) for name, found in before.items()}
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(sizes[name] - 300 * share) < 4 * (300 * share * (1 - share)) ** 0.5
    make_folder(tmp_path, classes=("emu",), count=30, side=4)
    after = ids(loaded(str(tmp_path), size=4))
    for name, found in before.items():
        assert {i for i in after[name] if not i.startswith("emu")} == found
    assert "cat/000.png" in after["train"]  # pinned: the hash must not change between versions
    assert "cat/001.png" in after["test"]


def test_given_splits_are_taken_as_they_are(tmp_path):
    for name, count in (("train", 3), ("val", 1), ("test", 2)):
        make_folder(tmp_path / name, count=count)
    data = loaded(str(tmp_path), size=8, color="gray", dummy_factor=2)
    assert data.shape == (1, 8, 8)
    assert [f.name for f in data.factors] == ["class", "dummy"]
    assert ids(data)["test"] == {f"test/{c}/00{i}.png" for c in ("cat", "dog") for i in range(2)}
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [6, 2, 4]


def test_missing_folder_and_no_images(tmp_path):
    with refused(f"{tmp_path / 'nowhere'} is not a directory", MissingDataError):
        loaded(str(tmp_path / "nowhere"))
    with refused(f"no images (.bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp) in sub-directories of {tmp_path}",
                 MissingDataError):  # fmt: skip
        loaded(str(tmp_path))


def test_empty_class_single_class_and_empty_split(tmp_path):
    make_folder(tmp_path / "a", classes=("cat",))
    with refused(f"{tmp_path / 'a'}: only one class, 'cat'; at least two are needed"):
        loaded(str(tmp_path / "a"))
    (tmp_path / "a" / "dog").mkdir()
    with refused(f"{tmp_path / 'a' / 'dog'}: no images"):
        loaded(str(tmp_path / "a"))
    make_folder(tmp_path / "b", count=1)
    with refused(f"{tmp_path / 'b'}: no images for split "):
        loaded(str(tmp_path / "b"))


def test_half_given_splits_and_a_class_unknown_to_train(tmp_path):
    make_folder(tmp_path / "train", count=2)
    make_folder(tmp_path / "test", count=2)
    with refused(f"{tmp_path} has train/ but not val/; give train/, val/ and test/, or classes only"):
        loaded(str(tmp_path))
    make_folder(tmp_path / "val", classes=("cat", "emu"), count=1)
    with refused(f"{tmp_path}: class 'emu' of val has no images in train"):
        loaded(str(tmp_path))


def test_an_unreadable_image_is_named(tmp_path):
    make_folder(tmp_path, side=8)
    good = (tmp_path / "dog" / "007.png").read_bytes()
    for broken in (b"not an image", good[: len(good) // 2]):
        (tmp_path / "dog" / "007.png").write_bytes(broken)
        with refused(f"{tmp_path / 'dog' / '007.png'}: cannot be read as an image"):
            loaded(str(tmp_path), size=8)


def test_deep_pixels_are_refused_rather_than_clipped(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16)).save(path)
    with refused(f"{path}: mode I;16 is not 8 bits per channel"):
        decode(path, 4, "L")


def test_options_out_of_range():
    with refused("image-folder needs a folder: image-folder:PATH", UsageError):
        ImageFolder()
    with refused("image-folder: size=2 is not a side in pixels", UsageError):
        ImageFolder("x", size=2)
    with refused("image-folder: color='grey' is unknown; known: rgb, gray", UsageError):
        ImageFolder("x", color="grey")


def test_a_balanced_part_reads_no_more_than_it_needs(tmp_path):
    make_folder(tmp_path, ("cat", "dog", "owl"), count=12)
    data = loaded(str(tmp_path), size=8, per_class=5)
    assert [np.bincount(data.split(name).labels[:, 0]).tolist() for name in ("train", "val", "test")] == [
        [1, 1, 1],
        [1, 1, 1],
        [5, 5, 5],
    ]
    parts = ids(data)
    assert len(parts["train"] | parts["val"] | parts["test"]) == 21
    unread = {f"{c}/{i:03d}.png" for c in ("cat", "dog", "owl") for i in range(12)} - set().union(*parts.values())
    for item in unread:
        (tmp_path / item).write_bytes(b"never looked at")
    again = loaded(str(tmp_path), size=8, per_class=5)
    assert again.fingerprint() == data.fingerprint()
    # a larger part holds the smaller one
    for item in unread:
        (tmp_path / item).unlink()
    assert ids(loaded(str(tmp_path), size=8, per_class=3))["test"] < parts["test"]


def test_a_balanced_part_that_cannot_be(tmp_path):
    make_folder(tmp_path / "flat", count=6)
    with refused("cat: 6 images; per_class=5 takes 7, with one each for train and val"):
        loaded(str(tmp_path / "flat"), per_class=5)
    with refused("per_class=-1 is not a number of images", UsageError):
        ImageFolder(str(tmp_path), per_class=-1)
    for split in ("train", "val", "test"):
        make_folder(tmp_path / "split" / split, count=1)
    with refused("per_class needs a folder of classes", UsageError):
        loaded(str(tmp_path / "split"), per_class=1)
