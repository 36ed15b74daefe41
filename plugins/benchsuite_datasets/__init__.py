"""First-party data sets and their readouts."""

from benchsuite import Dataset, Recipe, hookimpl
from benchsuite_datasets.digits import Digits, FewDigits
from benchsuite_datasets.image_folder import ImageFolder
from benchsuite_datasets.mnist import MNIST, FashionMNIST
from benchsuite_datasets.points import Points
from benchsuite_datasets.recipes import (
    DigitsReadout,
    FashionMNISTReadout,
    ImageReadout,
    MNISTReadout,
    ShapesReadout,
)
from benchsuite_datasets.shapes import Shapes
from benchsuite_datasets.shapes3d import Shapes3D


@hookimpl
def benchsuite_datasets() -> list[type[Dataset]]:
    """Data set classes of this package."""
    return [Digits, FewDigits, MNIST, FashionMNIST, Shapes, Shapes3D, ImageFolder, Points]


@hookimpl
def benchsuite_recipes() -> list[type[Recipe]]:
    """Training recipes of the readouts."""
    return [DigitsReadout, MNISTReadout, FashionMNISTReadout, ShapesReadout, ImageReadout]
