"""A pretrained network as the judge of images: its classes, its hidden layers, its last grid of features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from benchsuite import Factor, Readout, Split, UsageError, fingerprint_state
from benchsuite.contracts import FloatArray
from benchsuite_datasets.grids import grid_distances
from benchsuite_datasets.imagenet_classes import match_classes
from benchsuite_datasets.pretrained_choice import PretrainedChoice
from benchsuite_datasets.pretrained_weights import open_network

BATCH = 64
#: held-out items that the accuracy is measured on, at most
JUDGED = 1000


@dataclass(frozen=True)
class Preprocessing:
    """A network's own: resize the shorter side, cut out the centre, normalise."""

    size: tuple[int, int]  #: (H, W) that the network looks at
    resize: int  #: shorter side before the cut
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, network: torch.nn.Module) -> Preprocessing:
        """As timm states it for the network's weights."""
        from timm.data import resolve_data_config

        config = resolve_data_config(network.pretrained_cfg)
        height, width = config["input_size"][1:]
        return cls(
            (height, width),
            math.floor(min(height, width) / config["crop_pct"]),
            # torch interpolates tensors by these two only; "random" and Lanczos come next to the latter
            "bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            tuple(config["mean"]),
            tuple(config["std"]),
        )

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 1 or 3, H, W) in [-1, 1] => (B, 3, *size), as the network was trained to see them."""
        if images.dim() != 4 or images.shape[1] not in (1, 3):
            raise UsageError(f"a pretrained readout judges images (B, 1 or 3, H, W), got {tuple(images.shape)}")
        x = images.float().expand(-1, 3, -1, -1)
        height, width = x.shape[2:]
        # the longer side is cut short to whole pixels, and half pixels of the cut go where torchvision puts them
        to = tuple(
            max(self.resize * side // min(height, width), self.size[i]) for i, side in enumerate(x.shape[2:])
        )
        if to != (height, width):
            x = F.interpolate(x, size=to, mode=self.interpolation, antialias=True, align_corners=False)
        top, left = (round((to[i] - self.size[i]) / 2) for i in range(2))
        x = x[:, :, top : top + self.size[0], left : left + self.size[1]]
        x = (x.clamp(-1, 1) + 1) / 2  # interpolation overshoots, and so do samplers: an image file would clip
        mean, std = (x.new_tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (x - mean) / std


class PretrainedReadout(Readout):
    """A network of timm, frozen, with its own preprocessing.

    It judges the factor ``class`` if the data set's classes are ImageNet's (WordNet ids or English names): the
    probabilities are those of these classes among each other. Hidden layers are the stages that timm lists for
    the network, or the modules asked for, and then what comes out, ``logits``. Positions are the places of the
    last stage's feature map, or the patch tokens of a transformer.

    The classifier of arXiv:2402.16991 is torchvision's ConvNeXt-Base (IMAGENET1K_V1), that of timm's
    ``convnext_base.fb_in1k`` is another training (by the network's authors) under other tensor names: curves of
    the two compare in shape, not digit by digit. The patch tokens of arXiv:2410.13770 are those of
    ``vit_base_patch32_clip_224.openai``.

    Args:
        choice: see `PretrainedChoice`.
        factors: of the data set.
        held_out: split that `accuracy` is measured on, when it is first asked for.

    Raises:
        UsageError: unknown network or layer, or class names of which only some are ImageNet's.
        MissingDataError, DataError: see `open_network`.
    """

    def __init__(self, choice: PretrainedChoice, factors: Sequence[Factor], held_out: Split) -> None:
        self.name, self.choice = choice.name, choice
        self.network = open_network(choice)
        self.preprocess = Preprocessing.of(self.network)
        self.stages = _stages(self.network)
        self.layers = choice.layers or tuple(self.stages)
        if not self.layers:
            raise UsageError(
                f"timm lists no stages of {choice.model}; name layers: readout={self.name}#LAYER+LAYER"
            )
        for layer in self.layers:
            try:
                self.network.get_submodule(layer)
            except AttributeError:
                top = ", ".join(name for name, _ in self.network.named_children())
                raise UsageError(f"{choice.model} has no layer {layer!r}; at its top: {top}") from None
        known = _imagenet(self.network)
        self.output = "logits" if known else "output"
        self._held_out = held_out
        self._accuracy: dict[str, float] | None = None
        self._class = next((i for i, f in enumerate(factors) if f.name == "class"), None)
        names = factors[self._class].values if self._class is not None else ()
        self._outputs = match_classes(names, known) if known and names else None

    @property
    def accuracy(self) -> Mapping[str, float]:  # type: ignore[override]
        """{"class": accuracy on the first held-out items}, measured once; empty if no factor is judged."""
        if self._accuracy is None:
            self._accuracy = {}
            if self._outputs is not None:
                images, labels = self._held_out.images[:JUDGED], self._held_out.labels[:JUDGED, self._class]
                device = next(self.network.parameters()).device
                with torch.no_grad():
                    found = [
                        self.probabilities(part.to(device))["class"].argmax(1) for part in images.split(BATCH)
                    ]
                self._accuracy["class"] = float((torch.cat(found).cpu() == labels).double().mean())
        return self._accuracy

    def to(self, device: str) -> PretrainedReadout:
        """Move to `device` and return self."""
        self.network.to(device)
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, C, H, W) in [-1, 1] => {"class": (B, K)}, or nothing if the classes are not ImageNet's."""
        if self._outputs is None:
            return {}
        logits = torch.cat([out for out, _ in self._batches(images, ())])
        return {"class": logits[:, list(self._outputs)].softmax(dim=1)}

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (B, C, H, W) => {layer: (B, channels, places…)}, shallow to deep, the outputs (B, K) last."""
        parts: dict[str, list[torch.Tensor]] = {}
        for out, layers in self._batches(images, self.layers):
            for name, value in layers.items():
                parts.setdefault(name, []).append(value)
            parts.setdefault(self.output, []).append(out)
        return {name: torch.cat(values) for name, values in parts.items()}

    def positions(self, images: torch.Tensor) -> torch.Tensor | None:
        """Images (B, C, H, W) => embeddings (B, P, E) at the places of the last feature map, row by row."""
        last = list(self.stages)[-1] if self.stages else self.layers[-1]
        grids = [layers[last] for _, layers in self._batches(images, (last,))]
        grid = torch.cat(grids)  # (B, E, h, w) or (B, E, tokens)
        if grid.dim() == 3:
            grid = grid[:, :, int(getattr(self.network, "num_prefix_tokens", 0)) :]
        return None if grid.dim() < 3 else grid.flatten(2).transpose(1, 2)

    def position_distances(self) -> FloatArray | None:
        """Euclidean distances (P, P) on the grid, in units of its mesh."""
        blank = torch.zeros(1, 3, *self.preprocess.size, device=next(self.network.parameters()).device)
        found = self.positions(blank)
        if found is None:
            return None
        height, width = self.preprocess.size
        rows = max(round(math.sqrt(found.shape[1] * height / width)), 1)
        columns = found.shape[1] // rows
        return grid_distances(rows, columns) if rows * columns == found.shape[1] else None  # tokens off any grid

    def fingerprint(self) -> str:
        """Hex digest of weights, preprocessing, layers and outputs."""
        digest = fingerprint_state(self.network.state_dict())
        return f"{digest}/{self.preprocess}/{'+'.join(self.layers)}/{self._outputs}"

    @torch.no_grad()
    def _batches(
        self, images: torch.Tensor, layers: Sequence[str]
    ) -> Iterator[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """Outputs (b, K) and the asked layers (b, channels, places…) of images, piece by piece."""
        device = next(self.network.parameters()).device
        for part in images.split(BATCH):
            with _hooked(self.network, layers) as seen:
                out = self.network(self.preprocess(part.to(device)))
            yield out.to(images.device), {name: self._channels_first(name, seen[name]) for name in layers}

    def _channels_first(self, name: str, value: Any) -> torch.Tensor:
        """(B, C), (B, C, h, w) or (B, C, tokens), whichever way the module lays it out."""
        value = value[0] if isinstance(value, tuple | list) else value
        last = value.dim() == 3 or (value.dim() == 4 and getattr(self.network, "output_fmt", "") == "NHWC")
        channels = self.stages.get(name)
        if channels is not None and value.dim() > 2 and value.shape[1] != value.shape[-1]:
            last = value.shape[-1] == channels
        tensor: torch.Tensor = value.movedim(-1, 1) if last else value
        return tensor


@contextmanager
def _hooked(network: torch.nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the named modules return during the forward passes inside."""
    seen: dict[str, Any] = {}

    def keep(name: str) -> Any:
        return lambda module, args, output: seen.__setitem__(name, output)

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _stages(network: torch.nn.Module) -> dict[str, int]:
    """{module path: channels} of the stages that timm lists for the network."""
    listed: Any = getattr(network, "feature_info", [])
    entries: list[dict[str, Any]] = getattr(listed, "info", listed)
    return {entry["module"]: int(entry["num_chs"]) for entry in entries if entry.get("module")}


def _imagenet(network: torch.nn.Module) -> list[tuple[str, str]]:
    """(WordNet id, English names) of every output; empty if the network is no classifier of ImageNet."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(network)
    if not subset:
        return []
    info = ImageNetInfo(subset)
    return [(info.index_to_label_name(i), info.index_to_description(i)) for i in range(info.num_classes())]
