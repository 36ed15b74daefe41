"""The adm adapter: guided-diffusion files as they are, its clock, and what a wrong file gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adm_reference import Adm
from benchsuite_models.adm import ADM
from diffusers_factory import Images

from benchsuite import ModelLoadError, NotApplicableError, UsageError

#: index n of the 250 steps that guided-diffusion respaces 1000 into (it takes step round(999 n / 249)): alpha_bar,
#: log-SNR; computed apart from this code, see docs/imagenet.md
RESPACED = {
    100: (0.1920, -1.437),
    125: (0.07623, -2.495),
    150: (0.02495, -3.666),
    175: (0.006676, -5.003),
    200: (0.001459, -6.528),
}


def linear_alpha_bars() -> np.ndarray:
    return np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def cosine_alpha_bars() -> np.ndarray:
    """Nichol & Dhariwal 2021, eq. 17, with beta at most 0.999."""
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999))


def small(**changes: Any) -> Adm:
    return Adm(**{"widths": (32, 64), "attention": (False, True), **changes})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "256x256_diffusion_uncond.pt"
    torch.save(small().state, path)
    return path


def opened(path: Path, **options: Any) -> ADM:
    model = ADM(str(path), **{"size": 16, "num_head_channels": 8, **options})
    model.load()
    return model


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_it_denoises_as_its_schedule_says(file: Path, schedule: str) -> None:
    """x0 = x - sigma eps at the steps' own noise levels, eps the first half of what the network returns."""
    model, adm = opened(file, schedule=schedule), small()
    alpha_bars = linear_alpha_bars() if schedule == "linear" else cosine_alpha_bars()
    steps = np.array([0, 99, 600, 990])
    sigma = torch.tensor(np.sqrt(1 / alpha_bars[steps] - 1), dtype=torch.float32)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(3)) * (1 + sigma.view(-1, 1, 1, 1))
    state = x / (1 + sigma.view(-1, 1, 1, 1) ** 2).sqrt()
    expected = x - sigma.view(-1, 1, 1, 1) * adm(state, torch.tensor(steps))[:, :3]
    scale = sigma.clamp_min(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(model.denoise(x, sigma) / scale, expected / scale, rtol=2e-4, atol=5e-5)
    assert (model.shape, model.factors) == ((3, 16, 16), ())
    # diffusers keeps its table in float32, where 1 - alpha_bar of the first step has four digits
    np.testing.assert_allclose(model.sigma_range, np.sqrt(1 / alpha_bars[[0, -1]] - 1), rtol=5e-4)


@pytest.mark.parametrize("n", RESPACED)
def test_respaced_steps_on_our_clock(file: Path, n: int) -> None:
    alpha_bar, log_snr = RESPACED[n]
    step = round(999 * n / 249)
    assert linear_alpha_bars()[step] == pytest.approx(alpha_bar, rel=5e-4)
    assert log_snr == pytest.approx(np.log(alpha_bar / (1 - alpha_bar)), abs=1e-3)
    assert float(opened(file).native_time(np.array([log_snr]))[0]) == pytest.approx(step / 1000, abs=1e-4)


def test_the_table_in_the_documentation(file: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "imagenet.md").read_text(encoding="utf-8").replace("−", "-")
    rows = [
        [float(cell) for cell in line.strip("| \n").split("|")]
        for line in text.splitlines()
        if line[2:5].isdigit()
    ]
    assert [row[0] for row in rows] == list(RESPACED)
    model = opened(file)
    for index, step, time, alpha_bar, log_snr in rows:
        assert (alpha_bar, log_snr) == RESPACED[int(index)]
        assert step == round(999 * index / 249) == round(1000 * time)
        assert float(model.native_time(np.array([log_snr]))[0]) == pytest.approx(time, abs=1e-4)


def test_taps_are_where_published_features_are_read(file: Path) -> None:
    model = opened(file)
    assert model.taps == ("conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
    assert model.network is not None
    for path in model.taps:
        model.network.get_submodule(path)


def test_files_of_old_torch_and_half_precision(tmp_path: Path) -> None:
    adm = small()
    torch.save(adm.state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({key: value.half() for key, value in adm.state.items()}, tmp_path / "half.pt")
    x, sigma = torch.ones(1, 3, 16, 16), torch.ones(1)
    old, half = (opened(tmp_path / name).denoise(x, sigma) for name in ("old.pt", "half.pt"))
    assert 0 < float((old - half).abs().max()) < 0.01


def test_a_class_conditional_file_is_only_conditional(tmp_path: Path) -> None:
    adm = small(classes=4)
    torch.save(adm.state, tmp_path / "cond.pt")
    with pytest.raises(ModelLoadError, match=r"cond\.pt: the network has num_class_embeds=4 but nothing says"):
        opened(tmp_path / "cond.pt")
    model = opened(tmp_path / "cond.pt", factor="class")
    x, sigma = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.ones(2)
    labels = torch.tensor([[3], [0]])
    time = model._process.timestep(sigma)  # type: ignore[attr-defined]
    expected = x - adm(x / 2**0.5, time, labels[:, 0])[:, :3]
    torch.testing.assert_close(model.denoise(x, sigma, labels), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="no null row for factor 'class'"):
        model.denoise(x, sigma)


def test_fingerprint_follows_what_the_file_does_not_say(file: Path) -> None:
    digests = {
        opened(file).fingerprint(),
        opened(file, num_head_channels=16).fingerprint(),
        opened(file, schedule="cosine").fingerprint(),
    }
    assert len(digests) == 3
    assert opened(file).fingerprint() in digests


def test_what_does_not_fit_is_refused_before_the_weights_are_converted(file: Path) -> None:
    model = ADM(str(file), num_head_channels=8)
    with pytest.raises(
        NotApplicableError, match=r"adm works on images \(3, 256, 256\), those of images are \(3, 64"
    ):
        model.bind(Images((3, 64, 64)))
    with pytest.raises(ModelLoadError, match=r"uncond\.pt: in_channels=3, but images of images have 1"):
        model.bind(Images((1, 256, 256)))
    model.bind(Images((3, 256, 256)))


class Code:
    """What a pickle could carry."""


def test_wrong_files(tmp_path: Path) -> None:
    def refusal(**options: Any) -> str:
        with pytest.raises(ModelLoadError) as caught:
            opened(tmp_path / "x.pt", **options)
        text = str(caught.value)
        assert "\n" not in text
        return text

    assert refusal() == f"adm: no file '{tmp_path / 'x.pt'}'; give a guided-diffusion state dict (.pt)"
    (tmp_path / "x.pt").write_bytes(b"no archive")
    assert refusal().startswith(f"{tmp_path / 'x.pt'}: not a state dict of tensors (")
    torch.save({"model": Code()}, tmp_path / "x.pt")  # weights_only does not build it
    assert "not a state dict of tensors (Weights only load failed" in refusal()
    torch.save([torch.zeros(1)], tmp_path / "x.pt")
    assert refusal() == f"{tmp_path / 'x.pt'}: holds a list, expected a state dict"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "x.pt")
    assert refusal() == f"{tmp_path / 'x.pt'}: 'state_dict' is a dict, expected a plain state dict of tensors"
    state = small().state
    torch.save({k: v for k, v in state.items() if k != "out.2.weight"}, tmp_path / "x.pt")
    assert refusal() == f"{tmp_path / 'x.pt'}: not an ADM U-Net: it has no out.2.weight"
    torch.save(state, tmp_path / "x.pt")
    assert "192 rows are not 3 times a multiple of num_head_channels=24" in refusal(num_head_channels=24)
    state["out.2.bias"][1] = float("nan")
    torch.save(state, tmp_path / "x.pt")
    assert refusal() == f"{tmp_path / 'x.pt'}: 1 of 6 values of conv_out.bias are NaN or infinite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "sqrt"}, "schedule='sqrt' is unknown; known: linear, cosine"),
        ({"size": 0}, "size=0 must be at least 1"),
        ({"num_head_channels": -8}, "num_head_channels=-8 must be at least 1"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ADM("x.pt", **options)


def test_nothing_ships() -> None:
    with pytest.raises(
        NotApplicableError, match=r"no adm checkpoint ships; give a guided-diffusion file: adm:FILE"
    ):
        ADM().bind(Images((3, 256, 256)))
