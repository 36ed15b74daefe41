"""The small convolutional network behind every trained readout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

GRID = 4  # feature maps are averaged over a GRID x GRID raster, so that a shallow layer stays small
PATCHES = 7  # places a side that changes are correlated over, as many as a large network's last map has
SMALL = 8  # up to this side, images are worth two convolutions at full resolution


class ReadoutNet(nn.Module):
    """Stages of convolutions, each halving the image, then one hidden layer and one linear head per factor.

    Args:
        shape: (C, H, W) of the images it looks at.
        widths: channels of each stage; H and W must be at least 2 ** len(widths).
        hidden: units of the hidden layer.
        sizes: factor name -> number of values.
    """

    def __init__(
        self, shape: tuple[int, int, int], widths: Sequence[int], hidden: int, sizes: Mapping[str, int]
    ) -> None:
        super().__init__()
        channels, height, width = shape
        self.factor_names = tuple(sizes)
        self.stages = nn.ModuleList()
        for i, out in enumerate(widths):
            # Full resolution is where time goes: larger images are halved by their first convolution.
            first = i == 0 and min(height, width) > SMALL
            self.stages.append(stem(channels, out) if first else stage(channels, out))
            channels, height, width = out, height // 2, width // 2
        rows, columns = min(height, GRID), min(width, GRID)
        self.pool = nn.AdaptiveAvgPool2d((rows, columns))
        self.hidden = nn.Linear(channels * rows * columns, hidden)
        self.dropout = nn.Dropout(0.3)
        self.heads = nn.ModuleList(nn.Linear(hidden, size) for size in sizes.values())
        #: logits are divided by it; fitted on the validation split after training
        self.register_buffer("temperature", torch.ones(len(sizes)))

    def forward(self, images: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        """Images (B, C, H, W) in [-1, 1] => calibrated logits [(B, K)] per factor and features of every layer.

        Features are {layer: (B, channels, h, w)} of the stages, averaged over the raster, and (B, D) of the rest.
        """
        features: dict[str, torch.Tensor] = {}
        x = images
        for i, block in enumerate(self.stages, start=1):
            x = block(x)
            size = (min(x.shape[2], GRID), min(x.shape[3], GRID))
            features[f"stage{i}"] = F.adaptive_avg_pool2d(x, size)
        x = F.relu(self.hidden(self.pool(x).flatten(1)))
        features["hidden"] = x
        x = self.dropout(x)
        temperature = self.get_buffer("temperature")
        logits = [head(x) / temperature[i] for i, head in enumerate(self.heads)]
        features["logits"] = torch.cat(logits, dim=1)
        return logits, features

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) => the map (B, channels, h, w) of the deepest stage of PATCHES places a side.

        The shallowest one if no stage has so many.
        """
        x = self.stages[0](images)
        for block in self.stages[1:]:
            if min(x.shape[2:]) // 2 < PATCHES:
                break
            x = block(x)
        found: torch.Tensor = x
        return found


def stem(channels: int, out: int) -> nn.Sequential:
    """A 5 x 5 convolution of stride 2, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, out, 5, stride=2, padding=2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


def stage(channels: int, out: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, each with batch norm and ReLU, then 2 x 2 max-pooling."""
    layers: list[nn.Module] = []
    for inputs in (channels, out):
        layers += [nn.Conv2d(inputs, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))
