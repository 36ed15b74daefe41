"""The U-Net of guided-diffusion ("ADM", arXiv:2105.05233) => a stock diffusers UNet2DModel, in memory.

Both are the same network under different names, but for one thing: ADM fuses queries, keys and values, head by
head (q of head 1, k of head 1, v of head 1, q of head 2, …). Splitting that tensor in three gives the right shapes
and the wrong network.

Names, with n counting all blocks of one path::

    time_embed.{0,2}                      time_embedding.linear_{1,2}
    input_blocks.0.0, out.{0,2}           conv_in, conv_norm_out / conv_out
    input_blocks.n.{0,1}                  down_blocks.i.resnets.j, .attentions.j
    input_blocks.n.0 (last of a level)    down_blocks.i.downsamplers.0
    middle_block.{0,1,2}                  mid_block.resnets.0, .attentions.0, .resnets.1
    output_blocks.n.{0,1}                 up_blocks.i.resnets.j, .attentions.j
    output_blocks.n.{1,2} (last of one)   up_blocks.i.upsamplers.0
    label_emb                             class_embedding
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchsuite import ModelLoadError

if TYPE_CHECKING:
    import torch

    State = Mapping[str, torch.Tensor]

GROUPS = 32  #: of every group norm in ADM

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "qkv": "qkv", "proj_out": "to_out.0"}
_RESAMPLING = {"op": "conv", "conv": "conv"}  # convolutions, where no residual block resamples


@dataclass(frozen=True)
class Architecture:
    """What a state dict says about its network."""

    in_channels: int
    out_channels: int  #: twice `in_channels` if the variance is learned
    widths: tuple[int, ...]  #: channels of each level, finest first
    res_blocks: int  #: per level on the way down; one more on the way up
    attention: tuple[bool, ...]  #: whether a level has it, finest first; the middle always has
    scale_shift: bool  #: the time embedding scales and shifts the second norm, instead of being added before it
    resblock_updown: bool  #: residual blocks resample, instead of convolutions
    classes: int | None  #: rows of the class table

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.widths)

    def config(self, size: int, head_channels: int) -> dict[str, Any]:
        """Arguments of the UNet2DModel that is the same network.

        Args:
            size: side of the images in pixels.
            head_channels: channels of one attention head.
        """
        plain = {"down": "ResnetDownsampleBlock2D" if self.resblock_updown else "DownBlock2D"}
        plain["up"] = "ResnetUpsampleBlock2D" if self.resblock_updown else "UpBlock2D"
        resampling = "resnet" if self.resblock_updown else "conv"
        return {
            "sample_size": size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.widths),
            "layers_per_block": self.res_blocks,
            "down_block_types": ["AttnDownBlock2D" if a else plain["down"] for a in self.attention],
            "up_block_types": ["AttnUpBlock2D" if a else plain["up"] for a in reversed(self.attention)],
            "downsample_type": resampling,
            "upsample_type": resampling,
            "downsample_padding": 1,
            "attention_head_dim": head_channels,
            "norm_num_groups": GROUPS,
            "attn_norm_num_groups": GROUPS,
            "norm_eps": 1e-5,
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            # (cos, sin) of t 10000^(-i / half), i = 0 … half - 1
            "time_embedding_type": "positional",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "num_class_embeds": self.classes,
        }


def read_architecture(state: State) -> Architecture:
    """The architecture that the keys and shapes of `state` spell out.

    Raises:
        ModelLoadError: they do not; names the key.
    """
    inputs, outputs = _blocks(state, "input_blocks"), _blocks(state, "output_blocks")
    resampled = [n for n in range(outputs) if _resampler(state, n) is not None]
    levels = len(resampled) + 1
    per_level = outputs // levels
    expected = [per_level * (level + 1) - 1 for level in range(levels - 1)]
    if outputs % levels or resampled != expected or inputs != per_level * levels:
        raise ModelLoadError(
            f"not an ADM U-Net: {inputs} input_blocks, {outputs} output_blocks, of which {resampled or 'none'} "
            f"upsample; with R + 1 output blocks on each of L levels there are L (R + 1) input blocks too"
        )
    firsts = [per_level * level for level in reversed(range(levels))]  # output blocks of each level, finest first
    widths = tuple(_shape(state, f"output_blocks.{n}.0.out_layers.3.weight", 4)[0] for n in firsts)
    stem = _shape(state, "input_blocks.0.0.weight", 4)
    table = _shape(state, "label_emb.weight", 2)[0] if "label_emb.weight" in state else None
    embedding = _shape(state, "middle_block.0.emb_layers.1.weight", 2)[0]
    return Architecture(
        in_channels=stem[1],
        out_channels=_shape(state, "out.2.weight", 4)[0],
        widths=widths,
        res_blocks=per_level - 1,
        attention=tuple(f"output_blocks.{n}.1.qkv.weight" in state for n in firsts),
        scale_shift=embedding == 2 * widths[-1],
        resblock_updown=not any(
            key.startswith("output_blocks.") and key.endswith(".conv.weight") for key in state
        ),
        classes=table,
    )


def convert(state: State, architecture: Architecture, head_channels: int) -> dict[str, torch.Tensor]:
    """The state dict of the UNet2DModel with `architecture.config(…)`, float32; not yet checked against it.

    Args:
        state: the state dict of an ADM U-Net.
        architecture: from `read_architecture`.
        head_channels: channels of one attention head.

    Raises:
        ModelLoadError: a key that has no place in that network, or channels that are no whole number of heads.
    """
    modules = dict(_modules(architecture))
    converted: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        module, _, kind = key.rpartition(".")
        if module not in modules:
            raise ModelLoadError(f"{key} {tuple(value.shape)} has no place in {architecture}")
        name, weight = modules[module], value.float()
        if module.endswith(".qkv"):
            for part, tensor in zip("qkv", split_heads(weight, head_channels, key), strict=True):
                converted[f"{name}.to_{part}.{kind}"] = tensor
        else:  # a 1 x 1 convolution over tokens is a linear map
            converted[f"{name}.{kind}"] = weight[..., 0] if weight.dim() == 3 else weight
    return converted


def split_heads(
    fused: torch.Tensor, head_channels: int, key: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values, each (C, C) or (C,), of a fused weight (3C, C, 1) or bias (3C,).

    Rows of `fused` run over (head, q/k/v, channel of the head).

    Raises:
        ModelLoadError: C is not a multiple of `head_channels`.
    """
    rows = fused.shape[0]
    if rows % (3 * head_channels):
        raise ModelLoadError(
            f"{key} {tuple(fused.shape)}: {rows} rows are not 3 times a multiple of num_head_channels="
            f"{head_channels}"
        )
    heads = fused.reshape(-1, 3, head_channels, *fused.shape[1:2])  # (heads, 3, head_channels[, C])
    q, k, v = (heads[:, part].reshape(rows // 3, *fused.shape[1:2]).clone() for part in range(3))
    return q, k, v


def check(converted: State, expected: State, architecture: Architecture) -> None:
    """Refuse converted weights that are not exactly those of the network, before diffusers guesses.

    Raises:
        ModelLoadError: naming the first weight (in diffusers' words) that is missing, left over or misshapen.
    """
    for name, value in expected.items():
        if name not in converted:
            raise ModelLoadError(f"no weight becomes {name} {tuple(value.shape)} of {architecture}")
        if converted[name].shape != value.shape:
            raise ModelLoadError(
                f"{name} would be {tuple(converted[name].shape)}, expected {tuple(value.shape)} in {architecture}"
            )
    for name in converted:
        if name not in expected:
            raise ModelLoadError(f"{name} {tuple(converted[name].shape)} is not part of {architecture}")


def _modules(architecture: Architecture) -> Iterator[tuple[str, str]]:
    """(ADM module, UNet2DModel module) of everything that has weights."""
    yield from {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "label_emb": "class_embedding",
        "input_blocks.0.0": "conv_in",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }.items()
    last, per_level = architecture.levels - 1, architecture.res_blocks
    resampling = _RESNET if architecture.resblock_updown else _RESAMPLING
    for level in range(architecture.levels):
        n = 1 + level * (per_level + 1)
        for j in range(per_level):
            yield from _inner(f"input_blocks.{n + j}.0", f"down_blocks.{level}.resnets.{j}", _RESNET)
            yield from _inner(f"input_blocks.{n + j}.1", f"down_blocks.{level}.attentions.{j}", _ATTENTION)
        yield from _inner(f"input_blocks.{n + per_level}.0", f"down_blocks.{level}.downsamplers.0", resampling)
    yield from _inner("middle_block.0", "mid_block.resnets.0", _RESNET)
    yield from _inner("middle_block.1", "mid_block.attentions.0", _ATTENTION)
    yield from _inner("middle_block.2", "mid_block.resnets.1", _RESNET)
    for level in range(architecture.levels):  # coarsest first
        n = level * (per_level + 1)
        attention = architecture.attention[last - level]
        for j in range(per_level + 1):
            yield from _inner(f"output_blocks.{n + j}.0", f"up_blocks.{level}.resnets.{j}", _RESNET)
            if attention:
                yield from _inner(f"output_blocks.{n + j}.1", f"up_blocks.{level}.attentions.{j}", _ATTENTION)
        resampler = f"output_blocks.{n + per_level}.{1 + attention}"
        yield from _inner(resampler, f"up_blocks.{level}.upsamplers.0", resampling)


def _inner(theirs: str, ours: str, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for inner, name in names.items():
        yield f"{theirs}.{inner}", f"{ours}.{name}" if name != "qkv" else ours


def _resampler(state: State, n: int) -> str | None:
    """The sub-module of output block `n` that upsamples, if there is one."""
    for module in (f"output_blocks.{n}.{j}" for j in (1, 2)):
        if f"{module}.in_layers.2.weight" in state or f"{module}.conv.weight" in state:
            return module
    return None


def _blocks(state: State, path: str) -> int:
    """Number of blocks of one path, which must be numbered without gaps."""
    numbers = {int(key.split(".")[1]) for key in state if re.match(rf"{path}\.\d+\.", key)}
    if not numbers:
        raise ModelLoadError(
            f"not an ADM U-Net: no weight is called {path}.N.…; the first is {next(iter(state), None)}"
        )
    if numbers != set(range(len(numbers))):
        missing = min(set(range(max(numbers))) - numbers)
        raise ModelLoadError(f"not a whole ADM U-Net: {path}.{missing} has no weights, {path}.{max(numbers)} has")
    return len(numbers)


def _shape(state: State, key: str, dimensions: int) -> tuple[int, ...]:
    if key not in state:
        raise ModelLoadError(f"not an ADM U-Net: it has no {key}")
    shape = tuple(state[key].shape)
    if len(shape) != dimensions:
        raise ModelLoadError(f"{key} has shape {shape}, expected {dimensions} dimensions")
    return shape
