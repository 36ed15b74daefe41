"""One embedding table per factor, summed: what conditions a network on any subset of several factors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchsuite import Factor, ModelLoadError

if TYPE_CHECKING:
    import torch

#: beside benchsuite.json; holds ``<factor>`` (K + 1, D) for every factor, the null row last
FILE = "factor_embedding.safetensors"


def build(factors: tuple[Factor, ...], width: int) -> Any:
    """Fresh tables (a ModuleList) of rows (D = `width`), drawn so that the sum over factors has unit variance."""
    import torch

    tables = torch.nn.ModuleList(torch.nn.Embedding(factor.size + 1, width) for factor in factors)
    for parameter in tables.parameters():
        torch.nn.init.normal_(parameter, std=len(factors) ** -0.5)
    return tables


def embed(tables: Any, rows: torch.Tensor) -> torch.Tensor:
    """Sum of the chosen rows, (B, D), of rows (B, F) int64."""
    import torch

    return torch.stack([table(rows[:, column]) for column, table in enumerate(tables)]).sum(dim=0)


def save(tables: Any, factors: tuple[Factor, ...], folder: Path) -> None:
    """Write `FILE` into `folder`, float16."""
    from safetensors.torch import save_file

    state = {f.name: table.weight.detach().half().cpu() for f, table in zip(factors, tables, strict=True)}
    save_file(state, folder / FILE)


def load(factors: tuple[Factor, ...], width: int, folder: Path) -> Any:
    """Read `FILE` from `folder`, float32.

    Raises:
        ModelLoadError: no file, or a table that is absent or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelLoadError(
            f"the network is conditioned on a sum of embeddings, but {path} cannot be read: {error}"
        ) from error
    tables = build(factors, width)
    for factor, table in zip(factors, tables, strict=True):
        expected = (factor.size + 1, width)
        found = tuple(state[factor.name].shape) if factor.name in state else None
        if found != expected:
            raise ModelLoadError(f"{path}: table {factor.name!r} has shape {found}, expected {expected}")
        table.load_state_dict({"weight": state[factor.name].float()})
    return tables.eval().requires_grad_(False)
