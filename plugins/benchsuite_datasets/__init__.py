"""First-party data sets and their readouts."""

from benchsuite import Dataset, Recipe, hookimpl
from benchsuite_datasets.digits import Digits
from benchsuite_datasets.image_folder import ImageFolder
from benchsuite_datasets.mnist import MNIST, FashionMNIST
from benchsuite_datasets.points import Points
from benchsuite_datasets.recipes import DigitsReadout, FashionMNISTReadout, ImageReadout, MNISTReadout
from benchsuite_datasets.shapes import Shapes


@hookimpl
def benchsuite_datasets() -> list[type[Dataset]]:
    """Data set classes of this package."""
    return [Digits, MNIST, FashionMNIST, Shapes, ImageFolder, Points]


@hookimpl
def benchsuite_recipes() -> list[type[Recipe]]:
    """Training recipes of the readouts."""
    return [DigitsReadout, MNISTReadout, FashionMNISTReadout, ImageReadout]
