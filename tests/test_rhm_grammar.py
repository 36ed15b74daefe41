"""The grammar of the Random Hierarchy Model: how rules are drawn, strings read back, bad sizes refused."""

from __future__ import annotations

import numpy as np
import pytest
from benchsuite_models.exact_rhm import ExactRHM
from benchsuite_models.rhm_grammar import Grammar

from benchsuite import UsageError

FIXTURE_RULES = (
    [[[0, 1], [2, 2]], [[1, 0], [2, 1]], [[0, 2], [1, 1]]],
    [[[0, 0], [1, 2]], [[2, 1], [0, 1]], [[1, 1], [2, 0]]],
)


def test_rules_are_distinct_and_reproducible() -> None:
    first, again, other = Grammar(32, 8, 2, 7), Grammar(32, 8, 2, 7), Grammar(32, 8, 2, 7, seed=1)
    assert [table.shape for table in first.rules] == [(32, 8, 2)] * 7
    for table in first.rules:
        assert len(np.unique(table.reshape(-1, 2), axis=0)) == 256
    assert all((a == b).all() for a, b in zip(first.rules, again.rules, strict=True))
    assert not any((a == b).all() for a, b in zip(first.rules, other.rules, strict=True))
    assert not (first.rules[0] == first.rules[1]).all()  # each level has its own
    assert ExactRHM(4, 2, 2, 2, seed=0).fingerprint() != ExactRHM(4, 2, 2, 2, seed=1).fingerprint()


def test_tuples_are_used_equally_often() -> None:
    """Without replacement and without bias: over many seeds each of the 9 tuples has the same chance."""
    counts = np.zeros(9)
    for seed in range(900):
        counts += np.bincount((Grammar(3, 2, 2, 1, seed=seed).rules[0] @ [3, 1]).ravel(), minlength=9)
    assert (np.abs(counts / 900 - 6 / 9) < 4.5 * np.sqrt(6 / 9 * 3 / 9 / 900)).all()


def test_strings_outside_the_grammar_do_not_parse() -> None:
    grammar = Grammar(3, 2, 2, 2, rules=FIXTURE_RULES)
    levels = grammar.parse([[0, 0, 2, 1], [0, 0, 2, 2], [1, 1, 1, 1], [0, 0, 5, -1]])
    np.testing.assert_array_equal(levels[1], [[0, 1], [0, -1], [2, 2], [0, -1]])
    np.testing.assert_array_equal(levels[0], [[0], [-1], [0], [-1]])
    with pytest.raises(UsageError, match=r"has 4 tokens, got shape \(1, 3\)"):
        grammar.parse([[0, 0, 2]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 3, 2, 2), r"m·v = 6 rules .* only v\^s = 4 \(v = 2, m = 3, s = 2\)"),
        ((2, 1, 2, 2, 5), r"m·n_c = 5 rules .* only v\^s = 4"),
        ((4, 2, 2, 0), "integer L >= 1, got 0"),
        ((1, 1, 2, 2), "integer v >= 2, got 1"),
        ((4, 0, 2, 2), "integer m >= 1, got 0"),
        ((4, 1, 1, 2), "integer s >= 2, got 1"),
        ((4, 2, 2, 2, 0), "integer n_c >= 2, got 0"),
        ((4.0, 2, 2, 2), "integer v >= 2, got 4.0"),
        ((32, 2, 13, 1), r"32\^13 tuples are more than 2\^63"),
        ((3, 2, 2, 1, None, 0, FIXTURE_RULES), "L = 1 needs as many rule tables, got 2"),
        (
            (3, 1, 2, 2, None, 0, FIXTURE_RULES),
            r"rule table 0 must be integers \(3, 1, 2\), got int64 \(3, 2, 2\)",
        ),
        ((3, 2, 2, 1, None, 0, [[[[0, 1], [2, 3]], [[1, 0], [2, 1]], [[0, 2], [1, 1]]]]), "symbols outside 0 … 2"),
        ((3, 2, 2, 1, None, 0, [[[[0, 1], [2, 2]], [[1, 0], [0, 1]], [[0, 2], [1, 1]]]]), "tuple number 1 more"),
    ],
)
def test_impossible_grammars_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExactRHM(*arguments)  # type: ignore[arg-type]
