"""What protocols share: the items they run on, noised inputs, batched denoising, pooled taps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, Factor
from benchsuite.errors import BenchsuiteError
from benchsuite.randomness import normal, stream_keys

#: How the modules are called that see the noise level or a label and never the image.
EMBEDDINGS = ("time_", "class_emb", "label_emb", "emb", "t_embedder", "y_embedder", "adaLN")
#: Features that a map is pooled to, at most, unless it has more channels: what some hundred items can teach.
MOST_FEATURES = 512
#: Draws per (item, level) that streams keep apart.
MAX_DRAWS = 4096


@dataclass(frozen=True)
class Items:
    """Encoded items with labels, and who they are."""

    x: torch.Tensor  #: (N, *model.shape) clean, in the model's space, on the model's device
    labels: torch.Tensor  #: (N, F) int64, columns as in `factors`
    ids: tuple[str, ...]  #: (N,)
    factors: tuple[Factor, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Sequence[int]) -> Items:
        """The items at `index`."""
        rows = torch.as_tensor(index, dtype=torch.int64, device=self.x.device)
        return Items(self.x[rows], self.labels[rows], tuple(self.ids[i] for i in index), self.factors)

    def column(self, factor: str) -> NDArray[Any]:
        """Labels of one factor, (N,) int64."""
        index = [f.name for f in self.factors].index(factor)
        return self.labels[:, index].cpu().numpy()


@dataclass
class Meter:
    """Counts forward passes (rows through `denoise`) and tells a progress bar about them."""

    on_rows: Callable[[int], None] = lambda rows: None
    rows: int = field(default=0)

    def add(self, rows: int) -> None:
        """Count `rows` forward passes."""
        self.rows += rows
        self.on_rows(rows)


def level_number(log_snr: float) -> int:
    """The number of a level in its noise streams, from its place on the clock rather than in a grid.

    Models whose ranges cut a grid at different nodes still see the same noise at the same log_snr.
    """
    return round((log_snr + 50) * 10_000)  # settings keep log_snr within ±50


def forward_noise(keys: torch.Tensor, level: int, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Noise (B, *shape) of one level (see `level_number`) and draw.

    Draws come in antithetic pairs (+n, -n): odd terms cancel.
    """
    z = normal(keys, level * MAX_DRAWS + draw // 2, shape)
    return -z if draw % 2 else z


def item_keys(seed: int, dataset: str, protocol: str, ids: Sequence[str], device: torch.device) -> torch.Tensor:
    """Stream keys (N,) of items: the same for every model, so that all see the same noise."""
    return stream_keys((seed, dataset, protocol), ids).to(device)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover range(count) in pieces of at most `size`."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def denoise_batched(
    model: DiffusionModel,
    x: torch.Tensor,
    sigma: torch.Tensor,
    labels: torch.Tensor | None,
    batch: int,
    meter: Meter,
) -> torch.Tensor:
    """`model.denoise` in pieces of at most `batch` rows; refuses non-finite output."""
    out = []
    for part in chunks(len(x), batch):
        y = model.denoise(x[part], sigma[part], None if labels is None else labels[part])
        meter.add(part.stop - part.start)
        out.append(y)
    result = torch.cat(out) if len(out) != 1 else out[0]
    if not torch.isfinite(result).all():
        bad = sigma[~torch.isfinite(result.flatten(1)).all(dim=1)]
        raise BenchsuiteError(
            f"{model.name} returned non-finite values at sigma = {bad[0].item():.6g} ({len(bad)} of {len(x)} rows)"
        )
    return result


def condition_on(model: DiffusionModel, items: Items, factors: Sequence[str]) -> torch.Tensor:
    """Label rows (N, len(model.factors)) that state `factors` and leave the others null (-1)."""
    names = [f.name for f in model.factors]
    columns = [f.name for f in items.factors]
    given = torch.full((len(items), len(names)), -1, dtype=torch.int64, device=items.x.device)
    for factor in factors:
        given[:, names.index(factor)] = items.labels[:, columns.index(factor)]
    return given


def shared_factors(model: DiffusionModel, factors: Sequence[Factor]) -> list[str]:
    """Names of the factors that the model can be conditioned on and the data set labels.

    Raises:
        BenchsuiteError: a factor of one name has another number of values in the model.
    """
    sizes = {f.name: f.size for f in model.factors}
    for f in factors:
        if sizes.get(f.name, f.size) != f.size:
            raise BenchsuiteError(
                f"factor {f.name!r} has {sizes[f.name]} values in {model.name} but {f.size} in the data set"
            )
    return [f.name for f in factors if f.name in sizes]


def every_layer(network: torch.nn.Module | None) -> tuple[str, ...]:
    """Dotted paths of all convolution and linear layers, without those that embed the time or a label.

    A path is left out if one of its parts begins as time and label embeddings are called in diffusers, ADM and
    DiT. Attention projections are linear layers like others.
    """
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Linear)
    return tuple(
        path
        for path, module in (network.named_modules() if network is not None else ())
        if isinstance(module, kinds) and not any(part.startswith(EMBEDDINGS) for part in path.split("."))
    )


class Taps:
    """Records pooled activations of modules during a forward pass.

    A module's output may be a tensor or a tuple whose first element is the hidden state (diffusers' down
    blocks). They are pooled as they come (see `pool`): no map is kept.
    """

    def __init__(self, network: torch.nn.Module | None, paths: Sequence[str]) -> None:
        self.pooled: dict[str, torch.Tensor] = {}
        self._modules: dict[str, torch.nn.Module] = {}
        for path in paths if network is not None else ():
            assert network is not None
            try:
                self._modules[path] = network.get_submodule(path)
            except AttributeError:
                raise BenchsuiteError(f"the network has no module {path!r} to tap") from None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Hook the modules for the duration of the block."""

        def hook(path: str) -> Callable[..., None]:
            def keep(module: torch.nn.Module, args: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                self.pooled[path] = pool(hidden)

            return keep

        handles = [module.register_forward_hook(hook(path)) for path, module in self._modules.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def pool(hidden: torch.Tensor) -> torch.Tensor:
    """Activations of one module => features (B, D) float32.

    A map (B, C, H, W) is averaged over each of its quadrants, (B, 4 C), so that what lies where is not lost; over
    all of it, (B, C), where that would be more than `MOST_FEATURES` or a side is a single pixel. Tokens (B, T, C)
    are averaged, (B, C) is taken as it is.
    """
    if hidden.dim() == 4:
        quadrants = 4 * hidden.shape[1] <= MOST_FEATURES and min(hidden.shape[2:]) > 1
        hidden = torch.nn.functional.adaptive_avg_pool2d(hidden, 2 if quadrants else 1)
    elif hidden.dim() == 3:
        hidden = hidden.mean(dim=1)
    return hidden.float().flatten(1)


def flatten_small(x: torch.Tensor, limit: int = 1024) -> torch.Tensor:
    """(B, *shape) => (B, D) with D <= about `limit`: images are average-pooled until they fit."""
    if x[0].numel() > limit and x.dim() == 4:
        side = max(1, math.isqrt(limit // x.shape[1]))
        x = torch.nn.functional.adaptive_avg_pool2d(x, (min(side, x.shape[2]), min(side, x.shape[3])))
    return x.flatten(1).float()


def to_numpy(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, NDArray[Any]]:
    """{name: tensor} => {prefix/name: array} on the host."""
    return {f"{prefix}/{name}": np.asarray(value.cpu()) for name, value in tensors.items()}
