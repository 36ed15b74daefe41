"""Leading directions of a weighted covariance, exact even where all weights but one underflow.

At small noise the posterior covariance C = sum_i w_i (y_i - m)(y_i - m)^T is *graded*: its eigenvalues fall by
tens or hundreds of decades from one to the next, because w_2 << w_1 << w_0. Formed in float64 it keeps the
first at best, and the Hessian C / h² - I / h not even that: C drowns in the identity, and what an
eigensolver returns are directions of rounding noise.

Two things help. With R_i = sqrt(w_i)(y_i - y_0) and s_i = sqrt(w_i), C = R^T (I - s s^T) R exactly, without the
difference y_i - m that cancels; and rows can be scaled by any common factor before they are exponentiated. So
the leading directions are taken of rows scaled to order 1, projected out of the *unweighted* differences,
and the next ones are taken of what is left, scaled again (sequential deflation).
"""

from __future__ import annotations

import math

import numpy as np

from benchsuite_metrics.ridge_geometry.points import Floats

#: eigenvalues of one scaled problem that are trusted: down to this fraction of its largest. A Gram matrix in
#: float64 then still has its eigenvectors to about 1e-12 over the relative gap
TRUSTED = 1e-4
#: what is left of a difference after projections, relative to its length, that is rounding noise
ROUNDING = 1e-12
#: natural log of weighted squared lengths, relative to the largest, that cannot matter for a trusted eigenvalue
NEGLIGIBLE = -70.0
#: up to this size a Gram matrix is diagonalised; beyond it, block power iteration
DIRECT = 128
#: of block power iteration: columns beyond those asked for, and the largest number of sweeps
OVERSAMPLING, SWEEPS = 8, 60
#: residual of an eigenvector, relative to the largest eigenvalue, that ends it if nothing else is said
AT_REST = 1e-12


def graded_directions(
    apart: Floats, log_weights: Floats, count: int, at_rest: float = AT_REST
) -> tuple[Floats, Floats]:
    """Leading eigenvectors and log-eigenvalues of the covariance of weighted points.

    Args:
        apart: (K, d) differences y_i - y_0 from the first point; its own row is 0.
        log_weights: (K,) logarithms of the weights, up to a common constant; the first should be the largest.
        count: how many are wanted.
        at_rest: residual of an eigenvector, relative to the largest eigenvalue, that ends an iteration.

    Returns:
        basis (count, d) with orthonormal rows, eigenvalues descending, and their natural logarithms (count,).
        Beyond the rank, rows are 0 and logarithms -inf.
    """
    width = apart.shape[1]
    basis, log_mu = np.zeros((count, width)), np.full(count, -np.inf)
    log_weights = log_weights - np.logaddexp.reduce(log_weights)
    root, weights = np.exp(log_weights / 2), np.exp(log_weights)
    left, lengths = apart.copy(), np.linalg.norm(apart, axis=1)
    found = 0
    while found < count:
        norms = np.linalg.norm(left, axis=1)
        with np.errstate(divide="ignore"):
            levels = log_weights + 2 * np.log(norms)
        highest = levels.max()
        if highest == -np.inf:
            break
        live = levels > highest + NEGLIGIBLE
        unit = left[live] / norms[live, None]
        rows = np.exp((levels[live] - highest) / 2)[:, None] * unit
        # (I - s s^T) R: the points whose difference is 0 share in the mean, through one row for all of them
        mean = root[live] @ rows
        rest = math.sqrt(weights[~live].sum())
        rows = np.concatenate([rows - root[live, None] * mean, -rest * mean[None]])
        vectors, values = leading(rows, count - found, at_rest)
        first = found
        for vector, value in zip(vectors, values, strict=True):
            vector = vector - basis[:found].T @ (basis[:found] @ vector)
            size = np.linalg.norm(vector)
            if not (value > 0 and size > 0.5):
                break
            basis[found], log_mu[found] = vector / size, math.log(value) + highest
            found += 1
        if found == first:
            break
        if found < count:
            left -= (left @ basis[first:found].T) @ basis[first:found]
            left[np.linalg.norm(left, axis=1) <= ROUNDING * lengths] = 0.0
    return basis, log_mu


def leading(rows: Floats, count: int, at_rest: float = AT_REST) -> tuple[Floats, Floats]:
    """Eigenvectors (k, d) and eigenvalues (k,), descending, of rows^T rows: at most `count`.

    Only trusted ones. Always at least one, unless the rows are 0.
    """
    small = min(rows.shape)
    if small > DIRECT and count + OVERSAMPLING < DIRECT:
        vectors, values = block_power(rows, count, at_rest)
    elif rows.shape[1] <= rows.shape[0]:
        values, columns = np.linalg.eigh(rows.T @ rows)
        vectors, values = columns.T[::-1], values[::-1]
    else:
        values, columns = np.linalg.eigh(rows @ rows.T)
        values = values[::-1]
        keep = values > TRUSTED * max(values[0], 0.0)
        vectors = (columns.T[::-1][keep] @ rows) / np.sqrt(values[keep])[:, None]
        values = values[keep]
    wanted = min(count, int((values > TRUSTED * max(values[0], 0.0)).sum())) if len(values) else 0
    return vectors[:wanted], values[:wanted]


def block_power(rows: Floats, count: int, at_rest: float = AT_REST) -> tuple[Floats, Floats]:
    """The same by subspace iteration with Rayleigh–Ritz: (count, d) and (count,).

    Stops when all eigenvectors rest, or after SWEEPS: those whose gap is too small to have been separated by
    then are not resolved by the data either.
    """
    start = np.random.default_rng(0).standard_normal((rows.shape[1], count + OVERSAMPLING))
    block = np.linalg.qr(rows.T @ (rows @ start))[0]
    for _ in range(SWEEPS):
        image = rows @ block
        values, turn = np.linalg.eigh(image.T @ image)
        values, turn = values[::-1], turn[:, ::-1]
        vectors = block @ turn
        raised = rows.T @ (image @ turn)
        restless = np.linalg.norm(raised - vectors * values, axis=0)[:count]
        if restless.max() <= at_rest * values[0]:
            break
        block = np.linalg.qr(raised)[0]
    return vectors[:, :count].T, values[:count]


def dense_directions(covariance: Floats, count: int) -> tuple[Floats, Floats]:
    """The same as `graded_directions` of a covariance (d, d) that is not graded."""
    values, columns = np.linalg.eigh(covariance)
    values = values[::-1][:count]
    with np.errstate(divide="ignore"):
        log_mu = np.log(np.maximum(values, 0.0))
    width = len(covariance)
    basis, logs = np.zeros((count, width)), np.full(count, -np.inf)
    basis[: len(values)], logs[: len(values)] = columns.T[::-1][:count], log_mu
    return basis, logs
