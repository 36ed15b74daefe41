"""The converted ADM network against a second implementation, and what a wrong state dict gets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from adm_reference import Adm
from benchsuite_models import adm_convert
from benchsuite_models.adm_convert import Architecture, check, convert, read_architecture, split_heads

from benchsuite import ModelLoadError
from benchsuite.torchvision_compat import ensure_torchvision_importable

ensure_torchvision_importable()

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "as published": {"widths": (32, 64, 64), "attention": (False, True, True)},
    "two blocks, three heads": {
        "widths": (32, 96),
        "attention": (False, True),
        "res_blocks": 2,
        "head_channels": 32,
    },
    "attention everywhere": {"widths": (32, 32, 64), "attention": (True, True, True)},
    "attention in the middle only": {"widths": (32, 64), "attention": (False, False)},
    "a gap in the attention": {"widths": (32, 32, 64), "attention": (True, False, True)},
    "convolutions resample": {"widths": (32, 64, 64), "attention": (False, True, True), "updown": False},
    "time is added": {"widths": (32, 64), "attention": (False, True), "scale_shift": False},
    "neither": {"widths": (32, 64), "attention": (True, False), "updown": False, "scale_shift": False},
    "one level": {"widths": (32,), "attention": (True,), "res_blocks": 2},
    "classes, fixed variance, gray": {
        "widths": (32, 64),
        "attention": (False, True),
        "classes": 5,
        "learned_variance": False,
        "channels": 1,
    },
}


def network(state: dict[str, torch.Tensor], head_channels: int, size: int = 16) -> torch.nn.Module:
    """The converted network."""
    from diffusers import UNet2DModel

    architecture = read_architecture(state)
    built = UNet2DModel(**architecture.config(size, head_channels)).eval().requires_grad_(False)
    converted = convert(state, architecture, head_channels)
    check(converted, built.state_dict(), architecture)
    built.load_state_dict(converted)
    return built


def difference(adm: Adm, built: torch.nn.Module) -> tuple[float, float]:
    """Largest difference of outputs and their root mean square, over steps from the first to the last."""
    x = torch.randn(4, adm.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0.0, 3.0, 500.25, 999.0])
    label = None if adm.classes is None else torch.tensor([0, 4, 2, 1])
    expected = adm(x, t, label)
    found = built(x, t, label).sample
    return float((found - expected).abs().max()), float(expected.square().mean().sqrt())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_converted_network_is_the_same_function(name: str) -> None:
    adm = Adm(**CONFIGURATIONS[name])
    error, size = difference(adm, network(adm.state, adm.head_channels))
    assert size > 0.3
    assert error <= 1e-5


@pytest.mark.parametrize("name", ["as published", "two blocks, three heads"])
def test_a_three_way_split_of_the_fused_tensor_would_be_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It fits every shape; the comparison above must not let it pass."""
    monkeypatch.setattr(
        adm_convert, "split_heads", lambda fused, channels, key: fused.reshape(len(fused), -1).squeeze(-1).chunk(3)
    )
    adm = Adm(**CONFIGURATIONS[name])
    assert difference(adm, network(adm.state, adm.head_channels))[0] > 0.01


def test_heads_of_another_width_are_another_network() -> None:
    adm = Adm(**CONFIGURATIONS["as published"])
    assert difference(adm, network(adm.state, 2 * adm.head_channels))[0] > 0.01


def test_fused_rows_run_over_head_then_part_then_channel() -> None:
    rows = torch.arange(2 * 3 * 4)  # two heads of four channels
    q, k, v = split_heads(rows, 4, "bias")
    assert q.tolist() == [0, 1, 2, 3, 12, 13, 14, 15]
    assert k.tolist() == [4, 5, 6, 7, 16, 17, 18, 19]
    assert v.tolist() == [8, 9, 10, 11, 20, 21, 22, 23]
    weights = split_heads(rows[:, None, None].expand(-1, 8, 1), 4, "weight")
    assert [tuple(w.shape) for w in weights] == [(8, 8)] * 3
    assert torch.equal(weights[1][:, 0], k)


@pytest.fixture(scope="module")
def full_size() -> Adm:
    """The class-unconditional ImageNet-256 network, without memory for its weights."""
    return Adm(
        widths=(256, 256, 512, 512, 1024, 1024),
        attention=(False, False, False, True, True, True),
        res_blocks=2,
        head_channels=64,
        device="meta",
    )


def test_the_imagenet_network(full_size: Adm) -> None:
    """552 814 086 parameters is the count of the published network, and of its diffusers counterpart."""
    from diffusers import UNet2DModel

    architecture = read_architecture(full_size.state)
    assert architecture == Architecture(
        in_channels=3,
        out_channels=6,
        widths=(256, 256, 512, 512, 1024, 1024),
        res_blocks=2,
        attention=(False, False, False, True, True, True),
        scale_shift=True,
        resblock_updown=True,
        classes=None,
    )
    assert sum(value.numel() for value in full_size.state.values()) == 552_814_086
    with torch.device("meta"):
        built = UNet2DModel(**architecture.config(256, 64))
    converted = convert(full_size.state, architecture, 64)
    check(converted, built.state_dict(), architecture)
    assert sum(value.numel() for value in converted.values()) == 552_814_086
    # where DIFT and diffssl read their features: output_blocks[4], 16 x 16 x 1024
    assert dict(adm_convert._modules(architecture))["output_blocks.4.1.qkv"] == "up_blocks.1.attentions.1"


# ------------------------------------------------------------------------------------- wrong state dicts


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(Adm(**CONFIGURATIONS["as published"]).state)


def refusal(state: dict[str, torch.Tensor], head_channels: int = 8) -> str:
    with pytest.raises(ModelLoadError) as caught:
        network(state, head_channels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_kind_of_network() -> None:
    assert refusal({"conv_in.weight": torch.zeros(1)}) == (
        "not an ADM U-Net: no weight is called input_blocks.N.…; the first is conv_in.weight"
    )
    assert refusal({}).endswith("the first is None")


def test_a_block_is_missing(state: dict[str, torch.Tensor]) -> None:
    cut = {key: value for key, value in state.items() if not key.startswith("input_blocks.2.")}
    assert refusal(cut) == "not a whole ADM U-Net: input_blocks.2 has no weights, input_blocks.5 has"
    cut = {key: value for key, value in state.items() if not key.startswith("output_blocks.5.")}
    assert refusal(cut).startswith("not an ADM U-Net: 6 input_blocks, 5 output_blocks, of which [1, 3] upsample")


@pytest.mark.parametrize("key", ["out.2.weight", "input_blocks.0.0.weight", "middle_block.0.emb_layers.1.weight"])
def test_a_telling_weight_is_missing(state: dict[str, torch.Tensor], key: str) -> None:
    del state[key]
    assert refusal(state) == f"not an ADM U-Net: it has no {key}"


def test_a_telling_weight_has_another_shape(state: dict[str, torch.Tensor]) -> None:
    state["out.2.weight"] = torch.zeros(6)
    assert refusal(state) == "out.2.weight has shape (6,), expected 4 dimensions"


def test_any_weight_is_missing(state: dict[str, torch.Tensor]) -> None:
    del state["middle_block.1.norm.bias"]
    assert refusal(state).startswith(
        "no weight becomes mid_block.attentions.0.group_norm.bias (64,) of Architecture("
    )


def test_a_weight_too_many(state: dict[str, torch.Tensor]) -> None:
    state["input_blocks.1.0.h_upd.weight"] = torch.zeros(2)
    assert refusal(state).startswith("input_blocks.1.0.h_upd.weight (2,) has no place in Architecture(")


def test_attention_on_one_side_only(state: dict[str, torch.Tensor]) -> None:
    cut = {key: value for key, value in state.items() if not key.startswith("input_blocks.3.1.")}
    assert re.match(r"no weight becomes down_blocks\.1\.attentions\.0\.\S+ \(64", refusal(cut))


def test_a_misshapen_weight(state: dict[str, torch.Tensor]) -> None:
    state["time_embed.0.weight"] = torch.zeros(128, 16)  # another base width
    assert refusal(state).startswith(
        "time_embedding.linear_1.weight would be (128, 16), expected (128, 32) in Arch"
    )


def test_channels_that_are_no_whole_number_of_heads(state: dict[str, torch.Tensor]) -> None:
    assert re.match(
        r"\S+\.qkv\.\S+ \(192.*: 192 rows are not 3 times a multiple of num_head_channels=24$", refusal(state, 24)
    )
