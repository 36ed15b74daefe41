"""Mean-field theory of the Random Hierarchy Model under the epsilon-process, averaged over the draw of rules.

p_l is the belief in the true symbol of a level-l node given the leaves below it, q_l the belief given the leaves
elsewhere; level 0 is the leaves, whose belief is 1 - epsilon + epsilon / v. The class is lost at a threshold
epsilon* that does not depend on L, where the curves p_L(epsilon) of all depths cross at p*. Sclocchi, Favero,
Wyart, arXiv 2402.16991, and arXiv 2410.13770, eqs. 28 (condition), 51 (pairs) and 54 (exponent); n_c = v.

All functions take the vocabulary v, rules per symbol m and branching s; plain numbers, no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchsuite import UsageError

Matrix = NDArray[np.float64]


def leaf_belief(epsilon: float, v: int) -> float:
    """p_0 = 1 - epsilon + epsilon / v, for epsilon in [0, 1]."""
    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon must be in [0, 1], got {epsilon:g}")
    return 1 - epsilon + epsilon / v


def upward(p: float, v: int, m: int, s: int) -> float:
    """p_{l+1} = F(p_l): the belief one level up; fixed points 1/v and 1."""
    g = 1 / (v**s - 1)
    wrong = (1 - p**s) * g
    return float((p**s + (m - 1) * wrong) / (p**s + (m * v - 1) * wrong))


def slope(p: float, v: int, m: int, s: int) -> float:
    """F'(p)."""
    g = 1 / (v**s - 1)
    b = (m * v - 1) * g
    return float(s * p ** (s - 1) * m * (v - 1) * g / (b + (1 - b) * p**s) ** 2)


def p_star(v: int, m: int, s: int) -> float | None:
    """The unstable fixed point of F between 1/v and 1, or None where there is no transition.

    None if F'(1) = s m (v - 1) / (v^s - 1) >= 1, when the class is lost for every epsilon > 0 (eq. 28), and if
    F'(1/v) >= 1, when it is kept for every epsilon < 1. For s = 2, p* = (m - 1) / (v - m).
    """
    # In integers: parameters on the very edge (3, 2, 2) must not depend on rounding.
    lost = s * m * (v - 1) >= v**s - 1
    kept = s * (v - 1) * v ** (s - 1) >= m * (v**s - 1)
    if lost or kept:
        return None
    if s == 2:
        return (m - 1) / (v - m)
    # Both ends of (1/v, 1) attract, so F(p) - p goes from negative to positive exactly once in between.
    low, high = 1 / v, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if upward(middle, v, m, s) < middle:
            low = middle
        else:
            high = middle


def no_transition(v: int, m: int, s: int) -> str:
    """Why there is no threshold as L grows, in words; empty where there is one."""
    at_one, at_chance = slope(1.0, v, m, s), slope(1 / v, v, m, s)
    if s * m * (v - 1) >= v**s - 1:
        said = f"F'(1) = s m (v - 1) / (v^s - 1) = {at_one:.6g} >= 1"
        return f"no transition: {said}, the class is lost at every epsilon > 0"
    if p_star(v, m, s) is None:
        return f"no transition: F'(1/v) = {at_chance:.6g} >= 1, the class is kept at every epsilon < 1"
    return ""


def epsilon_star(v: int, m: int, s: int) -> float | None:
    """The threshold epsilon* = (1 - p*) / (1 - 1/v), or None where there is no transition, see `p_star`."""
    fixed = p_star(v, m, s)
    return None if fixed is None else (1 - fixed) / (1 - 1 / v)


def nu(v: int, m: int, s: int) -> float | None:
    """Exponent of the correlation length, xi ~ |epsilon - epsilon*|^-nu: ln s / ln F'(p*); None as above."""
    fixed = p_star(v, m, s)
    return None if fixed is None else math.log(s) / math.log(slope(fixed, v, m, s))


@dataclass(frozen=True)
class MeanField:
    """The levels of one tree at one epsilon; index l = 0 (leaves) … L (root)."""

    v: int
    m: int
    s: int
    up: tuple[float, ...]  #: p_l
    down: tuple[float, ...]  #: q_l
    retention: tuple[float, ...]  #: P_l, probability that a posterior draw keeps the symbol of a level-l node

    @property
    def class_retention(self) -> float:
        """P_L = p_L."""
        return self.retention[-1]

    def correlations(self) -> tuple[float, ...]:
        """C_h, h = 1 … L: correlation of "changed" between leaves whose last common ancestor is at height h.

        Not a number at epsilon = 0, where nothing changes.
        """
        kept = self.retention[0]
        if kept == 1:
            return (math.nan,) * (len(self.up) - 1)
        # Two siblings at level h - 1, then a Markov chain of kept / changed from either of them down to a leaf.
        chain = np.eye(2)  # p(leaf state | state of its ancestor at level h - 1), columns sum to 1
        out = []
        for height in range(1, len(self.up)):
            pair = float(chain[0] @ self._siblings(height) @ chain[0])  # both leaves kept
            out.append((pair - kept**2) / (kept * (1 - kept)))
            chain = chain @ self._transfer(height)
        return tuple(out)

    def susceptibility(self) -> float:
        """chi = 1 + Σ_h (s - 1) s^(h-1) C_h: how many leaves change together."""
        # Of all leaves, (s - 1) s^(h - 1) share with a given one an ancestor at height h but not below.
        return 1 + float(sum((self.s - 1) * self.s**h * c for h, c in enumerate(self.correlations())))

    def _siblings(self, height: int) -> Matrix:
        """p(kept?, kept?) of two children of a node at `height` (2, 2), kept first (eq. 51)."""
        g, x, q = 1 / (self.v**self.s - 1), self.up[height - 1], self.down[height]
        other = (self.m - q) * g
        one = other * x * (1 - x)
        both = q * x**self.s + other * (x**2 - x**self.s)
        weights = np.array([[both, one], [one, other * (1 - x) ** 2]])
        return np.asarray(weights / weights.sum())

    def _transfer(self, height: int) -> Matrix:
        """p(child at `height` - 1 kept? | node at `height` kept?), columns = parent kept, changed."""
        g, x = 1 / (self.v**self.s - 1), self.up[height - 1]
        columns = []
        for q in (1.0, 0.0):
            kept = q * x**self.s + (self.m - q) * (x - x**self.s) * g
            changed = (self.m - q) * (1 - x) * g
            columns.append([kept / (kept + changed), changed / (kept + changed)])
        return np.asarray(columns).T


def mean_field(epsilon: float, v: int, m: int, s: int, L: int) -> MeanField:
    """Beliefs and retention at every level of a tree of depth L >= 1, for epsilon in [0, 1]."""
    if L < 1:
        raise UsageError(f"L must be at least 1, got {L}")
    g = 1 / (v**s - 1)
    up = [leaf_belief(epsilon, v)]
    for _ in range(L):
        up.append(upward(up[-1], v, m, s))
    down = [1 / v]  # q_L: nothing is above the root
    for p in up[-2::-1]:
        q, others = down[-1], p ** (s - 1)
        kept = q * others + (m - q) * (1 - others) * g
        down.append(kept / (kept + (m - q) * (v - 1) * g))
    down.reverse()
    retention = [p * q / (p * q + (1 - p) * (1 - q) / (v - 1)) for p, q in zip(up, down, strict=True)]
    return MeanField(v, m, s, tuple(up), tuple(down), tuple(retention))
