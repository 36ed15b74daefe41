"""random-features: quadrature, gradient flow against an integrated one, trends and published numbers."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.points import Points
from benchsuite_models.feature_flow import (
    T_MIN,
    FeatureFlow,
    FlowSettings,
    harmonics,
    posterior_mean,
    time_grid,
    weight_integral,
)
from benchsuite_models.random_features import RandomFeatures
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from benchsuite import UsageError
from benchsuite.report.drawings import drawing
from benchsuite.samplers import reverse
from benchsuite.testing import assert_passed, check_model

TWO = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
TINY = FlowSettings(features=8, weight="1/h", frequencies=3, horizon=6.0, draws=40, seed=2)


def h(t: float) -> float:
    return -math.expm1(-2 * t)


WEIGHTS = {"1": lambda t: 1.0, "1/h": lambda t: 1 / h(t), "1/h2": lambda t: 1 / h(t) ** 2}


def settings(**changes: Any) -> FlowSettings:
    return FlowSettings(**{**vars(TINY), **changes})


# --------------------------------------------------------------------------------------- quadrature


@pytest.mark.parametrize("weight", WEIGHTS)
def test_cells_carry_the_exact_integral_of_the_weight(weight: str) -> None:
    times, weights = time_grid(settings(weight=weight))
    assert bool((times.diff() > 0).all())
    assert T_MIN < float(times[0]) < float(times[-1]) < TINY.horizon
    expected = quad(WEIGHTS[weight], T_MIN, TINY.horizon, limit=400, points=[0.01, 0.1, 1])[0]
    assert float(weights.sum()) == pytest.approx(expected, rel=1e-7)
    ends = torch.tensor([0.3, 0.5], dtype=torch.float64)
    here = quad(WEIGHTS[weight], 0.3, 0.5)[0]
    assert float(weight_integral(ends, weight).diff()) == pytest.approx(here, rel=1e-9)


def test_the_grid_follows_the_oscillation_of_the_harmonics() -> None:
    times, _ = time_grid(settings(frequencies=40))
    assert float(times.diff().max()) < 0.26 * TINY.horizon / 40
    assert float((times.diff() / times[1:]).max()) < 0.06


def test_harmonics() -> None:
    t = torch.tensor([0.7], dtype=torch.float64)
    angles = [2 * math.pi * k * 0.7 / 6 for k in (1, 2, 3)]
    expected = [1.0, *map(math.sin, angles), *map(math.cos, angles)]
    assert harmonics(t, TINY)[0].tolist() == pytest.approx(expected)


def test_moments_of_the_loss_are_those_of_rectified_gaussians() -> None:
    """U_jj = ∫ W E[relu(mu + s z)²] dt / p in closed form, by an adaptive rule, over the two points."""
    flow = FeatureFlow(TWO, settings(draws=400))
    features = flow.features
    p = TINY.features

    def second_moment(j: int, t: float) -> float:
        clock = float((harmonics(torch.tensor([t], dtype=torch.float64), TINY) @ features.time_weights[j])[0])
        s = math.sqrt(h(t)) * float(features.space_weights[j].norm())
        total = 0.0
        for point in TWO:
            mu = math.exp(-t) * float(point @ features.space_weights[j]) + clock + float(features.bias[j])
            total += (mu**2 + s**2) * norm.cdf(mu / s) + mu * s * norm.pdf(mu / s)
        return total / 2

    for j in sorted(range(p), key=lambda j: -float(flow.gram[j, j]))[:4]:  # some features are dead
        # in ln t, where the integrand is smooth
        exact = quad(
            lambda u, j=j: math.exp(u) / h(math.exp(u)) * second_moment(j, math.exp(u)),
            math.log(T_MIN),
            math.log(TINY.horizon),
            limit=300,
            epsabs=1e-6,
        )[0]
        assert float(flow.gram[j, j]) * p == pytest.approx(exact, rel=0.02)


# ------------------------------------------------------------------------------------- gradient flow


def test_rows_follow_gradient_flow() -> None:
    """The closed form against an integrator that sees U, V and the start alone."""
    flow = FeatureFlow(TWO, TINY)
    gram, cross = flow.gram.numpy(), flow.cross.numpy()
    taus = [0.02, 0.2, 1.0]

    def slope(tau: float, flat: np.ndarray) -> np.ndarray:
        rows = flat.reshape(cross.shape)
        return (-2 * (rows @ gram - cross)).ravel()

    found = solve_ivp(
        slope, (0, 8), flow.start.numpy().ravel(), t_eval=taus, method="Radau", rtol=1e-9, atol=1e-11
    )
    for tau, flat in zip(taus, found.y.T, strict=True):
        np.testing.assert_allclose(flow.rows(tau).numpy(), flat.reshape(cross.shape), atol=1e-7)
    torch.testing.assert_close(flow.rows(0.0), flow.start)


def test_the_end_of_training_is_the_regression_and_the_untouched_part_of_the_start() -> None:
    flow = FeatureFlow(TWO, settings(features=40))
    gram, cross, start = flow.gram.numpy(), flow.cross.numpy(), flow.start.numpy()
    inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
    expected = cross @ inverse + start @ (np.eye(40) - gram @ inverse)
    np.testing.assert_allclose(flow.rows(math.inf).numpy(), expected, atol=1e-5)


def loss(flow: FeatureFlow, tau: float) -> float:
    """The quadratic loss less its constant."""
    rows = flow.rows(tau)
    return float((rows @ flow.gram * rows).sum() - 2 * (rows * flow.cross).sum())


@pytest.mark.parametrize("weight", WEIGHTS)
def test_training_never_raises_the_loss_even_at_the_steepest_weight(weight: str) -> None:
    """More features than directions that the data fill: U is singular to rounding, and nothing blows up."""
    flow = FeatureFlow(TWO, settings(features=300, weight=weight, frequencies=0, draws=60))
    spectrum = torch.linalg.eigvalsh(flow.gram)
    assert float(spectrum[0]) < 1e-9 * float(spectrum[-1])
    losses = [loss(flow, tau) for tau in (0.0, 1.0, 10.0, 1e3, 1e5, math.inf)]
    assert np.isfinite(losses).all()
    assert all(b <= a + 1e-6 * abs(a) for a, b in pairwise(losses))


def test_posterior_mean() -> None:
    x = torch.tensor([[1.0, 7.0], [0.0, 0.0]], dtype=torch.float64)
    sigma = torch.tensor([2.0, 1.0], dtype=torch.float64)
    expected = 3 * torch.tanh(3 * x[:, 0] / sigma**2)  # two equal points at ±3
    torch.testing.assert_close(posterior_mean(x, sigma, TWO)[:, 0], expected)


# ------------------------------------------------------------------------------- errors and samples


@pytest.fixture(scope="module")
def two_modes() -> FeatureFlow:
    return FeatureFlow(TWO, FlowSettings(300, "1/h", 32, 10.0, 64, 0))


def test_only_the_tangent_error_has_a_floor(two_modes: FeatureFlow) -> None:
    """The architectural bias is along the ridge; across it, training removes the error."""
    split = two_modes.error_split((300.0, 1e3, 1e4, 1e5), 1)
    assert list(split.tangent) == sorted(split.tangent, reverse=True)
    assert list(split.normal) == sorted(split.normal, reverse=True)
    assert split.tangent_floor > 0.3 * split.tangent[0]
    assert split.normal_floor < 1e-9 * split.normal[0]
    assert split.normal[-1] < 1e-2 * split.normal[0]
    assert split.normal[1] < 0.1 * split.tangent[1]
    for value, error in zip(split.tangent, split.tangent_error, strict=True):
        assert 0 < error < 0.1 * value


def test_errors_are_those_of_the_parts_on_fresh_draws(two_modes: FeatureFlow) -> None:
    """By a plain sum over the same grid with other draws, in the coordinates of two points on the x axis."""
    split = two_modes.error_split((1e3,), 1)
    generator = torch.Generator().manual_seed(99)
    rows = two_modes.rows(1e3)
    total = torch.zeros(2, dtype=torch.float64)
    for t, weight in zip(two_modes.times, two_modes.weights, strict=True):
        z = torch.randn(20, 2, generator=generator, dtype=torch.float64)
        x = math.exp(-t) * TWO.repeat(10, 1) + math.sqrt(h(float(t))) * z
        exact = torch.zeros_like(x)
        exact[:, 0] = 3 * math.exp(-t) * torch.tanh(3 * math.exp(-t) * x[:, 0] / h(float(t)))
        off = two_modes.features(x, t.expand(20)) @ rows.T - exact
        total += weight * off.square().mean(0)
    assert float(total[0]) == pytest.approx(split.tangent[0], rel=0.2)
    assert float(total[1]) == pytest.approx(split.normal[0], rel=0.2)


def final(flow: FeatureFlow, points: torch.Tensor, tau: float, paths: int, steps: int) -> torch.Tensor:
    """States (paths, d) at t = 0.001 of the reverse SDE from t = 3.5, where nothing of the data shows."""
    rows = flow.rows(tau)
    levels = [math.sqrt(math.expm1(2 * t)) for t in np.geomspace(3.5, 1.01 * T_MIN, steps)]
    generator = torch.Generator().manual_seed(7)
    states: list[torch.Tensor] = []

    def noise(step: int = 0) -> torch.Tensor:
        return torch.randn(paths, points.shape[1], generator=generator, dtype=torch.float64)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        t = sigma.square().log1p() / 2
        scale = (-t).exp()[:, None]
        return flow.features(scale * x, t) @ rows.T / scale

    begin = points.mean(0) + (levels[0] ** 2 + points.var(0, correction=0)).sqrt() * noise()
    reverse(
        denoise,
        [(0, begin)],
        levels,
        method="ancestral",
        noise=noise,
        observe=lambda i, x, denoised: states.append(x),
    )
    return states[-1]


def between_modes(x: torch.Tensor, points: torch.Tensor) -> float:
    return float((torch.cdist(x, points).amin(dim=1) > 0.5).double().mean())


def test_samples_between_modes_get_fewer_with_training_and_stay_on_the_line(two_modes: FeatureFlow) -> None:
    ends = [final(two_modes, TWO, tau, 500, 120) for tau in (100.0, 1e3, math.inf)]
    shares = [between_modes(x, TWO) for x in ends]
    assert shares[0] > shares[1] + 0.1
    assert shares[1] > shares[2] - 0.05
    spread = [float(x[:, 1].square().mean().sqrt()) for x in ends]
    floor = math.sqrt(math.expm1(2 * T_MIN))  # the noise that is left
    assert spread[0] > 1.4 * floor
    assert spread[2] == pytest.approx(floor, rel=0.15)


def test_three_modes_give_the_published_shares() -> None:
    """Read off the public repository's figures at p = 1000, T = 40 (of 2000 samples, one draw of the features)."""
    points = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    flow = FeatureFlow(points, FlowSettings(1000, "1/h", 128, 40.0, 48, 0))
    for tau, published in {500.0: 0.538, 5000.0: 0.425, math.inf: 0.391}.items():
        assert between_modes(final(flow, points, tau, 400, 100), points) == pytest.approx(published, abs=0.1)


# --------------------------------------------------------------------------------------- the plugin


def loaded(dataset: Points | None = None, **options: Any) -> RandomFeatures:
    dataset = dataset or Points()
    dataset.load()
    model = RandomFeatures(**{"features": 60, "draws": 16, "frequencies": 2, "horizon": 5.0, **options})
    model.bind(dataset)
    model.load()
    return model


def test_contract() -> None:
    dataset = Points("circle", radius=1.0)
    dataset.load()
    options = {"features": 300, "draws": 32, "frequencies": 2, "horizon": 5.0}
    alternatives = {"weight": "1", "tau": 100.0}
    assert_passed(check_model(RandomFeatures(**options), dataset, options=options, alternatives=alternatives))


def test_the_denoiser_is_the_flow_in_other_coordinates() -> None:
    """x = x_t / a and sigma² = e^{2t} - 1; D = m / a."""
    model = loaded(tau=50.0)
    flow = FeatureFlow(TWO, FlowSettings(60, "1/h", 2, 5.0, 16, 0))
    t = torch.tensor([0.01, 0.5, 4.0], dtype=torch.float64)
    x_t = torch.tensor([[0.3, -1.0], [2.0, 0.1], [-0.7, 0.2]], dtype=torch.float64)
    sigma = torch.expm1(2 * t).sqrt()
    found = model.denoise(x_t * t.exp()[:, None], sigma)
    torch.testing.assert_close(found, flow.features(x_t, t) @ flow.rows(50.0).T * t.exp()[:, None])
    clock = model.native_time(np.asarray(-2 * sigma.log()))
    np.testing.assert_allclose(clock, t.numpy() / 5, rtol=1e-9)


def test_mixtures_are_fitted_too() -> None:
    model = loaded(Points("two-modes", std=0.4, per_mode=30), tau=1e4)
    assert len(model.training_points().images) == 60
    far = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    out = model.denoise(far, torch.full((2,), 0.5))
    assert out[0, 0] > 1.5
    assert out[1, 0] < -1.5


def test_facts_state_the_split_and_its_curve() -> None:
    model = loaded(tau=100.0)
    facts = model.facts()
    split = model.error_split((100.0,))
    stated = facts["error_split"]
    assert stated["architectural_tangent"] == pytest.approx(split.tangent_floor)
    assert stated["architectural_tangent"] + stated["optimisation_tangent"] == pytest.approx(split.tangent[0])
    assert stated["architectural_normal"] + stated["optimisation_normal"] == pytest.approx(split.normal[0])
    (panel,) = facts["drawing errors"]["panels"]
    along, across, floor, *own = panel["layers"]
    at = along["x"].index(100.0)
    assert along["y"][at] == pytest.approx(split.tangent[0])
    assert across["y"][at] == pytest.approx(split.normal[0])
    assert floor["y"] == pytest.approx([split.tangent_floor] * len(floor["x"]))
    assert [layer["y"][0] for layer in own] == [along["y"][at], across["y"][at]]
    assert drawing(facts["drawing errors"]) is not None
    json.dumps(facts, allow_nan=False)
    assert loaded().facts()["error_split"]["optimisation_tangent"] == pytest.approx(0, abs=1e-9)


def test_errors_are_not_split_where_there_is_no_frame() -> None:
    wide = loaded(Points("circle", dim=70, count=20))
    assert wide.facts() == {}
    with pytest.raises(UsageError, match=r"at most 64 coordinates.* 70 coordinates and 20 points"):
        wide.error_split((1.0,))
    with pytest.raises(UsageError, match="got dim 2"):
        loaded(dim=2).error_split((1.0,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": -1.0}, "tau must be at least 0, or inf, got -1"),
        ({"tau": float("nan")}, "tau must be at least 0, or inf, got nan"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"draws": 0}, "draws must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"weight": "h"}, "weight must be one of 1, 1/h, 1/h2, got 'h'"),
        ({"frequencies": -1}, "frequencies must not be negative, got -1"),
        ({"horizon": 80.0}, r"horizon must lie in \[1, 40\], got 80"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RandomFeatures(**options)
