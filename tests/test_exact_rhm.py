"""The exact Random Hierarchy Model against enumeration of every string of small grammars."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from benchsuite_models.exact_rhm import ExactRHM, epsilon_beliefs, masking_beliefs
from benchsuite_models.rhm_grammar import Grammar
from benchsuite_models.rhm_theory import mean_field
from numpy.typing import NDArray

from benchsuite import UsageError
from benchsuite.specs import build

Array = NDArray[np.float64]
Labels = tuple[tuple[int, ...], ...]

# The published fixture (B §5): v = n_c = 3, m = s = L = 2, x0 = (0, 0, 2, 1) of class 0.
FIXTURE_RULES = (
    [[[0, 1], [2, 2]], [[1, 0], [2, 1]], [[0, 2], [1, 1]]],
    [[[0, 0], [1, 2]], [[2, 1], [0, 1]], [[1, 1], [2, 0]]],
)
X0 = torch.tensor([[0, 0, 2, 1]])


def fixture() -> ExactRHM:
    return ExactRHM(3, 2, 2, 2, rules=FIXTURE_RULES)


def derivations(grammar: Grammar) -> list[Labels]:
    """Every derivation: the symbols of every level, root first; by recursion on single nodes."""

    def below(symbol: int, depth: int) -> Iterator[Labels]:
        if depth == grammar.L:
            yield ()
            return
        for rule in grammar.rules[depth][symbol]:
            children = [list(below(int(child), depth + 1)) for child in rule]
            for subtrees in itertools.product(*children):
                deeper = [sum((tree[i] for tree in subtrees), ()) for i in range(grammar.L - depth - 1)]
                yield (tuple(int(child) for child in rule), *deeper)

    return [((root,), *tree) for root in range(grammar.n_c) for tree in below(root, 0)]


class BruteForce:
    """Posterior by a sum over all strings, in the log domain."""

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        every = derivations(grammar)
        self.levels = [np.array([one[depth] for one in every]) for depth in range(grammar.L + 1)]
        self.tokens = self.levels[-1]  # (strings, d)
        self.labels = np.stack([level[:, 0] for level in self.levels], axis=1)

    def weights(self, log_evidence: Array, labels: tuple[int, ...] | None = None) -> Array:
        """log_evidence (d, v) => p(string)."""
        energy = log_evidence[np.arange(self.tokens.shape[1]), self.tokens].sum(1)
        if labels is not None:
            allowed = np.array([(self.labels[:, i] == y) | (y < 0) for i, y in enumerate(labels)]).all(0)
            energy = np.where(allowed, energy, -np.inf)
        weights = np.exp(energy - energy.max())
        return weights / weights.sum()

    def nodes(self, weights: Array) -> list[Array]:
        """p(string) => marginals (nodes, symbols) of every level."""
        return [
            np.stack([weights @ (level == symbol) for symbol in range(size)], axis=1)
            for level, size in zip(self.levels, self.grammar.sizes(), strict=True)
        ]


GRAMMARS = {
    "deep": Grammar(4, 2, 2, 3, seed=1),
    "wide": Grammar(3, 2, 3, 2, seed=2),
    "few classes": Grammar(5, 3, 2, 2, n_c=2, seed=3),
    "many classes": Grammar(4, 2, 2, 2, n_c=7, seed=4),
    "one rule": Grammar(4, 1, 2, 3, seed=5),
    "shallow": Grammar(4, 3, 3, 1, seed=6),
}


def model_of(grammar: Grammar) -> ExactRHM:
    g = grammar
    return ExactRHM(g.v, g.m, g.s, g.L, g.n_c, rules=g.rules)


@pytest.mark.parametrize("case", GRAMMARS)
@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.0, 30.0])
def test_belief_propagation_is_enumeration(case: str, sigma: float) -> None:
    """All nodes, for x on the data (noised strings) and far from them, to 1e-12."""
    grammar = GRAMMARS[case]
    model, brute = model_of(grammar), BruteForce(grammar)
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(8, *model.shape, dtype=torch.float64, generator=generator)  # far off when sigma is small
    strings = torch.tensor(brute.tokens[:: max(1, len(brute.tokens) // 4)][:4])
    x[:4] = torch.nn.functional.one_hot(strings, grammar.v) + sigma * x[:4]
    level = torch.full((8,), sigma, dtype=torch.float64)
    nodes, posterior, means = model.node_posteriors(x, level), model.posterior(x, level), model.denoise(x, level)
    for row in range(8):
        expected = brute.nodes(brute.weights(x[row].numpy() / sigma**2))
        for depth, marginal in enumerate(expected):
            np.testing.assert_allclose(nodes[depth][row], marginal, atol=2e-12)
            np.testing.assert_allclose(posterior[model.factors[depth].name][row], marginal[0], atol=2e-12)
        np.testing.assert_allclose(means[row], expected[-1], atol=2e-12)


@pytest.mark.parametrize("case", GRAMMARS)
def test_conditional_denoiser_is_enumeration(case: str) -> None:
    """Every subset of the factors, labels taken from strings of the grammar, all in one batch."""
    grammar = GRAMMARS[case]
    model, brute = model_of(grammar), BruteForce(grammar)
    rng = np.random.default_rng(8)
    subsets = list(itertools.product([True, False], repeat=grammar.L + 1))
    labels = np.where(subsets, brute.labels[rng.integers(len(brute.labels), size=len(subsets))], -1)
    x = torch.randn(len(subsets), *model.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    sigma = torch.linspace(0.3, 2.0, len(subsets), dtype=torch.float64)
    means = model.denoise(x, sigma, torch.tensor(labels))
    for row in range(len(subsets)):
        evidence = x[row].numpy() / sigma[row].item() ** 2
        expected = brute.nodes(brute.weights(evidence, tuple(labels[row].tolist())))[-1]
        np.testing.assert_allclose(means[row], expected, atol=2e-12)


def test_published_posteriors_of_the_fixture() -> None:
    model = fixture()
    beliefs = {epsilon: epsilon_beliefs(X0, 3, epsilon) for epsilon in (0.3, 0.6)}
    np.testing.assert_allclose(
        model.posterior_from_beliefs(beliefs[0.3])["class"][0],
        [0.6720534968, 0.0927835052, 0.2351629980],
        atol=5e-11,
    )
    np.testing.assert_allclose(
        model.posterior_from_beliefs(beliefs[0.6])["class"][0], np.array([36, 14, 27]) / 77, atol=1e-14
    )
    leaves = [
        [0.6623376623, 0.1168831169, 0.2207792208],
        [0.7012987013, 0.2402597403, 0.0584415584],
        [0.1883116883, 0.1493506494, 0.6623376623],
        [0.1493506494, 0.8376623377, 0.0129870130],
    ]
    np.testing.assert_allclose(model.node_posteriors_from_beliefs(beliefs[0.6])[-1][0], leaves, atol=5e-11)
    masked = masking_beliefs(X0, 3, torch.tensor([[False, True, False, True]]))
    np.testing.assert_allclose(model.posterior_from_beliefs(masked)["class"][0], [1 / 3, 0, 2 / 3], atol=1e-14)

    alpha_bar = 0.3  # the fixture is stated in variance-preserving coordinates
    x_t = torch.tensor([[[0.9, -0.2, 0.1], [0.4, 0.6, -0.5], [-0.3, 0.2, 0.8], [0.0, 0.7, 0.1]]]).double()
    x = x_t / alpha_bar**0.5
    sigma = torch.tensor([((1 - alpha_bar) / alpha_bar) ** 0.5], dtype=torch.float64)
    np.testing.assert_allclose(
        model.posterior(x, sigma)["class"][0], [0.3091093217, 0.2721266798, 0.4187639985], atol=5e-11
    )
    mean = model.denoise(x, sigma)
    np.testing.assert_allclose(mean[0, 0], [0.5257974943, 0.1930358682, 0.2811666375], atol=5e-11)
    score = (alpha_bar**0.5 * mean - x_t) / (1 - alpha_bar)
    np.testing.assert_allclose(score[0, 0], [-0.8742983595, 0.4367572849, 0.0771447283], atol=5e-10)


@pytest.mark.parametrize("sigma", [0.4, 1.5])
def test_score_is_the_gradient_of_the_log_density(sigma: float) -> None:
    """(D(x) - x) / sigma² = ∇ log Σ_strings exp(-‖x - x0‖² / 2 sigma²): Richardson differences, to 1e-9."""
    grammar = GRAMMARS["deep"]
    brute = BruteForce(grammar)
    strings = np.eye(grammar.v)[brute.tokens]
    x = np.random.default_rng(10).standard_normal((grammar.length, grammar.v))

    def log_density(at: Array) -> float:
        energy = -((strings - at) ** 2).sum((1, 2)) / (2 * sigma**2)
        return float(energy.max() + np.log(np.exp(energy - energy.max()).sum()))

    def difference(i: int, a: int, h: float) -> float:
        step = np.zeros_like(x)
        step[i, a] = h
        return (log_density(x + step) - log_density(x - step)) / (2 * h)

    denoised = model_of(grammar).denoise(torch.tensor(x[None]), torch.tensor([sigma], dtype=torch.float64))
    score = (denoised[0].numpy() - x) / sigma**2
    for i, a in ((0, 0), (3, 2), (7, 1)):
        gradient = (4 * difference(i, a, 5e-4) - difference(i, a, 1e-3)) / 3
        assert score[i, a] == pytest.approx(gradient, abs=2e-9)


def test_exact_retention_under_masking_is_the_published_polynomial() -> None:
    """Mean belief in the true class over all 24 strings and 16 masks, by number of masked tokens (B §5.3)."""
    model = fixture()
    brute = BruteForce(model.grammar)
    masks = torch.tensor(list(itertools.product([False, True], repeat=4)))
    tokens = torch.tensor(brute.tokens)
    pairs = [(t, k) for t in range(24) for k in range(16)]
    string, mask = torch.tensor(pairs).T
    nodes = model.node_posteriors_from_beliefs(masking_beliefs(tokens[string], 3, masks[mask]))
    belief = nodes[0][range(384), 0, brute.labels[string, 0]].numpy()
    token = nodes[-1].gather(2, tokens[string][:, :, None])[..., 0].mean(1).numpy()
    count = masks[mask].sum(1).numpy()
    sums = np.array([belief[count == k].sum() / 24 for k in range(5)])
    np.testing.assert_allclose(sums, [1, 35 / 12, 143 / 48, 1103 / 720, 1 / 3], atol=1e-12)
    tokens_sum = np.array([token[count == k].sum() / 24 for k in range(5)])
    for e, value, token_value in ((0.25, 0.748014322917, 0.889259265718), (0.5, 0.547569444444, 0.744005766369)):
        powers = np.array([e**k * (1 - e) ** (4 - k) for k in range(5)])
        assert sums @ powers == pytest.approx(value, abs=1e-11)
        assert tokens_sum @ powers == pytest.approx(token_value, abs=1e-11)
    assert tokens_sum[4] == pytest.approx(19 / 48, abs=1e-12)


def test_mean_class_belief_of_the_epsilon_process() -> None:
    model = fixture()
    brute = BruteForce(model.grammar)
    tokens = torch.tensor(brute.tokens)
    published = {0.1: 0.915997779282, 0.25: 0.787930295789, 0.5: 0.579437358369, 0.75: 0.414971006030, 1.0: 1 / 3}
    for epsilon, value in published.items():
        p = model.posterior_from_beliefs(epsilon_beliefs(tokens, 3, epsilon))["class"]
        assert p[range(24), brute.labels[:, 0]].mean().item() == pytest.approx(value, abs=1e-11)


def test_posterior_draws_follow_the_posterior() -> None:
    """Frequencies of all strings of a grammar against enumeration, and their mean is the denoiser."""
    model, n, sigma = fixture(), 30_000, 0.8
    brute = BruteForce(model.grammar)
    x = torch.nn.functional.one_hot(X0, 3) + 0.8 * torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(1))
    level = torch.full((n,), sigma)
    draws = model.sample_posterior(x.expand(n, 4, 3), level, torch.Generator().manual_seed(2))
    assert draws.dtype == x.dtype
    code = draws.argmax(2).numpy() @ [27, 9, 3, 1]
    expected = brute.weights(x[0].double().numpy() / sigma**2)
    frequency = (code[:, None] == brute.tokens @ [27, 9, 3, 1]).mean(0)
    assert frequency.sum() == pytest.approx(1, abs=1e-12)  # no string outside the grammar
    assert (np.abs(frequency - expected) < 4.5 * np.sqrt(expected / n) + 1e-4).all()
    mean, error = draws.mean(0), draws.std(0) / n**0.5
    assert ((mean - model.denoise(x, level[:1])[0]).abs() < 4.5 * error + 1e-4).all()


def test_drawn_trees_are_derivations() -> None:
    model = ExactRHM(6, 3, 3, 2, n_c=4, seed=11)
    tokens = torch.from_numpy(model.grammar.sample(200, 3)[-1])
    levels = model.sample_from_beliefs(epsilon_beliefs(tokens, 6, 0.7), torch.Generator().manual_seed(4))
    for drawn, parsed in zip(levels, model.grammar.parse(levels[-1].numpy()), strict=True):
        np.testing.assert_array_equal(drawn, parsed)
    assert not (levels[-1] == tokens).all()


def test_draws_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ExactRHM(6, 3, 2, 3)
    x0, labels = model.sample(50, torch.Generator().manual_seed(5))
    x = x0 + 0.6 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(6))
    sigma = torch.linspace(0.4, 0.9, 50)
    labels[::2] = -1

    def answers() -> tuple[torch.Tensor, ...]:
        draws = model.sample_posterior(x, sigma, torch.Generator().manual_seed(7))
        return model.denoise(x, sigma, labels), draws, *model.node_posteriors(x, sigma)

    whole = answers()
    monkeypatch.setattr("benchsuite_models.rhm_belief.CHUNK", 500)
    torch.testing.assert_close(whole, answers(), rtol=0, atol=1e-12)
    assert model.denoise(x[:0], sigma[:0]).shape == (0, 8, 6)


@pytest.mark.parametrize("case", GRAMMARS)
def test_prior_and_samples_are_those_of_the_grammar(case: str) -> None:
    grammar = GRAMMARS[case]
    model, brute = model_of(grammar), BruteForce(grammar)
    assert grammar.strings == len(brute.tokens) == len(np.unique(brute.tokens, axis=0))
    n = 5000
    x0, labels = model.sample(n, torch.Generator().manual_seed(8))
    np.testing.assert_array_equal(x0.sum(2), 1)
    for column, level in enumerate(grammar.parse(x0.argmax(2).numpy())):
        assert (level >= 0).all()  # every sample is a string of the grammar
        np.testing.assert_array_equal(level[:, 0], labels[:, column])
        factor = model.factors[column]
        expected = np.bincount(brute.labels[:, column], minlength=factor.size) / len(brute.labels)
        np.testing.assert_allclose(model.prior()[factor.name], expected, atol=1e-12)
        frequency = np.bincount(labels[:, column].numpy(), minlength=factor.size) / n
        assert (np.abs(frequency - expected) <= 4.5 * np.sqrt(expected * (1 - expected) / n) + 1e-12).all()


@pytest.mark.parametrize("epsilon", [0.6, 0.73, 0.8])
def test_simulation_meets_mean_field(epsilon: float) -> None:
    """v = 32, m = 8, s = 2, L = 7, class and leaf retention over 12 grammars: within 4 SE + 0.005 (B §5.6)."""
    theory = mean_field(epsilon, 32, 8, 2, 7)
    root, leaf = [], []
    for seed in range(12):
        model = ExactRHM(32, 8, 2, 7, seed=seed)
        levels = model.grammar.sample(16, seed)
        tokens = torch.from_numpy(levels[-1])
        nodes = model.node_posteriors_from_beliefs(epsilon_beliefs(tokens, 32, epsilon))
        root.append(nodes[0][range(16), 0, levels[0][:, 0]].mean().item())
        leaf.append(nodes[-1].gather(2, tokens[:, :, None]).mean().item())
    for values, expected in ((root, theory.class_retention), (leaf, theory.retention[0])):
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert abs(np.mean(values) - expected) < 4 * error + 0.005


def susceptibility(draws: torch.Tensor, tokens: torch.Tensor) -> float:
    """chi = Σ_ij Cov_ij / Σ_i Var_i of "token i changed" over 64 draws of each of 8 strings."""
    changed = (draws != tokens).double().view(8, 64, -1)
    deviation = changed - changed.mean(1, keepdim=True)
    return float(deviation.sum(2).square().sum() / deviation.square().sum())


@pytest.mark.parametrize(
    ("noise", "level", "published"),
    [
        ("epsilon", 0.5, 1.77),
        ("epsilon", 0.73, 6.00),
        ("epsilon", 0.8, 2.62),
        ("mask", 0.3, 2.92),
        ("mask", 0.6, 1.55),
    ],
)
def test_simulated_susceptibility_peaks_as_published(noise: str, level: float, published: float) -> None:
    """L = 7, v = 32, m = 8 (B §5.8): a peak at the threshold, .73 of the epsilon-process, .3 of masking."""
    values = []
    for seed in range(4):
        model, generator = ExactRHM(32, 8, 2, 7, seed=seed), torch.Generator().manual_seed(seed)
        tokens = torch.from_numpy(model.grammar.sample(8, seed)[-1]).repeat_interleave(64, dim=0)
        if noise == "epsilon":
            beliefs = epsilon_beliefs(tokens, 32, level)
        else:
            beliefs = masking_beliefs(tokens, 32, torch.rand(tokens.shape, generator=generator) < level)
        values.append(susceptibility(model.sample_from_beliefs(beliefs, generator)[-1], tokens))
    assert np.mean(values) == pytest.approx(published, rel=0.13)


def test_the_command_line_poses_grammars() -> None:
    model = build(ExactRHM, "model", "exact-rhm:v=6,m=3,s=2,L=2,n_c=4,seed=9")
    assert model.shape == (4, 6)
    assert [(f.name, f.size) for f in model.factors] == [("class", 4), ("level-1", 6), ("level-0", 6)]
    assert build(ExactRHM, "model", "exact-rhm").shape == (16, 8)


def test_impossible_questions_are_refused() -> None:
    model = fixture()
    x, sigma = torch.zeros(1, 4, 3), torch.ones(1)
    with pytest.raises(UsageError, match="no string of the grammar has the given labels"):
        model.denoise(x, sigma, torch.tensor([[0, 1, -1]]))  # class 0 spells 01 or 22: never begins with 1
    with pytest.raises(UsageError, match="label 3 of factor 'level-1' is outside 0 … 2"):
        model.denoise(x, sigma, torch.tensor([[0, 3, -1]]))
    with pytest.raises(UsageError, match=r"takes x \(B, 4, 3\)"):
        model.denoise(torch.zeros(1, 3, 4), sigma)
    with pytest.raises(UsageError, match="no string of the grammar"):
        model.posterior_from_beliefs(masking_beliefs(torch.tensor([[0, 0, 2, 2]]), 3, torch.zeros(1, 4) > 0))
    with pytest.raises(UsageError, match="beliefs >= 0, got -1"):
        model.posterior_from_beliefs(-torch.ones(1, 4, 3))
    with pytest.raises(UsageError, match=r"takes beliefs \(B, 4, 3\), got \(1, 3, 3\)"):
        model.posterior_from_beliefs(torch.ones(1, 3, 3))
    with pytest.raises(UsageError, match=r"epsilon must be in \[0, 1\], got -0.1"):
        epsilon_beliefs(X0, 3, -0.1)
