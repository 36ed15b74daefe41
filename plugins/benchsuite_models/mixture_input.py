"""What a user may say about a Gaussian mixture: checked arrays, and the named cases of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite import Factor, UsageError
from benchsuite_models.exact_common import numbered

Array = NDArray[np.float64]
#: Largest relative asymmetry of a covariance that is put down to rounding.
ASYMMETRY = 1e-8


def check_means(means: Any) -> Array:
    """Array-like => means (K, d) float64; refused unless K, d >= 1 and all finite."""
    array = np.array(means, dtype=np.float64)  # a copy: the caller may go on writing to it
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError(f"means must have shape (K, d) with K, d >= 1, got {array.shape}")
    _check_finite("means", array)
    return array


def check_weights(weights: Any, classes: int) -> Array:
    """Array-like or None => weights (K,) float64; refused unless positive and of sum 1 (to 1e-6)."""
    if weights is None:
        return np.full(classes, 1.0 / classes)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (classes,):
        raise UsageError(f"weights must have shape ({classes},), one for each mean, got {array.shape}")
    _check_finite("weights", array)
    if (array <= 0).any():
        where = int(array.argmin())
        raise UsageError(f"weights must be positive, weight {where} is {array[where]:g}; leave the class out")
    if abs(array.sum() - 1) > 1e-6:
        raise UsageError(f"weights must sum to 1, they sum to {array.sum():.8g}")
    return np.asarray(array / array.sum())


def check_covariances(covariances: Any, classes: int, dim: int) -> tuple[Array, Array | None]:
    """Covariances in any accepted form => eigenvalues and eigenvectors (in columns).

    Forms: a number (variance of every coordinate) or (d, d) one matrix for all => (d,) and (d, d); (K,) one
    variance per class or (K, d) one diagonal per class => (K, d) and None; (K, d, d) one matrix per class =>
    (K, d) and (K, d, d). Where K = d, a square array is one matrix for all.

    Raises:
        UsageError: for another shape, a value that is not finite, an asymmetric matrix, or one that is not
            positive definite, naming the class and the value.
    """
    array = np.array(covariances, dtype=np.float64)
    _check_finite("covariances", array)
    if array.shape == (dim, dim):
        values, vectors = _eigen(array[None])
        return values[0], vectors[0]
    if array.shape == (classes, dim, dim):
        return _eigen(array)
    if array.shape not in ((), (classes,), (classes, dim)):
        raise UsageError(
            f"covariances of {classes} classes in {dim} dimensions must be a number or have shape ({classes},), "
            f"({dim}, {dim}), ({classes}, {dim}) or ({classes}, {dim}, {dim}), got {array.shape}"
        )
    if (array <= 0).any():
        raise UsageError(f"covariances must be positive definite, got a variance of {array.min():g}")
    if array.ndim == 0:
        return np.full(dim, float(array)), np.eye(dim)
    return (array if array.ndim == 2 else np.repeat(array[:, None], dim, axis=1)), None


def _eigen(matrices: Array) -> tuple[Array, Array]:
    """Eigenvalues (C, d) and eigenvectors (C, d, d) in columns, of covariances (C, d, d)."""
    transposed = matrices.transpose(0, 2, 1)
    asymmetry = np.abs(matrices - transposed).max(axis=(1, 2))
    if (asymmetry > ASYMMETRY * np.abs(matrices).max(axis=(1, 2))).any():
        where = int(asymmetry.argmax())
        raise UsageError(
            f"covariance {where} is not symmetric: entries differ from their mirror by {asymmetry[where]:g}"
        )
    values, vectors = np.linalg.eigh((matrices + transposed) / 2)
    # A singular matrix has eigenvalues of rounding size, of either sign.
    rounding = matrices.shape[1] * np.finfo(np.float64).eps * np.abs(values).max(axis=1)
    if (values[:, 0] <= rounding).any():
        where = int((values[:, 0] - rounding).argmin())
        raise UsageError(
            f"covariance {where} is not positive definite: its smallest eigenvalue is {values[where, 0]:g}"
        )
    return values, vectors


def check_factors(factors: Mapping[str, Any] | None, classes: int) -> tuple[tuple[Factor, ...], NDArray[np.int64]]:
    """{factor: label of each component} => factors and component labels (K, F); None => one factor "class".

    Raises:
        UsageError: unless each factor gives K labels that use every value 0 … max.
    """
    if factors is None:
        return (numbered("class", classes),), np.arange(classes)[:, None]
    if not factors:
        raise UsageError("factors must name at least one factor, or be None for one value per component")
    columns = []
    for name, labels in factors.items():
        column = np.asarray(labels)
        if column.shape != (classes,) or column.dtype.kind not in "iu":
            raise UsageError(
                f"factor {name!r} must give an integer label to each of the {classes} components, "
                f"got {column.dtype} {column.shape}"
            )
        used = np.unique(column)
        if not np.array_equal(used, np.arange(len(used))):
            raise UsageError(f"factor {name!r} must use the labels 0 … K-1 without gaps, got {used.tolist()}")
        columns.append(column.astype(np.int64))
    sizes = [int(column.max()) + 1 for column in columns]
    named = tuple(numbered(name, size) for name, size in zip(factors, sizes, strict=True))
    return named, np.stack(columns, axis=1)


def _check_finite(what: str, array: Array) -> None:
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        raise UsageError(f"{what} must be finite, got {array[tuple(bad)]} at index {tuple(bad.tolist())}")


# ------------------------------------------------------------------------------------ named cases

Option = int | float
#: preset -> its options and their defaults
PRESETS: dict[str, dict[str, Option]] = {
    "two-gaussians": {"dim": 8, "distance": 2.0, "std": 0.25},
    "simplex": {"classes": 4, "dim": 8, "distance": 2.0, "std": 0.25},
    "hierarchy": {"classes": 2, "dim": 8, "distance": 16.0, "fine_distance": 2.0, "std": 0.25},
    "flat": {"classes": 16, "dim": 32, "distance": 8.0, "std": 0.25, "seed": 0},
}


def preset_mixture(
    preset: str, given: Mapping[str, Option | None]
) -> tuple[Array, float, dict[str, NDArray[np.int64]]]:
    """A named case as (means (K, d), variance, factors); options that are None take the preset's default.

    * ``two-gaussians``: ±m, distance 2‖m‖ (the table T1: rho = ‖m‖² / (std² + sigma²)).
    * ``simplex``: K classes, every two `distance` apart.
    * ``hierarchy``: a simplex of coarse values, each split into a simplex of fine values in directions
      orthogonal to it; ±M u ± m v for 2 values each. Factors ``coarse`` and ``fine``.
    * ``flat``: K random directions without hierarchy, root-mean-square distance `distance`.

    Raises:
        UsageError: for an unknown preset, an option it does not have, or a value out of range.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    options = dict(PRESETS[preset])
    for key, value in given.items():
        if value is None:
            continue
        if key not in options:
            raise UsageError(f"preset {preset!r} has no option {key!r}; it has {', '.join(options)}")
        options[key] = value
    classes, dim = int(options.get("classes", 2)), int(options["dim"])
    if classes < 2:
        raise UsageError(f"classes must be at least 2, got {classes}")
    for key in ("distance", "fine_distance", "std"):
        if key in options and not (np.isfinite(options[key]) and options[key] > 0):
            raise UsageError(f"{key} must be finite and positive, got {options[key]:g}")
    distance, variance = float(options["distance"]), float(options["std"]) ** 2
    if preset == "flat":
        _check_dim(preset, dim, 1)
        draws = np.random.default_rng(int(options["seed"])).standard_normal((classes, dim))
        return draws * distance / np.sqrt(2 * dim), variance, {"class": np.arange(classes)}
    coarse = _simplex(classes) * distance
    if preset != "hierarchy":
        return _pad(preset, coarse, dim), variance, {"class": np.arange(classes)}
    fine = _simplex(classes) * float(options["fine_distance"])
    both = np.concatenate([np.repeat(coarse, classes, axis=0), np.tile(fine, (classes, 1))], axis=1)
    labels = {"coarse": np.repeat(np.arange(classes), classes), "fine": np.tile(np.arange(classes), classes)}
    return _pad(preset, both, dim), variance, labels


def _simplex(classes: int) -> Array:
    """K points in K - 1 dimensions, centred, every two at distance 1: columns of Helmert's contrasts / √2."""
    step = np.arange(1, classes)
    contrasts = np.tril(np.ones((classes - 1, classes)))
    contrasts[step - 1, step] = -step
    return np.asarray((contrasts / np.sqrt(2 * step * (step + 1))[:, None]).T)


def _pad(preset: str, means: Array, dim: int) -> Array:
    _check_dim(preset, dim, means.shape[1])
    return np.pad(means, ((0, 0), (0, dim - means.shape[1])))


def _check_dim(preset: str, dim: int, least: int) -> None:
    if dim < least:
        raise UsageError(f"preset {preset!r} needs dim >= {least} for these classes, got {dim}")
