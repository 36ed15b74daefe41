"""Belief propagation on the tree of a Random Hierarchy Model: exact, in the log domain, all nodes at once.

Two sweeps. Upwards, M_l(y) = log p(evidence below the node | its symbol is y), up to a constant per node:

    M_{l+1}(y) = log Σ_k exp t(y, k),    t(y, k) = Σ_j M_{l,j}(a_j^k(y)),

with a^k(y) the k-th rule of y. Downwards, marginals q rather than messages: given its symbol y, a node uses rule k
with probability c(y, k) = exp(t(y, k) - M_{l+1}(y)), so that

    q_{l,j}(a) = Σ_{(y, k): a_j^k(y) = a} q_{l+1}(y) c(y, k).

Nothing underflows however sharp the evidence (a token may be wrong by thousands of nats), and drawing from the
posterior is the same sweep with choices in place of sums. Tensors are laid out (symbol, node, row): a rule then
gathers whole blocks of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchsuite_models.exact_common import choose

if TYPE_CHECKING:
    import torch

#: (rules) x (parents) x (rows) handled at a time: 4 MB of float64, so that a sweep stays near the cache.
CHUNK = 2**19


@dataclass(frozen=True)
class Beliefs:
    """What the upward sweep leaves, root first; B rows."""

    messages: list[torch.Tensor]  #: L + 1 of (symbols, nodes, B), log, up to a constant per node
    choices: list[torch.Tensor]  #: L of (symbols, m, nodes, B): c(y, k) up to a factor per (y, node, row)

    @property
    def possible(self) -> bool:
        """Whether some string agrees with the evidence, in every row."""
        return bool((self.messages[0] > -float("inf")).any(0).all())


def upward(
    rules: Sequence[torch.Tensor],
    log_evidence: torch.Tensor,
    first: Mapping[int, torch.Tensor] | None = None,
) -> Beliefs:
    """Collect the evidence from the leaves to the root.

    Args:
        rules: tables (parents, m, s), root first.
        log_evidence: (v, d, B) float64, log-likelihood of each symbol at each leaf; -inf = excluded.
        first: {depth (0 = root): (symbols, B)} added to the message of the first node of that level: evidence
            about its symbol, such as 0 for the one it has and -inf for all others.
    """
    extra = first or {}
    messages, choices = [_with(log_evidence, extra.get(len(rules)))], []
    for depth in range(len(rules) - 1, -1, -1):
        scores = _rule_scores(rules[depth], messages[-1])  # (parents, m, nodes, B)
        top = _finite(scores.amax(1))
        weights = scores.sub_(top[:, None]).exp_()
        message = weights.sum(1).log_().add_(top)
        messages.append(_with(message.sub_(_finite(message.amax(0))), extra.get(depth)))
        choices.append(weights)
    return Beliefs(messages[::-1], choices[::-1])


def marginals(rules: Sequence[torch.Tensor], beliefs: Beliefs, first_only: bool = False) -> list[torch.Tensor]:
    """p(symbol of a node | all evidence) of every level, root first: (symbols, nodes, B).

    With `first_only`, only of the first node of every level, at a fraction of the cost: nodes = 1.
    """
    levels = [beliefs.messages[0].softmax(0)]
    for depth, table in enumerate(rules):
        symbols = beliefs.messages[depth + 1].shape[0]
        weights = beliefs.choices[depth][:, :, :1] if first_only else beliefs.choices[depth]
        # The largest weight of a possible symbol is 1; an impossible one has all 0 and q = 0.
        weights = weights * (levels[-1] / weights.sum(1).clamp(min=1))[:, None]
        flat = weights.flatten(0, 1)  # (parents * m, nodes, B)
        children = [
            flat.new_zeros(symbols, *flat.shape[1:]).index_add_(0, table[:, :, j].reshape(-1), flat)
            for j in range(1 if first_only else table.shape[2])
        ]
        levels.append(_interleave(children))
    return levels


def draw(rules: Sequence[torch.Tensor], beliefs: Beliefs, uniforms: torch.Tensor) -> list[torch.Tensor]:
    """One draw of the whole tree given the evidence: symbols (nodes, B) of every level, root first.

    Args:
        rules: tables (parents, m, s), root first.
        beliefs: from `upward`.
        uniforms: (1 + number of inner nodes, B) in [0, 1): the root's symbol, then one rule per inner node.
    """
    levels = [choose(beliefs.messages[0][:, 0].softmax(0).T, uniforms[0])[None]]
    start = 1
    for table, choices in zip(rules, beliefs.choices, strict=True):
        parents = levels[-1]  # (nodes, B)
        nodes, rows = parents.shape
        mine = parents.expand(1, choices.shape[1], -1, -1)
        weights = choices.gather(0, mine)[0].permute(1, 2, 0)  # (nodes, B, m)
        k = choose(weights.contiguous(), uniforms[start : start + nodes])
        start += nodes
        levels.append(table[parents, k].permute(0, 2, 1).reshape(-1, rows))  # (nodes * s, B)
    return levels


def rows_per_chunk(rules: Sequence[torch.Tensor], leaves: int) -> int:
    """How many rows to propagate at a time: the last table meets the most nodes."""
    parents, m, s = rules[-1].shape
    return max(1, CHUNK // (parents * m * (leaves // s)))


def _rule_scores(table: torch.Tensor, children: torch.Tensor) -> torch.Tensor:
    """t(y, k) for every parent node: (parents, m, nodes, B) from children (symbols, nodes * s, B)."""
    parents, m, s = table.shape
    split = children.view(len(children), children.shape[1] // s, s, children.shape[2])
    total = split[:, :, 0].contiguous().index_select(0, table[:, :, 0].reshape(-1))
    for j in range(1, s):
        total += split[:, :, j].contiguous().index_select(0, table[:, :, j].reshape(-1))
    return total.view(parents, m, *total.shape[1:])


def _interleave(children: Sequence[torch.Tensor]) -> torch.Tensor:
    """Children j = 0 … s-1 of all parents, each (symbols, nodes, B) => (symbols, nodes * s, B)."""
    import torch

    return torch.stack(list(children), dim=2).flatten(1, 2)


def _with(message: torch.Tensor, evidence: torch.Tensor | None) -> torch.Tensor:
    """Add evidence (symbols, B) about the first node to a message (symbols, nodes, B)."""
    if evidence is not None:
        message = message.clone()
        message[:, 0] += evidence
    return message


def _finite(top: torch.Tensor) -> torch.Tensor:
    """A maximum that may be subtracted: 0 instead of -inf."""
    return top.masked_fill(top == -float("inf"), 0.0)
