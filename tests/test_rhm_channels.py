"""Noise channels of exact-rhm: against exact enumeration, mean field, and what any exact posterior must obey."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from benchsuite_metrics.susceptibility import susceptibility
from benchsuite_models.exact_rhm import ExactRHM
from benchsuite_models.rhm_channels import equivalent_epsilon, mean_field_curves
from benchsuite_models.rhm_theory import mean_field

from benchsuite import UsageError
from benchsuite.randomness import stream_keys

FIXTURE_RULES = (  # B §5: v = n_c = 3, m = s = L = 2
    [[[0, 1], [2, 2]], [[1, 0], [2, 1]], [[0, 2], [1, 1]]],
    [[[0, 0], [1, 2]], [[2, 1], [0, 1]], [[1, 1], [2, 0]]],
)


def fixture() -> ExactRHM:
    return ExactRHM(3, 2, 2, 2, rules=FIXTURE_RULES)


def every_string() -> torch.Tensor:
    """The 24 strings of the fixture, one-hot (24, 4, 3)."""
    top, bottom = FIXTURE_RULES
    strings = [
        bottom[a][i] + bottom[b][j]
        for root in range(3)
        for a, b in top[root]
        for i, j in itertools.product(range(2), repeat=2)
    ]
    return torch.nn.functional.one_hot(torch.tensor(strings), 3).float()


def keys(rows: int, draws: int, name: str = "test") -> torch.Tensor:
    return stream_keys((name,), range(rows * draws)).reshape(rows, draws)


def within(values: np.ndarray, expected: float, slack: float = 0.0) -> None:
    """The mean over rows is the expected value within four standard errors."""
    error = values.std(ddof=1) / len(values) ** 0.5
    assert abs(values.mean() - expected) < 4 * error + slack, (values.mean(), expected, error)


@pytest.mark.parametrize(
    ("epsilon", "value"),
    [(0.1, 0.915997779282), (0.25, 0.787930295789), (0.5, 0.579437358369), (0.75, 0.414971006030), (1.0, 1 / 3)],
)
def test_class_kept_by_the_epsilon_process(epsilon: float, value: float) -> None:
    kept = fixture().send("epsilon", epsilon, every_string(), keys(24, 1)).kept["class"]
    assert kept.shape == (24, 1)
    assert kept.mean().item() == pytest.approx(value, abs=1e-11)


@pytest.mark.parametrize(
    ("fraction", "value", "token"), [(0.25, 0.748014322917, 0.889259265718), (0.5, 0.547569444444, 0.744005766369)]
)
def test_class_and_tokens_kept_under_masking(fraction: float, value: float, token: float) -> None:
    kept = fixture().send("masking", fraction, every_string(), keys(24, 400)).kept
    within(kept["class"].mean(0).numpy(), value)
    within(kept["level-0"].mean(0).numpy(), token)


@pytest.mark.parametrize("channel", ["masking", "epsilon"])
def test_the_ends_of_a_loss(channel: str) -> None:
    passage = fixture().send(channel, 0.0, every_string(), keys(24, 3), copies=True)
    assert all(torch.allclose(p, torch.ones_like(p)) for p in passage.kept.values())
    assert passage.changed is not None
    assert passage.changed.shape == (24, 3, 4)
    assert not passage.changed.any()
    nothing = fixture().send(channel, 1.0, every_string(), keys(24, 3)).kept
    torch.testing.assert_close(nothing["class"], torch.full_like(nothing["class"], 1 / 3))
    assert nothing["level-0"].mean().item() == pytest.approx(19 / 48, abs=1e-9)


def test_gaussian_passages_agree_with_the_posterior() -> None:
    """E[p(truth)] = E[sum p²], the latter from noise of torch's own."""
    model, log_snr = ExactRHM(6, 2, 2, 3, seed=1), 0.8
    sigma = float(np.exp(-log_snr / 2))
    x, _ = model.sample(3000, torch.Generator().manual_seed(0))
    kept = model.send("gaussian", log_snr, x, keys(len(x), 1)).kept
    noised = x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    nodes = model.node_posteriors(noised, torch.full((len(x),), sigma))
    for name, p in zip(kept, nodes, strict=True):
        expected = p.square().sum(2).mean(1)
        gap = kept[name][:, 0] - expected
        assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize(("channel", "level"), [("epsilon", 0.6), ("masking", 0.4), ("gaussian", 0.5)])
def test_copies_are_draws_from_the_posterior(channel: str, level: float) -> None:
    """A token changes as often as it is not kept; copies are strings of the grammar."""
    model = ExactRHM(6, 2, 2, 3, seed=1)
    x, _ = model.sample(150, torch.Generator().manual_seed(0))
    passage = model.send(channel, level, x, keys(150, 12), copies=True)
    assert passage.changed is not None
    changed = passage.changed.double().mean(2)  # (B, R)
    lost = 1 - passage.kept["level-0"].expand(150, 12)
    gap = (changed - lost).numpy().ravel()
    assert gap.std() > 0
    assert abs(gap.mean()) < 4 * gap.std() / len(gap) ** 0.5


@pytest.mark.parametrize(("channel", "level"), [("epsilon", 0.6), ("masking", 0.4), ("gaussian", 0.5)])
def test_passages_do_not_depend_on_their_neighbours(
    channel: str, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ExactRHM(6, 2, 2, 3, seed=1)
    x, _ = model.sample(9, torch.Generator().manual_seed(0))
    k = keys(9, 4)
    whole = model.send(channel, level, x, k, copies=True)
    monkeypatch.setattr("benchsuite_models.rhm_belief.CHUNK", 300)
    part = model.send(channel, level, x[5:7], k[5:7], copies=True)
    assert whole.changed is not None
    assert part.changed is not None
    torch.testing.assert_close(whole.changed[5:7], part.changed)
    for name, p in part.kept.items():
        torch.testing.assert_close(whole.kept[name][5:7], p)


def test_more_noise_keeps_less_on_average() -> None:
    model = ExactRHM(8, 3, 2, 3)
    x, _ = model.sample(400, torch.Generator().manual_seed(0))
    for channel, levels in (("masking", np.linspace(0, 1, 6)), ("epsilon", np.linspace(0, 1, 6))):
        means = [model.send(channel, e, x, keys(400, 1)).kept["class"].mean().item() for e in levels]
        assert (np.diff(means) < 0).all()


def test_bad_passages_are_refused() -> None:
    model = fixture()
    with pytest.raises(UsageError, match=r"unknown noise channel 'flip'; known: gaussian, masking, epsilon"):
        model.send("flip", 0.5, every_string(), keys(24, 1))
    with pytest.raises(UsageError, match=r"masked fraction must be in \[0, 1\], got 1.5"):
        model.send("masking", 1.5, every_string(), keys(24, 1))
    with pytest.raises(UsageError, match="its own strings only"):
        model.send("masking", 0.5, torch.nn.functional.one_hot(torch.tensor([[0, 0, 0, 0]]), 3), keys(1, 1))


def test_redraws_are_other_grammars_of_the_same_size() -> None:
    model = ExactRHM(6, 2, 2, 3, n_c=4, seed=5)
    first, again, second = model.redrawn(1), model.redrawn(1), model.redrawn(2)
    assert first is not None
    assert again is not None
    assert second is not None
    assert first.fingerprint() == again.fingerprint()
    assert len({model.fingerprint(), first.fingerprint(), second.fingerprint()}) == 3
    assert first.grammar.sizes() == model.grammar.sizes()
    assert fixture().redrawn(1) is None


# ------------------------------------------------------------------------------------------ theory


def test_the_gaussian_leaf_belief_is_an_integral() -> None:
    """v = 2: belief = 1 / (1 + e^a), a normal with mean -1 / sigma² and variance 2 / sigma²."""
    levels = np.array([-2.0, 0.0, 1.0, 3.0])
    a = np.linspace(-40, 40, 40001)
    for level, epsilon in zip(levels, equivalent_epsilon("gaussian", levels, 2), strict=True):
        snr = np.exp(level)
        density = np.exp(-((a + snr) ** 2) / (4 * snr)) / np.sqrt(4 * np.pi * snr)
        belief = np.trapezoid(density / (1 + np.exp(a)), a)
        assert epsilon == pytest.approx(2 * (1 - belief), abs=0.02)


def test_theory_is_mean_field_and_knows_its_limits() -> None:
    curves = mean_field_curves("epsilon", np.array([0.0, 0.5]), 32, 8, 2, 7)
    assert curves["kept/class"][1] == pytest.approx(0.98347893, abs=6e-9)
    assert curves["kept/level-0"][1] == pytest.approx(0.980442501, abs=6e-10)
    assert curves["susceptibility"][0] == 1.0
    assert "susceptibility" not in mean_field_curves("masking", np.array([0.5]), 32, 8, 2, 7)
    few = ExactRHM(6, 2, 2, 3, n_c=4)
    assert few.theory("epsilon", np.array([0.5])) == {}
    assert "needs n_c = v, got 4 and 6" in few.theory_facts()["transition"]
    facts = ExactRHM(32, 17, 2, 3).theory_facts()
    assert facts["epsilon_star"] is facts["p_star"] is facts["nu"] is None
    assert facts["transition"].startswith("no transition: F'(1)")


@pytest.fixture(scope="module")
def redraws() -> list[tuple[ExactRHM, torch.Tensor]]:
    """24 grammars with v = 32, m = 8, s = 2, L = 7, and 8 strings of each (B §5.6 took 48)."""
    first = ExactRHM(32, 8, 2, 7)
    models = [first, *(model for n in range(1, 24) if (model := first.redrawn(n)) is not None)]
    return [(model, model.sample(8, torch.Generator().manual_seed(i))[0]) for i, model in enumerate(models)]


# mean field and simulation of the reference, at the epsilon where they were published
@pytest.mark.parametrize(
    ("epsilon", "published"),
    [(0.6, 0.9520), (0.7, 0.6639), (0.72, 0.4388), (0.73, 0.3067), (0.76, 0.0692), (0.8, 0.0335)],
)
def test_belief_propagation_is_mean_field_on_average(
    redraws: list[tuple[ExactRHM, torch.Tensor]], epsilon: float, published: float
) -> None:
    kept = [model.send("epsilon", epsilon, x, keys(8, 1)).kept for model, x in redraws]
    theory = mean_field(epsilon, 32, 8, 2, 7)
    assert theory.class_retention == pytest.approx(published, abs=6e-5)
    within(np.array([k["class"].mean().item() for k in kept]), published, 0.005)
    for level in range(7):
        within(np.array([k[f"level-{level}"].mean().item() for k in kept]), theory.retention[level], 0.005)


def chi(redraws: list[tuple[ExactRHM, torch.Tensor]], channel: str, level: float, draws: int) -> np.ndarray:
    found = []
    for number, (model, x) in enumerate(redraws):
        passage = model.send(channel, level, x, keys(len(x), draws, f"chi {number}"), copies=True)
        assert passage.changed is not None
        found.append(passage.changed.numpy())
    return susceptibility(np.concatenate(found))


def test_tokens_change_together_at_the_threshold(redraws: list[tuple[ExactRHM, torch.Tensor]]) -> None:
    """Mean field 1.77 at 0.5 and 5.885 at 0.73, near its peak, which B §5.8 simulated as 6.00 ± 0.10."""
    peak = chi(redraws, "epsilon", 0.73, 32)
    error = peak.std(ddof=1) / len(peak) ** 0.5
    assert error < 0.25
    assert abs(peak.mean() - 5.9) < 0.3 + 2 * error
    assert abs(chi(redraws, "epsilon", 0.5, 8).mean() - 1.77) < 0.3
