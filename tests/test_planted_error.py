"""planted-error: the laws that its errors obey under the reverse SDE, and that they keep to their directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.points import Points
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.planted_error import PlantedError

from benchsuite import DiffusionModel, NotApplicableError, UsageError
from benchsuite.samplers import reverse
from benchsuite.testing import assert_passed, check_model


def bound(model: DiffusionModel, **points: Any) -> Any:
    dataset = Points(**points)
    dataset.load()
    model.bind(dataset)
    model.load()
    return model


def planted(points: dict[str, Any] | None = None, **options: Any) -> Any:
    return bound(PlantedError(**options), **(points or {}))


def sigmas(first: float, last: float, steps: int) -> list[float]:
    return np.geomspace(first, last, steps + 1).tolist()


def descend(
    model: DiffusionModel, x: torch.Tensor, levels: list[float], *, noisy: bool = True, method: str = "ancestral"
) -> torch.Tensor:
    """The state at the last level, with noise that is the same for every model."""
    generator = torch.Generator().manual_seed(1)
    draws = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64) if noisy else torch.zeros_like(x)
        for _ in levels
    ]
    seen: dict[int, torch.Tensor] = {}
    reverse(
        model.denoise,
        [(0, x)],
        levels,
        method=method,
        noise=lambda step: draws[step],
        observe=lambda i, state, denoised: seen.update({i: state}),
    )
    return seen[len(levels) - 1]


def start(rows: int, sigma: float) -> torch.Tensor:
    z = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return sigma * z


LEVELS = sigmas(20.0, 0.0447, 40)


@pytest.mark.parametrize("normal", [0.1, 0.2, 0.4, -0.8])
def test_align_the_offset_is_the_normal_error(normal: float) -> None:
    """Same starts and noise with and without it: the difference is normal (1 - q), and none of it is tangent."""
    x = start(500, LEVELS[0])
    exact, off = descend(planted(), x, LEVELS), descend(planted(normal=normal), x, LEVELS)
    law = normal * (1 - (LEVELS[-1] / LEVELS[0]) ** 2)
    torch.testing.assert_close(off[:, 1] - exact[:, 1], torch.full((500,), law, dtype=torch.float64))
    assert torch.equal(off[:, 0], exact[:, 0])
    # and over the noise of the paths, as a metric has to see it
    assert float(off[:, 1].mean()) == pytest.approx(normal, abs=4 * LEVELS[-1] / math.sqrt(500))


@pytest.mark.parametrize("until", [10, 25, 35])
def test_align_early_normal_error_is_forgotten(until: int) -> None:
    """An error that stops at sigma_1 has shrunk by (sigma / sigma_1)² at sigma."""
    x = start(50, LEVELS[0])
    model = planted(normal=0.8, stop=-2 * math.log(LEVELS[until]) + 1e-6)
    left = (descend(model, x, LEVELS) - descend(planted(), x, LEVELS))[:, 1]
    stopped = LEVELS[until + 1]  # where the last step with the error arrives
    law = 0.8 * (1 - (stopped / LEVELS[0]) ** 2) * (LEVELS[-1] / stopped) ** 2
    torch.testing.assert_close(left, torch.full((50,), law, dtype=torch.float64))


#: |v - mode| at t = 0.001 of what was 1 at t = 0.05, in variance-preserving coordinates: sinh law of the reference
SLIDE = {0.0: 0.0200, 0.5: 0.1449, 0.7: 0.3200, 0.8: 0.4755, 0.9: 0.7067, 0.95: 0.8615, 1.0: 1.0502}


@pytest.mark.parametrize("tangent", SLIDE)
def test_slide_tangent_error_sets_how_far_samples_get(tangent: float) -> None:
    early, late = 0.05, 0.001
    levels = [math.sqrt(math.expm1(2 * t)) for t in np.geomspace(early, late, 400)]
    x = torch.tensor([[2.0, 0.0], [3.3, 0.0]], dtype=torch.float64)  # the mode is at (3, 0)
    end = descend(planted(tangent=tangent), x, levels, noisy=False, method="sde-2m")
    measured = (end[:, 0] - 3) / (x[:, 0] - 3) * math.exp(early - late)
    torch.testing.assert_close(measured, torch.full_like(measured, SLIDE[tangent]), atol=1e-4, rtol=1e-3)
    assert float(end[:, 1].abs().max()) == 0
    law = (levels[-1] / levels[0]) ** (2 * (1 - tangent))
    torch.testing.assert_close(
        measured / math.exp(early - late), torch.full_like(measured, law), atol=0, rtol=1e-3
    )


def test_slide_tangent_error_leaves_the_offset_alone() -> None:
    """Inter-mode samples appear, all of them on the line: normal coordinates are those of the exact model."""
    x = start(500, LEVELS[0])
    exact, off = descend(planted(), x, LEVELS), descend(planted(tangent=0.8, start=0.0), x, LEVELS)
    assert torch.equal(off[:, 1], exact[:, 1])
    between = [float((3 - end[:, 0].abs()).abs().gt(0.5).double().mean()) for end in (exact, off)]
    assert between[0] == 0
    assert between[1] > 0.1


def test_errors_keep_to_the_frame_and_have_the_stated_size() -> None:
    model = planted({"which": "circle"}, normal=0.3, tangent=0.4)
    generator = torch.Generator().manual_seed(5)
    x = 2.5 * torch.randn(200, 2, generator=generator, dtype=torch.float64)
    sigma = torch.full((200,), 0.4, dtype=torch.float64)
    across, ahead = model.errors(x, sigma)
    frame = model.frame(x, sigma)[:, :, 0]
    assert float((across * frame).sum(1).abs().max()) < 1e-12
    torch.testing.assert_close(across.norm(dim=1), torch.full((200,), 0.3, dtype=torch.float64))
    exact = bound(EmpiricalBayes(), which="circle").denoise(x, sigma)
    lag = ((x - exact) * frame).sum(1, keepdim=True) * frame
    torch.testing.assert_close(ahead, 0.4 * lag)
    torch.testing.assert_close(model.denoise(x, sigma), exact + across + ahead)


def test_a_window_of_levels() -> None:
    model, exact = planted(normal=0.5, start=0.0, stop=2.0), planted()
    x = start(6, 1.0)
    sigma = torch.tensor([-1.0, -0.01, 0.0, 1.0, 2.0, 2.01], dtype=torch.float64).div(-2).exp()
    off = (model.denoise(x, sigma) - exact.denoise(x, sigma)).norm(dim=1)
    assert (off > 0.1).tolist() == [False, False, True, True, True, False]


def test_without_errors_it_is_the_exact_denoiser() -> None:
    x = start(20, 2.0).float()
    sigma = torch.full((20,), 1.5)
    torch.testing.assert_close(
        planted({"which": "planar-13"}).denoise(x, sigma),
        bound(EmpiricalBayes(), which="planar-13").denoise(x, sigma),
    )


def test_the_direction_can_be_given() -> None:
    x, sigma = start(10, 1.0), torch.ones(10, dtype=torch.float64)
    across, _ = planted(normal=0.5, direction=[1.0, -2.0]).errors(x, sigma)
    torch.testing.assert_close(across, torch.tensor([[0.0, -0.5]], dtype=torch.float64).expand(10, 2))
    along_it, _ = planted(normal=0.5, direction=[1.0, 0.0]).errors(x, sigma)
    assert float(along_it.abs().max()) == 0  # a push along the ridge is no normal error


def test_its_training_points_are_those_of_the_data() -> None:
    part = planted({"which": "three-modes"}).training_points()
    assert part.images.tolist() == [[0, 0], [5, 0], [0, 5]]


@pytest.mark.parametrize("options", [{}, {"tangent": 0.5, "start": 2.0}])
def test_contract(options: dict[str, Any]) -> None:
    dataset = Points("circle")
    dataset.load()
    assert_passed(check_model(PlantedError(**options), dataset, options=options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal": float("nan")}, "normal must be finite, got nan"),
        ({"tangent": 1.5}, r"tangent must lie in \[0, 1\], got 1.5"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"dim": 2}, "dim must be less than the 2 coordinates and the 2 distinct points, got 2"),
        ({"start": 3.0, "stop": 1.0}, "errors need start < stop, got 3.0 and 1.0"),
        ({"direction": [0.0, 0.0]}, "direction must be finite and not 0"),
        ({"direction": [1.0, 0.0, 0.0]}, "direction must have 2 coordinates, got 3"),
    ],
)
def test_impossible_errors_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        planted(**options)


def test_wide_spaces_are_refused() -> None:
    with pytest.raises(NotApplicableError, match="at most 128 coordinates"):
        planted({"which": "circle", "dim": 200})
