"""The grammar of a Random Hierarchy Model: rules drawn at random, strings drawn from them, strings read back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite import UsageError

if TYPE_CHECKING:
    import torch

Rules = NDArray[np.int64]


class Grammar:
    """RHM(v, n_c, m, s, L): a tree of depth L in which every symbol spells s symbols in one of m ways.

    Levels run from the root, L (the class, n_c values), to the leaves, 0 (d = s^L tokens of v values). Going
    from level l to l - 1, every symbol owns m of the v^s tuples of s symbols; no tuple has two owners, so that a
    string has one parse. One table of rules serves all nodes of a level. Strings are drawn by choosing the
    class and then every rule uniformly: all n_c m^((s^L - 1) / (s - 1)) strings are equally likely.

    Cagnetti et al., arXiv 2307.02129; as a diffusion model, Sclocchi et al., arXiv 2402.16991.

    Args:
        v: vocabulary size, >= 2.
        m: rules per symbol, >= 1, with m v <= v^s and m n_c <= v^s.
        s: symbols per rule, >= 2.
        L: depth, >= 1.
        n_c: classes, >= 2; v by default.
        seed: of the draw of the rules (without replacement at each level).
        rules: explicit tables instead, root first: (n_c, m, s), then L - 1 times (v, m, s).

    Raises:
        UsageError: for impossible input, with the value and the rule.
    """

    def __init__(
        self,
        v: int,
        m: int,
        s: int,
        L: int,
        n_c: int | None = None,
        seed: int = 0,
        rules: Sequence[Any] | None = None,
    ) -> None:
        classes = v if n_c is None else n_c
        for letter, value, least in (("v", v, 2), ("m", m, 1), ("s", s, 2), ("L", L, 1), ("n_c", classes, 2)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise UsageError(f"a random hierarchy needs an integer {letter} >= {least}, got {value!r}")
        # As Python integers: v^s may exceed 64 bits.
        self.v, self.m, self.s, self.L, self.n_c = int(v), int(m), int(s), int(L), int(classes)
        for letter, symbols in (("v", self.v), ("n_c", self.n_c)):
            if self.m * symbols > self.v**self.s:
                raise UsageError(
                    f"m·{letter} = {self.m * symbols} rules of one level need as many different tuples, but there "
                    f"are only v^s = {self.v**self.s} (v = {v}, m = {m}, s = {s})"
                )
        if self.v**self.s >= 2**63:
            raise UsageError(f"v^s = {self.v}^{self.s} tuples are more than 2^63; take a smaller v or s")
        if rules is None:
            generator = np.random.default_rng(seed)
            self.rules = tuple(self._draw(parents, generator) for parents in self._parents())
        else:
            self.rules = self._checked(rules)

    @property
    def length(self) -> int:
        """Number of tokens d = s^L."""
        return int(self.s**self.L)

    @property
    def strings(self) -> int:
        """Number of different strings, all equally likely."""
        return int(self.n_c * self.m ** ((self.length - 1) // (self.s - 1)))

    def sizes(self) -> tuple[int, ...]:
        """Number of symbols at each level, root first: (n_c, v, …, v), L + 1 numbers."""
        return (self.n_c,) + (self.v,) * self.L

    def sample(self, n: int, generator: np.random.Generator | int = 0) -> list[NDArray[np.int64]]:
        """Draw `n` strings with their derivations: labels (n, s^depth) of every level, root first."""
        rng = np.random.default_rng(generator)
        levels = [rng.integers(self.n_c, size=(n, 1))]
        for table in self.rules:
            choice = rng.integers(self.m, size=levels[-1].shape)
            levels.append(table[levels[-1], choice].reshape(n, -1))
        return levels

    def parse(self, tokens: Any) -> list[NDArray[np.int64]]:
        """Read strings (n, d) back: labels (n, s^depth) of every level, root first; -1 where no rule fits."""
        level = np.asarray(tokens)
        if level.ndim != 2 or level.shape[1] != self.length:
            raise UsageError(f"a string of this grammar has {self.length} tokens, got shape {level.shape}")
        levels = [level]
        for table in reversed(self.rules):
            codes = self._code(table).ravel()
            order = codes.argsort()
            groups = level.reshape(len(level), -1, self.s)
            wanted = self._code(groups)
            place = np.searchsorted(codes, wanted, sorter=order).clip(max=len(codes) - 1)
            known = (codes[order[place]] == wanted) & (groups >= 0).all(2) & (groups < self.v).all(2)
            level = np.where(known, order[place] // self.m, -1)
            levels.append(level)
        return levels[::-1]

    def to_torch(self, device: str | torch.device) -> tuple[torch.Tensor, ...]:
        """The rule tables on `device`, root first."""
        import torch

        return tuple(torch.from_numpy(table).to(device) for table in self.rules)

    def _parents(self) -> tuple[int, ...]:
        """Number of symbols that the rules of each level belong to, root first."""
        return self.sizes()[:-1]

    def _draw(self, parents: int, generator: np.random.Generator) -> Rules:
        """parents x m different tuples out of v^s, in random order: (parents, m, s)."""
        codes = generator.choice(self.v**self.s, size=parents * self.m, replace=False)
        digits = codes[:, None] // self.v ** np.arange(self.s - 1, -1, -1) % self.v
        return np.asarray(digits.reshape(parents, self.m, self.s), dtype=np.int64)

    def _code(self, tuples: Rules) -> NDArray[np.int64]:
        """Tuples (…, s) => their number in base v (…)."""
        return np.asarray(tuples @ self.v ** np.arange(self.s - 1, -1, -1))

    def _checked(self, rules: Sequence[Any]) -> tuple[Rules, ...]:
        if len(rules) != self.L:
            raise UsageError(f"L = {self.L} needs as many rule tables, got {len(rules)}")
        tables = []
        for depth, (given, parents) in enumerate(zip(rules, self._parents(), strict=True)):
            table = np.array(given)
            if table.shape != (parents, self.m, self.s) or table.dtype.kind not in "iu":
                raise UsageError(
                    f"rule table {depth} must be integers ({parents}, {self.m}, {self.s}), "
                    f"got {table.dtype} {table.shape}"
                )
            if table.min() < 0 or table.max() >= self.v:
                raise UsageError(f"rule table {depth} has symbols outside 0 … {self.v - 1}")
            codes, counts = np.unique(self._code(table), return_counts=True)
            if (counts > 1).any():
                raise UsageError(f"rule table {depth} uses tuple number {codes[counts.argmax()]} more than once")
            tables.append(table.astype(np.int64))
        return tuple(tables)
