"""Random numbers that belong to names, not to batches.

Every stream is keyed by hashing names (base seed, data set, protocol, item, draw). A counter-based generator
turns (key, step, position) into a normal deviate, so that a number does not depend on batch size, order,
sharding, device or on which other plugins are installed — and two models with the same shape see the same noise.

Generator: two rounds of the SplitMix64 finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom
number generators") over the mixed counter, then Box–Muller. Integer arithmetic is exact on every device.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def stream_key(*names: object) -> int:
    """A 63-bit key for the stream called `names`; different names give unrelated streams."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def stream_keys(prefix: Sequence[object], items: Sequence[object]) -> torch.Tensor:
    """One key per item: (len(items),) int64."""
    return torch.tensor([stream_key(*prefix, item) for item in items], dtype=torch.int64)


def normal(keys: torch.Tensor, step: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal deviates, one independent block per key.

    Args:
        keys: (B,) int64, from `stream_keys`.
        step: which block of the stream (0, 1, 2, …); blocks of one key are independent.
        shape: shape of one block.

    Returns:
        (B, *shape) float32 on the device of `keys`.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    u = uniform(keys, step, (2 * pairs,))
    radius = u[:, :pairs].log().mul_(-2.0).sqrt_()
    angle = u[:, pairs:].mul_(2.0 * math.pi)
    deviates = torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)
    return deviates[:, :count].reshape(len(keys), *shape)


def uniform(keys: torch.Tensor, step: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform deviates on (0, 1), one independent block per key; arguments and result as for `normal`."""
    position = torch.arange(math.prod(shape), device=keys.device, dtype=torch.int64) * _signed(_GOLDEN)
    # key and step are mixed before positions are added: streams of neighbouring steps never overlap
    base = _mix(keys + _signed((step + 1) * _GOLDEN))[:, None]
    bits = _mix(_mix(base + position))
    # 23 bits and a half step: strictly inside (0, 1) and exactly representable in float32
    bits.bitwise_right_shift_(41).bitwise_and_(0x7FFFFF)
    return bits.to(torch.float32).add_(0.5).div_(2**23).reshape(len(keys), *shape)


def _mix(z: torch.Tensor) -> torch.Tensor:
    """SplitMix64 finaliser of int64 tensors (wrapping arithmetic, logical shifts), in their place.

    A new tensor for each of its eleven operations would take three times as long, for page faults.
    """
    shifted = torch.empty_like(z)
    for bits, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        torch.bitwise_right_shift(z, bits, out=shifted)
        # a logical shift: torch's copies the sign
        z.bitwise_xor_(shifted.bitwise_and_((1 << (64 - bits)) - 1)).mul_(_signed(factor))
    return z


def _signed(value: int) -> int:
    """The int64 with the same low 64 bits as `value`."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
