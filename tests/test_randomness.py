"""Random numbers by name: normal, independent, and the same whatever the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from benchsuite.randomness import _mix, normal, stream_key, stream_keys, uniform

KEYS = stream_keys((0, "digits", "noise_sweep"), range(500))


def test_the_mixer_is_splitmix64() -> None:
    """First outputs for seed 1234567, as published with the reference implementation."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = [(1234567 + (i + 1) * 0x9E3779B97F4A7C15) % 2**64 for i in range(4)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states], dtype=torch.int64)
    assert [value % 2**64 for value in _mix(signed).tolist()] == published


@pytest.mark.parametrize(("draw", "law"), [(normal, "norm"), (uniform, "uniform")])
def test_law(draw: Callable[..., torch.Tensor], law: str) -> None:
    """Kolmogorov–Smirnov on 40 blocks, whose p-values are themselves uniform if the law is right."""
    blocks = [draw(KEYS, step, (40,)).double().numpy().ravel() for step in range(40)]
    p = [stats.kstest(block, law).pvalue for block in blocks]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert min(p) > 1e-4


def test_moments() -> None:
    z = normal(KEYS, 3, (20, 20)).double().numpy().ravel()
    n = len(z)
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / n)
    assert 4 < np.abs(z).max() < 6


def test_uniform_deviates_stay_inside() -> None:
    u = uniform(KEYS, 0, (4000,))
    assert u.min() > 0
    assert u.max() < 1


@pytest.mark.parametrize("pair", ["keys", "steps", "positions", "halves", "names"])
def test_neighbours_are_independent(pair: str) -> None:
    """No linear correlation, none of magnitudes, and a uniform copula on a 10 × 10 table."""
    block = normal(KEYS, 7, (200,)).double()
    others = stream_keys((1, "digits", "noise_sweep"), range(500))
    a, b = {
        "keys": (block[:-1], block[1:]),
        "steps": (block, normal(KEYS, 8, (200,)).double()),
        "positions": (block[:, :-1], block[:, 1:]),
        "halves": (block[:, :100], block[:, 100:]),  # the two deviates of one Box–Muller pair
        "names": (block, normal(others, 7, (200,)).double()),
    }[pair]
    x, y = a.numpy().ravel(), b.numpy().ravel()
    bound = 4 / math.sqrt(len(x))
    assert abs(np.corrcoef(x, y)[0, 1]) < bound
    assert abs(np.corrcoef(np.abs(x), np.abs(y))[0, 1]) < bound
    table, *_ = np.histogram2d(stats.norm.cdf(x), stats.norm.cdf(y), bins=10, range=[[0, 1], [0, 1]])
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_no_two_blocks_share_numbers() -> None:
    """Steps of one key and keys of one step never overlap, not even shifted."""
    first = normal(KEYS[:1], 0, (1000,))[0]
    for other in (normal(KEYS[:1], 1, (1000,))[0], normal(KEYS[1:2], 0, (1000,))[0]):
        assert np.intersect1d(first.numpy(), other.numpy()).size < 3  # 23-bit uniforms may meet by chance


def test_numbers_do_not_depend_on_batch_or_order() -> None:
    whole = normal(KEYS, 2, (1, 3, 3))
    assert torch.equal(normal(KEYS[100:103], 2, (1, 3, 3)), whole[100:103])
    shuffled = torch.randperm(len(KEYS), generator=torch.Generator().manual_seed(0))
    assert torch.equal(normal(KEYS[shuffled], 2, (1, 3, 3)), whole[shuffled])
    assert torch.equal(normal(KEYS, 2, (9,)).reshape(-1, 1, 3, 3), whole)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (0,)])
def test_shapes(shape: tuple[int, ...]) -> None:
    z = normal(KEYS[:4], 0, shape)
    assert z.shape == (4, *shape)
    assert z.dtype == torch.float32
    assert uniform(KEYS[:4], 0, shape).shape == (4, *shape)


def test_keys_come_from_names() -> None:
    assert stream_key("a", 1) == stream_key("a", 1)
    names = [("a",), ("b",), ("a", "b"), ("ab",), ("b", "a"), ("a", 1), ("a", 11), ("a1",), ()]
    assert len({stream_key(*name) for name in names}) == len(names)
    keys = stream_keys(("seed", "data"), ["x", "y"])
    assert keys.tolist() == [stream_key("seed", "data", "x"), stream_key("seed", "data", "y")]
    assert keys.dtype == torch.int64
    assert (stream_keys((), range(1000)) >= 0).all()
