"""A second implementation of the ADM U-Net (arXiv:2105.05233), to hold the converted network to.

One forward pass is the whole description: weights come into being under their published names when they are first
used. No diffusers, no modules; attention head by head with explicit matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]


@dataclass
class Adm:
    """ADM with random weights, none of them zero."""

    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    res_blocks: int = 1
    head_channels: int = 8
    updown: bool = True
    scale_shift: bool = True
    channels: int = 3
    learned_variance: bool = True
    classes: int | None = None
    device: str = "cpu"
    seed: int = 0
    state: State = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        image = torch.zeros(1, self.channels, 2 ** len(self.widths), 2 ** len(self.widths), device=self.device)
        label = None if self.classes is None else torch.zeros(1, dtype=torch.int64, device=self.device)
        self(image, torch.zeros(1, device=self.device), label)

    def __call__(self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """x (B, C, H, W) and steps t (B,) => prediction (B, C or 2C, H, W)."""
        embedding = self.embed(t, label)
        h = self.conv("input_blocks.0.0", x, self.widths[0])
        stack, n = [h], 1
        for level, width in enumerate(self.widths):
            for _ in range(self.res_blocks):
                h = self.residual(f"input_blocks.{n}.0", h, embedding, width)
                if self.attention[level]:
                    h = self.attend(f"input_blocks.{n}.1", h)
                stack.append(h)
                n += 1
            if level + 1 < len(self.widths):
                h = self.down(f"input_blocks.{n}.0", h, embedding)
                stack.append(h)
                n += 1
        h = self.residual("middle_block.0", h, embedding, self.widths[-1])
        h = self.attend("middle_block.1", h)
        h = self.residual("middle_block.2", h, embedding, self.widths[-1])
        n = 0
        for level in reversed(range(len(self.widths))):
            for i in range(self.res_blocks + 1):
                both = torch.cat([h, stack.pop()], dim=1)
                h = self.residual(f"output_blocks.{n}.0", both, embedding, self.widths[level])
                if self.attention[level]:
                    h = self.attend(f"output_blocks.{n}.1", h)
                if level and i == self.res_blocks:
                    h = self.up(f"output_blocks.{n}.{2 if self.attention[level] else 1}", h, embedding)
                n += 1
        assert not stack
        outputs = self.channels * (2 if self.learned_variance else 1)
        return self.conv("out.2", functional.silu(self.norm("out.0", h)), outputs)

    def embed(self, t: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        base = self.widths[0]
        steps = torch.arange(base // 2, device=t.device, dtype=torch.float32)
        angle = t.float()[:, None] * torch.exp(-math.log(10000) * steps / (base // 2))[None]
        hidden = self.linear("time_embed.0", torch.cat([angle.cos(), angle.sin()], dim=1), 4 * base)
        embedding = self.linear("time_embed.2", functional.silu(hidden), 4 * base)
        if label is not None:
            embedding = embedding + self.get("label_emb.weight", (self.classes or 0, 4 * base), 1.0)[label]
        return embedding

    def residual(
        self, name: str, x: torch.Tensor, embedding: torch.Tensor, width: int, resample: str = ""
    ) -> torch.Tensor:
        """GN, SiLU, [resample,] conv; scale and shift by time; GN, SiLU, conv; plus the (resampled) input."""
        h = functional.silu(self.norm(f"{name}.in_layers.0", x))
        if resample == "down":
            h, x = pool(h), pool(x)
        elif resample == "up":
            h, x = repeat(h), repeat(x)
        h = self.conv(f"{name}.in_layers.2", h, width)
        parts = 2 if self.scale_shift else 1
        time = self.linear(f"{name}.emb_layers.1", functional.silu(embedding), parts * width)[..., None, None]
        if self.scale_shift:
            h = self.norm(f"{name}.out_layers.0", h) * (1 + time[:, :width]) + time[:, width:]
        else:
            h = self.norm(f"{name}.out_layers.0", h + time)
        h = self.conv(f"{name}.out_layers.3", functional.silu(h), width)
        if x.shape[1] != width:
            x = self.conv(f"{name}.skip_connection", x, width, kernel=1)
        return x + h

    def attend(self, name: str, x: torch.Tensor) -> torch.Tensor:
        batch, width, height, breadth = x.shape
        tokens = self.norm(f"{name}.norm", x).flatten(2)  # (B, C, T)
        weight = self.get(f"{name}.qkv.weight", (3 * width, width, 1), width**-0.5)
        bias = self.get(f"{name}.qkv.bias", (3 * width,), 0.3)
        fused = torch.einsum("oc,bct->bot", weight[..., 0], tokens) + bias[None, :, None]
        found = []
        for head in fused.split(3 * self.head_channels, dim=1):
            q, k, v = head.split(self.head_channels, dim=1)
            match = torch.einsum("bct,bcs->bts", q, k) / math.sqrt(self.head_channels)
            found.append(torch.einsum("bts,bcs->bct", match.softmax(dim=2), v))
        weight = self.get(f"{name}.proj_out.weight", (width, width, 1), width**-0.5)
        bias = self.get(f"{name}.proj_out.bias", (width,), 0.3)
        out = torch.einsum("oc,bct->bot", weight[..., 0], torch.cat(found, dim=1)) + bias[None, :, None]
        return x + out.reshape(batch, width, height, breadth)

    def down(self, name: str, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        if self.updown:
            return self.residual(name, h, embedding, h.shape[1], "down")
        return self.conv(f"{name}.op", h, h.shape[1], stride=2)

    def up(self, name: str, h: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        if self.updown:
            return self.residual(name, h, embedding, h.shape[1], "up")
        return self.conv(f"{name}.conv", repeat(h), h.shape[1])

    def conv(self, name: str, x: torch.Tensor, width: int, kernel: int = 3, stride: int = 1) -> torch.Tensor:
        fan = x.shape[1] * kernel**2
        weight = self.get(f"{name}.weight", (width, x.shape[1], kernel, kernel), fan**-0.5)
        return functional.conv2d(x, weight, self.get(f"{name}.bias", (width,), 0.3), stride, kernel // 2)

    def linear(self, name: str, x: torch.Tensor, width: int) -> torch.Tensor:
        weight = self.get(f"{name}.weight", (width, x.shape[1]), x.shape[1] ** -0.5)
        return x @ weight.T + self.get(f"{name}.bias", (width,), 0.3)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.get(f"{name}.weight", (x.shape[1],), 0.3, shift=1.0)
        groups = x.reshape(len(x), 32, -1)
        mean = groups.mean(dim=2, keepdim=True)
        spread = ((groups - mean).square().mean(dim=2, keepdim=True) + 1e-5).sqrt()
        normal = ((groups - mean) / spread).reshape(x.shape)
        return normal * weight[:, None, None] + self.get(f"{name}.bias", (x.shape[1],), 0.3)[:, None, None]

    def get(self, name: str, shape: tuple[int, ...], scale: float, shift: float = 0.0) -> torch.Tensor:
        if name not in self.state:
            if self.device == "meta":
                self.state[name] = torch.empty(shape, device="meta")
            else:
                self.state[name] = shift + scale * torch.randn(shape, generator=self.generator)
        assert self.state[name].shape == shape
        return self.state[name]


def pool(x: torch.Tensor) -> torch.Tensor:
    """Means of 2 x 2 blocks."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def repeat(x: torch.Tensor) -> torch.Tensor:
    """Every pixel four times."""
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
