"""The Random Hierarchy Model: data with a known hierarchy, whose denoiser is belief propagation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchsuite import ChannelModel, Codec, Dataset, Factor, NoiseChannel, Passage, UsageError, fingerprint_state
from benchsuite.contracts import FloatArray
from benchsuite_models import rhm_belief, rhm_channels, rhm_finite, rhm_theory
from benchsuite_models.exact_common import check_bound, check_labels, check_query, numbered, uniform
from benchsuite_models.rhm_channels import epsilon_beliefs as epsilon_beliefs
from benchsuite_models.rhm_channels import masking_beliefs as masking_beliefs
from benchsuite_models.rhm_grammar import Grammar
from benchsuite_models.rhm_theory import epsilon_star as epsilon_star

if TYPE_CHECKING:
    import torch


class ExactRHM(ChannelModel):
    """Strings of a random grammar, one-hot, under Gaussian noise; x (s^L, v): one row per token.

    Factors, from the most abstract: ``class`` (the root, n_c values), then ``level-l`` for l = L-1 … 0 (v values):
    the symbol of the *first* (leftmost) node of level l, level 0 being the first token. All nodes of all levels
    are available from `node_posteriors`. Everything is exact and computed in float64 by two sweeps over the
    tree, see `rhm_belief`; conditioning on labels adds evidence at their nodes.

    Besides Gaussian noise, masking and the epsilon-process of the literature are channels of the model, see
    `rhm_channels`; any other evidence goes through the ``…_from_beliefs`` methods. The mean-field theory of the
    model, which is about the average over draws of the rules, is in `rhm_theory` and `rhm_finite`.

    Args:
        v, m, s, L, n_c, seed, rules: the grammar, see `Grammar`. The default has a transition, at epsilon = 0.686.

    Raises:
        UsageError: for an impossible grammar, with the value and the rule.
    """

    name = "exact-rhm"
    own_data = True
    cases = ("v=6,m=2,s=2,L=3",)
    paper = "2402.16991"

    def __init__(
        self,
        v: int = 8,
        m: int = 3,
        s: int = 2,
        L: int = 4,
        n_c: int | None = None,
        seed: int = 0,
        rules: Sequence[Any] | None = None,
    ) -> None:
        import torch

        self.grammar = Grammar(v, m, s, L, n_c, seed, rules)
        self._seed = seed if rules is None else None
        self.shape = (self.grammar.length, self.grammar.v)
        self.sigma_range = (1e-3, 1e4)
        self.factors: tuple[Factor, ...] = (
            numbered("class", self.grammar.n_c),
            *(numbered(f"level-{level}", self.grammar.v) for level in range(self.grammar.L - 1, -1, -1)),
        )
        self._dtype = torch.float32
        self._device = "cpu"
        self._rules = self.grammar.to_torch("cpu")

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Check that `dataset` has this grammar's shape and factors."""
        check_bound(self, dataset)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Move to `device`; `dtype` is that of `sample`, the arithmetic stays float64."""
        import torch

        self._dtype = torch.float64 if dtype == "float64" else torch.float32
        self._rules = self.grammar.to_torch(device)
        self._device = device

    # ------------------------------------------------------------------------- Gaussian noise

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """E[x0 | x] or E[x0 | x, labels], the tokens' marginals: (B, s^L, v), dtype and device of `x`.

        Args:
            x: (B, s^L, v).
            sigma: (B,), > 0.
            labels: (B, L + 1) int64, -1 = null; any subset of the factors may be given.

        Raises:
            UsageError: if no string of the grammar has the asked labels.
        """
        labels = check_labels(self.name, self.factors, labels, x)
        evidence = self._evidence(x, sigma)
        (leaves,) = self._sweep(evidence, lambda b, _: rhm_belief.marginals(self._rules, b)[-1:], labels)
        return leaves.to(x.dtype)

    def node_posteriors(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """p(symbol of a node | x) for every node of every level, root first.

        Returns:
            L + 1 tensors (B, s^depth, symbols) float64: (B, 1, n_c), (B, s, v), …, (B, s^L, v).
        """
        return self._sweep(self._evidence(x, sigma), lambda b, _: rhm_belief.marginals(self._rules, b))

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """p(factor | x) as {factor: (B, K)}, in the dtype of `x`."""
        return self._per_factor(self._evidence(x, sigma), x.dtype)

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """One string x0 ~ p(x0 | x) per row, one-hot: (B, s^L, v)."""
        import torch

        levels = self._draw(self._evidence(x, sigma), generator)
        return torch.nn.functional.one_hot(levels[-1], self.grammar.v).to(x.dtype)

    # -------------------------------------------------------------------------- other evidence

    def node_posteriors_from_beliefs(self, beliefs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`node_posteriors` given what is believed of each token: beliefs (B, s^L, v) >= 0, up to a factor."""
        return self._sweep(self._log_beliefs(beliefs), lambda b, _: rhm_belief.marginals(self._rules, b))

    def posterior_from_beliefs(self, beliefs: torch.Tensor) -> dict[str, torch.Tensor]:
        """`posterior` given what is believed of each token: beliefs (B, s^L, v) >= 0, up to a factor.

        Raises:
            UsageError: for another shape, a negative belief, or beliefs that exclude every string.
        """
        return self._per_factor(self._log_beliefs(beliefs), beliefs.dtype)

    def sample_from_beliefs(
        self, beliefs: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, ...]:
        """One tree per row given beliefs (B, s^L, v): labels (B, s^depth) int64 of every level, root first."""
        return self._draw(self._log_beliefs(beliefs), generator)

    # -------------------------------------------------------------------------------- channels

    def channels(self) -> tuple[NoiseChannel, ...]:
        """Gaussian noise, masking and the epsilon-process."""
        return rhm_channels.CHANNELS

    def send(
        self, channel: str, level: float, x: torch.Tensor, keys: torch.Tensor, copies: bool = False
    ) -> Passage:
        """Strings x (B, s^L, v) through a channel; kept is averaged over all nodes of a level.

        Raises:
            UsageError: an unknown channel, a loss outside [0, 1], or an x that is no string of the grammar.
        """
        import torch

        tokens = x.argmax(2)
        trees = self.grammar.parse(tokens.cpu().numpy())
        if (trees[0] < 0).any():
            raise UsageError(f"{self.name} sends its own strings only, got one that its grammar cannot parse")
        draws = keys.shape[1]
        shared = channel == "epsilon"  # one belief for all passages
        rows = 1 if shared else draws
        truth = [torch.from_numpy(tree).to(x.device).repeat_interleave(rows, dim=0) for tree in trees]
        evidence = rhm_channels.log_evidence(channel, level, truth[-1], self.grammar.v, keys[:, :rows].flatten())
        uniforms = self._uniforms(keys) if copies else []
        # (draws, 1 + inner, B) if the evidence is shared, else (1, 1 + inner, B * draws)
        uniforms = uniforms if shared or not copies else [torch.stack(uniforms, dim=2).flatten(1)]

        def downward(beliefs: rhm_belief.Beliefs, part: slice) -> Sequence[torch.Tensor]:
            marginals = rhm_belief.marginals(self._rules, beliefs)
            kept = [p.gather(0, t[part].T[None])[0].mean(0, True) for p, t in zip(marginals, truth, strict=True)]
            return [*kept, *(rhm_belief.draw(self._rules, beliefs, u[:, part].contiguous())[-1] for u in uniforms)]

        found = self._sweep(evidence, downward)
        levels = len(self.factors)
        kept = {f.name: p.reshape(len(x), rows) for f, p in zip(self.factors, found[:levels], strict=True)}
        if not copies:
            return Passage(kept, None)
        drawn = torch.stack(found[levels:], dim=1).reshape(len(x), draws, -1)
        return Passage(kept, drawn != tokens[:, None])

    def _uniforms(self, keys: torch.Tensor) -> list[torch.Tensor]:
        """What posterior draws are made with, one (1 + inner, B) float64 per passage."""
        from benchsuite.randomness import uniform as stream_uniform

        inner = (self.grammar.length - 1) // (self.grammar.s - 1)
        return [stream_uniform(column, 1, (1 + inner,)).double().T for column in keys.T]

    def theory(self, channel: str, levels: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Mean field, for n_c = v only: it takes the class for one more level of symbols."""
        g = self.grammar
        if g.n_c != g.v:
            return {}
        return rhm_channels.mean_field_curves(channel, levels, g.v, g.m, g.s, g.L)

    def theory_facts(self) -> dict[str, Any]:
        """Thresholds of the mean-field theory, without limit on L and at this one."""
        g = self.grammar
        if g.n_c != g.v:
            return {"transition": f"unknown: mean field needs n_c = v, got {g.n_c} and {g.v}"}
        size = (g.v, g.m, g.s)
        at, chi = rhm_finite.susceptibility_peak(*size, g.L)
        return {
            "names": rhm_channels.THEORIES,
            "transition": rhm_theory.no_transition(*size) or "a transition as L grows",
            "epsilon_star": rhm_theory.epsilon_star(*size),
            "p_star": rhm_theory.p_star(*size),
            "nu": rhm_theory.nu(*size),
            "threshold": rhm_finite.threshold(*size, g.L),
            "width": rhm_finite.width(*size, g.L),
            "inversion": rhm_finite.inversion(*size, g.L),
            "susceptibility_peak": {"epsilon": at, "chi": chi},
        }

    def redrawn(self, number: int) -> ExactRHM | None:
        """Another draw of the rules; None if they were given."""
        if self._seed is None:
            return None
        from benchsuite.randomness import stream_key

        g = self.grammar
        model = ExactRHM(g.v, g.m, g.s, g.L, g.n_c, seed=stream_key("rules", self._seed, number))
        model.load(self._device)
        return model

    # --------------------------------------------------------------------------------- the prior

    def prior(self) -> dict[str, torch.Tensor]:
        """p(factor) as {factor: (K,)} float64: a posterior without evidence."""
        import torch

        nothing = torch.ones(1, *self.shape, dtype=torch.float64, device=self._rules[0].device)
        return {name: p[0] for name, p in self.posterior_from_beliefs(nothing).items()}

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`n` strings: x0 (n, s^L, v) one-hot and labels (n, L + 1) int64."""
        import torch

        seed = int(torch.randint(2**62, (1,), generator=generator, device=_device_of(generator)))
        levels = self.grammar.sample(n, np.random.default_rng(seed))
        device = self._rules[0].device
        tokens = torch.from_numpy(levels[-1]).to(device)
        labels = torch.from_numpy(np.stack([level[:, 0] for level in levels], axis=1)).to(device)
        return torch.nn.functional.one_hot(tokens, self.grammar.v).to(self._dtype), labels

    # ------------------------------------------------------------------------- what a judge sees

    def features(self, x0: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parse of strings x0 (B, s^L, v), from the tokens to the class: ``level-0`` …: (B, symbols, nodes).

        What no string of the grammar is equal to gets the nearest ones' posterior.
        """
        levels = self.node_posteriors(x0, x0.new_full((len(x0),), self.sigma_range[0]))
        names = [factor.name for factor in self.factors]
        return {name: level.transpose(1, 2) for name, level in zip(names[::-1], levels[::-1], strict=True)}

    def positions(self, x0: torch.Tensor) -> torch.Tensor:
        """Tokens (B, s^L) int64 of x0 (B, s^L, v)."""
        return x0.argmax(dim=2)

    def position_distances(self) -> FloatArray:
        """s^h - 1 for two tokens whose lowest common ancestor has height h: (s^L, s^L)."""
        tokens = np.arange(self.grammar.length)
        height = np.zeros((len(tokens), len(tokens)))
        for level in range(self.grammar.L):
            block = tokens // self.grammar.s**level
            height += block[:, None] != block
        return np.asarray(self.grammar.s**height - 1)

    def fingerprint(self) -> str:
        """Digest of the rules, and of the seed that redraws of them would start from."""
        rules = {f"rules {depth}": table for depth, table in enumerate(self._rules)}
        return fingerprint_state(rules | {"seed": self._seed})

    # ---------------------------------------------------------------------------------- sweeps

    def _evidence(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """log p(x_i | token i = a) = x_ia / sigma² + const, as all one-hot vectors are equally long."""
        check_query(self.name, self.shape, x, sigma)
        return x.double() / sigma.double()[:, None, None] ** 2

    def _log_beliefs(self, beliefs: torch.Tensor) -> torch.Tensor:
        if tuple(beliefs.shape[1:]) != self.shape:
            raise UsageError(
                f"{self.name} takes beliefs (B, {self.shape[0]}, {self.shape[1]}), got {tuple(beliefs.shape)}"
            )
        if not bool((beliefs >= 0).all()):
            raise UsageError(f"{self.name} needs beliefs >= 0, got {beliefs.min().item():g}")
        return beliefs.double().log()

    def _draw(self, evidence: torch.Tensor, generator: torch.Generator | None) -> tuple[torch.Tensor, ...]:
        inner = (self.grammar.length - 1) // (self.grammar.s - 1)
        u = uniform((1 + inner, len(evidence)), evidence.device, generator)
        return self._sweep(evidence, lambda b, rows: rhm_belief.draw(self._rules, b, u[:, rows]))

    def _sweep(
        self,
        evidence: torch.Tensor,
        downward: Callable[[rhm_belief.Beliefs, slice], Sequence[torch.Tensor]],
        labels: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """Up with `evidence` (B, d, v), then `downward` (…, B) => (B, …), in chunks of rows that fit the cache.

        Marginals (symbols, nodes, b) become (B, nodes, symbols), draws (nodes, b) become (B, nodes).
        """
        import torch

        first = None if labels is None else self._first(labels)
        step = rhm_belief.rows_per_chunk(self._rules, self.grammar.length)
        parts = []
        for start in range(0, max(1, len(evidence)), step):
            rows = slice(start, start + step)
            given = None if first is None else {depth: mask[:, rows] for depth, mask in first.items()}
            leaves = evidence[rows].permute(2, 1, 0).contiguous()  # (b, d, v) => (v, d, b)
            beliefs = rhm_belief.upward(self._rules, leaves, given)
            if not beliefs.possible:
                raise UsageError(f"{self.name}: no string of the grammar has the given labels or tokens")
            parts.append([_rows_first(level) for level in downward(beliefs, rows)])
        return tuple(torch.cat(levels) for levels in zip(*parts, strict=True))

    def _first(self, labels: torch.Tensor) -> dict[int, torch.Tensor]:
        """Labels (B, L + 1) => {depth: (symbols, B)}, 0 where allowed and -inf elsewhere; null ones left out."""
        import torch

        masks = {}
        for depth, size in enumerate(self.grammar.sizes()):
            asked = labels[:, depth]
            if bool((asked >= 0).any()):
                allowed = (torch.arange(size, device=asked.device)[:, None] == asked) | (asked < 0)
                masks[depth] = torch.zeros(allowed.shape, dtype=torch.float64, device=asked.device).masked_fill(
                    ~allowed, -float("inf")
                )
        return masks

    def _per_factor(self, evidence: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        levels = self._sweep(evidence, lambda b, _: rhm_belief.marginals(self._rules, b, first_only=True))
        return {factor.name: level[:, 0].to(dtype) for factor, level in zip(self.factors, levels, strict=True)}


def _rows_first(level: torch.Tensor) -> torch.Tensor:
    """(…, nodes, B) => (B, nodes, …), contiguous."""
    return level.permute(*reversed(range(level.ndim))).contiguous()


def _device_of(generator: torch.Generator | None) -> torch.device | str:
    return "cpu" if generator is None else generator.device
