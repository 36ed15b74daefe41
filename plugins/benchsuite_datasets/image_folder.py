"""A folder of images, one sub-directory per class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchsuite import Factor, MissingDataError, Split, UsageError
from benchsuite_datasets.base import SPLITS, DataError, ImageDataset
from benchsuite_datasets.splits import item_hash, stratified_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
MODES = {"rgb": "RGB", "gray": "L"}
TRAIN, VAL = 0.7, 0.1  # shares of the splits made by hash; the rest is "test"


class ImageFolder(ImageDataset):
    """Images in sub-directories of `path`, one per class; one factor, ``class`` (the names of the directories).

    Either ``path/CLASS/….png``, split 70 / 10 / 20 by a hash of each relative path, so that adding a file moves
    no other; or ``path/train/CLASS/…``, ``path/val/CLASS/…`` and ``path/test/CLASS/…``, taken as they are.
    Item ids are relative paths. The shorter side is resized to `size` (bicubic, antialiased) and the centre
    square is cut out; pixels go to [-1, 1], transparency to black. Other files and hidden ones are ignored.

    Args:
        path: the folder.
        size: side of the images in pixels.
        color: "rgb" (3 channels) or "gray" (1).
        readout: directory of a trained readout (``benchsuite train image-readout:…``), or a pretrained network,
            see `ImageDataset`; none ships. A network of ImageNet judges ``class`` if the directories are called
            after its classes (``n02123045`` or ``tabby cat``).
        dummy_factor: see `ImageDataset`.
        per_class: a balanced part, for judging models that were trained elsewhere: so many images of every class
            for the test split, one each for train and val, first by the hash of their path; the others are not
            read. 0 = all images.
    """

    name = "image-folder"

    def __init__(
        self,
        path: str = "",
        size: int = 64,
        color: str = "rgb",
        readout: str = "",
        dummy_factor: int = 0,
        per_class: int = 0,
    ) -> None:
        super().__init__(dummy_factor, readout)
        if not path:
            raise UsageError(f"{self.name} needs a folder: {self.name}:PATH")
        if size < 4:
            raise UsageError(f"{self.name}: size={size} is not a side in pixels; it must be at least 4")
        if color not in MODES:
            raise UsageError(f"{self.name}: color={color!r} is unknown; known: {', '.join(MODES)}")
        self.path = Path(path).expanduser()
        self.size = size
        self.color = color
        if per_class < 0:
            raise UsageError(f"{self.name}: per_class={per_class} is not a number of images")
        self.per_class = per_class

    def read(self) -> tuple[tuple[Factor, ...], dict[str, Split]]:
        """See `ImageDataset.read`.

        Raises:
            MissingDataError: `path` is not a directory, or holds no images in sub-directories.
            DataError: a split or class without images, one class only, or an image that cannot be read.
        """
        import torch

        members = self._members()
        classes = sorted({label for label, _ in members["train"]})
        for name in SPLITS[1:]:
            if strange := sorted({label for label, _ in members[name]} - set(classes)):
                raise DataError(f"{self.path}: class {strange[0]!r} of {name} has no images in train")
        if len(classes) < 2:
            raise DataError(f"{self.path}: only one class, {classes[0]!r}; at least two are needed")
        splits = {}
        for name, files in members.items():
            ids = [path.as_posix() for _, path in files]
            labels = np.array([classes.index(label) for label, _ in files], dtype=np.int64)
            order = stratified_order(ids, labels)
            pixels = np.stack([decode(self.path / ids[i], self.size, MODES[self.color]) for i in order])
            images = torch.from_numpy(pixels).float() / 127.5 - 1  # (N, C, size, size)
            columns = torch.from_numpy(labels[order])[:, None]
            splits[name] = Split(images, columns, tuple(ids[i] for i in order))
        return (Factor("class", tuple(classes)),), splits

    def _members(self) -> dict[str, list[tuple[str, Path]]]:
        """{split: [(class, path relative to the folder)]}, in the order of the paths."""
        if not self.path.is_dir():
            raise MissingDataError(
                f"{self.name}: {self.path} is not a directory; give one with a sub-directory per class: "
                f"{self.name}:PATH"
            )
        given = [name for name in SPLITS if (self.path / name).is_dir()]
        if given and len(given) < len(SPLITS):
            absent = ", ".join(f"{name}/" for name in SPLITS if name not in given)
            raise DataError(
                f"{self.path} has {given[0]}/ but not {absent}; give train/, val/ and test/, or classes only"
            )
        members: dict[str, list[tuple[str, Path]]] = {name: [] for name in SPLITS}
        if self.per_class and not given:
            return balanced(list_images(self.path, self.path), self.per_class, self.path)
        if self.per_class:
            raise UsageError(
                f"{self.name}: per_class needs a folder of classes; {self.path} has {given[0]}/ already"
            )
        if given:
            for name in SPLITS:
                members[name] = list_images(self.path, self.path / name)
        else:
            for label, path in list_images(self.path, self.path):
                members[split_of(path)].append((label, path))
        if not any(members.values()):
            raise MissingDataError(
                f"{self.name}: no images ({', '.join(sorted(SUFFIXES))}) in sub-directories of {self.path}"
            )
        for name in SPLITS:
            if not members[name]:
                raise DataError(
                    f"{self.path}: no images for split {name}; add images, or sort them into train/, val/, test/"
                )
        return members


def balanced(files: list[tuple[str, Path]], count: int, where: Path) -> dict[str, list[tuple[str, Path]]]:
    """Of every class, by the hash of the path: one image for train, one for val, `count` for test.

    Raises:
        DataError: a class has fewer images.
    """
    members: dict[str, list[tuple[str, Path]]] = {name: [] for name in SPLITS}
    classes: dict[str, list[Path]] = {}
    for label, path in files:
        classes.setdefault(label, []).append(path)
    for label, paths in sorted(classes.items()):
        own = sorted(paths, key=lambda path: item_hash(path.as_posix()))
        if len(own) < count + 2:
            raise DataError(
                f"{where / label}: {len(own)} images; per_class={count} takes {count + 2}, with one each for "
                "train and val"
            )
        for name, part in zip(SPLITS, (own[:1], own[1:2], own[2 : count + 2]), strict=True):
            members[name] += [(label, path) for path in part]
    return members


def split_of(path: Path) -> str:
    """The split of an image by the hash of its relative path: 70 / 10 / 20."""
    place = item_hash(path.as_posix()) / 2**64
    return "train" if place < TRAIN else "val" if place < TRAIN + VAL else "test"


def list_images(root: Path, top: Path) -> list[tuple[str, Path]]:
    """(class, path relative to `root`) of every image below `top`; the class is the directory under `top`.

    Raises:
        DataError: a directory under `top` holds no image.
    """
    found: list[tuple[str, Path]] = []
    for directory in sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in directory.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        files = [p for p in files if not any(s.startswith(".") for s in p.relative_to(top).parts)]
        if not files:
            raise DataError(f"{directory}: no images ({', '.join(sorted(SUFFIXES))})")
        found += [(directory.name, p.relative_to(root)) for p in files]
    return found


def decode(path: Path, size: int, mode: str) -> NDArray[np.uint8]:
    """The image at `path` as (C, size, size), C = 3 for mode "RGB" and 1 for "L": resized, centre cut out.

    Raises:
        DataError: not an image that can be decoded, or one with more than 8 bits per channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image: Image.Image = ImageOps.exif_transpose(file)
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path}: mode {image.mode} is not 8 bits per channel; convert it first")
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
            image = image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({' '.join(str(error).split())})") from error
    pixels = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
