"""Every adapter on small checkpoints in the formats of the published ones, with the traps that those set.

Expected values come from the networks themselves, before they were written, and from formulas stated here.
"""

from __future__ import annotations

from pathlib import Path

import hub_formats as hub
import numpy as np
import pytest
import torch
from benchsuite_models.ddpm import DDPM
from benchsuite_models.dit import DiT
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.score_sde import ScoreSDE
from diffusers_factory import Images, edit_json

from benchsuite import DiffusionModel, ModelLoadError, NotApplicableError, UsageError

STEPS = (0, 10, 600, 990)


def column(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def normal(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn((len(STEPS), *shape), generator=torch.Generator().manual_seed(seed))


def sigmas(betas: np.ndarray) -> torch.Tensor:
    """Noise levels of STEPS in our coordinates."""
    alpha_bar = np.cumprod(1 - betas)[list(STEPS)]
    return torch.tensor(np.sqrt(1 / alpha_bar - 1), dtype=torch.float32)


LINEAR = np.linspace(1e-4, 0.02, 1000)


def noised(shape: tuple[int, ...], sigma: torch.Tensor) -> torch.Tensor:
    return normal(shape) * (1 + column(sigma))


def assert_denoises(model: DiffusionModel, x: torch.Tensor, sigma: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to float32 accuracy, which is relative to the size of x, that is to sigma."""
    scale = column(sigma.clamp_min(1))
    torch.testing.assert_close(model.denoise(x, sigma) / scale, expected / scale, rtol=5e-4, atol=5e-5)


def vp_input(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x / (1 + column(sigma) ** 2).sqrt()


# --------------------------------------------------------------------------------- google/ddpm-*


def test_ddpm(tmp_path: Path) -> None:
    network = hub.network(hub.DDPM_UNET)
    hub.write(tmp_path, hub.DDPM_UNET, network)
    hub.write_scheduler(tmp_path, hub.DDPM_SCHEDULER)
    assert any("query" in name for name in torch.load(tmp_path / "diffusion_pytorch_model.bin", weights_only=True))
    model = DDPM(str(tmp_path))
    model.load()
    sigma = sigmas(LINEAR)
    x = noised((3, 16, 16), sigma)
    # no clipping: D must be the network's posterior mean wherever it lies
    expected = x - column(sigma) * network(vp_input(x, sigma), torch.tensor(STEPS)).sample
    assert expected.abs().max() > 2
    assert_denoises(model, x, sigma, expected)


@pytest.mark.parametrize("key", ["flip_sin_to_cos", "freq_shift", "norm_eps", "downsample_padding"])
def test_what_the_configuration_says_is_read_and_not_assumed(tmp_path: Path, key: str) -> None:
    """Class defaults differ from the hub's values in all of these; a fingerprint must see them too."""
    network = hub.network(hub.DDPM_UNET)
    for name in ("as it is", "default"):
        hub.write(tmp_path / name, hub.DDPM_UNET, network)
        hub.write_scheduler(tmp_path / name, hub.DDPM_SCHEDULER)
    other = {"flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 0.1, "downsample_padding": 1}[key]
    edit_json(tmp_path / "default" / "config.json", **{key: other})
    first, second = (DDPM(str(tmp_path / name)) for name in ("as it is", "default"))
    first.load()
    second.load()
    x, sigma = noised((3, 16, 16), torch.ones(4)), torch.ones(4)
    assert (first.denoise(x, sigma) - second.denoise(x, sigma)).abs().max() > 1e-3
    assert first.fingerprint() != second.fingerprint()


# ------------------------------------------------------------------------------ google/ncsnpp-*


@pytest.fixture
def ncsnpp(tmp_path: Path) -> tuple[ScoreSDE, torch.nn.Module]:
    network = hub.network(hub.NCSNPP_UNET)
    hub.write(tmp_path, hub.NCSNPP_UNET, network)
    hub.write_scheduler(tmp_path, hub.NCSNPP_SCHEDULER)
    model = ScoreSDE(str(tmp_path))
    model.load()
    return model, network


def test_ncsnpp_takes_sigma_and_returns_the_score_of_data_in_0_1(
    ncsnpp: tuple[ScoreSDE, torch.nn.Module],
) -> None:
    """Tweedie in the network's own units: y = (x + 1) / 2 has noise s / 2, and E[y0] = y + (s / 2)² score."""
    model, network = ncsnpp
    np.testing.assert_allclose(model.sigma_range, [0.02, 696.0])
    sigma = torch.tensor([0.05, 0.7, 20.0, 500.0])
    x = noised((3, 16, 16), sigma)
    y, half = (x + 1) / 2, sigma / 2
    mean = y + column(half) ** 2 * network(y, half).sample
    assert_denoises(model, x, sigma, 2 * mean - 1)


def test_ncsnpp_divides_by_its_time(ncsnpp: tuple[ScoreSDE, torch.nn.Module]) -> None:
    """Why a step number must never reach it: 0 is not finite, and any other is silently something else."""
    network = ncsnpp[1]
    x = normal((3, 16, 16))
    assert not torch.isfinite(network(x, torch.zeros(4)).sample).all()
    assert torch.isfinite(network(x, torch.ones(4)).sample).all()


def test_taps_of_blocks_that_return_images_beside_their_hidden_state(
    ncsnpp: tuple[ScoreSDE, torch.nn.Module],
) -> None:
    """Skip blocks return (hidden, residuals, image) on the way down and (hidden, image) on the way up."""
    from benchsuite.protocols.common import Taps

    model, _ = ncsnpp
    taps = Taps(model.network, model.taps)
    with taps.recording():
        model.denoise(normal((3, 16, 16)), torch.ones(4))
    widths = {name: pooled.shape for name, pooled in taps.pooled.items()}
    assert widths["down_blocks.0"] == (4, 4 * 32)  # quadrants
    assert widths["up_blocks.1"] == (4, 4 * 32)
    assert widths["mid_block"] == (4, 4 * 64)


# ------------------------------------------------------------------------ CompVis/ldm-celebahq-256


def test_ldm_is_unscaled(tmp_path: Path) -> None:
    from diffusers import VQModel

    network, vqvae = hub.network(hub.LDM_UNET), hub.network(hub.LDM_VQVAE, seed=1)
    hub.write(tmp_path / "unet", hub.LDM_UNET, network)
    hub.write(tmp_path / "vqvae", hub.LDM_VQVAE, vqvae)
    hub.write_scheduler(tmp_path / "scheduler", hub.LDM_SCHEDULER)
    # the trap: a factor that the file never had, and that latents of this model were never multiplied by
    loaded = VQModel.from_pretrained(str(tmp_path / "vqvae"), low_cpu_mem_usage=False)
    assert loaded.config["scaling_factor"] == 0.18215
    model = LatentDiffusion(str(tmp_path))
    model.load()
    images = normal((3, 16, 16)).clamp(-1, 1)
    latents = vqvae.encode(images).latents  # before quantisation
    torch.testing.assert_close(model.encode(images), latents)
    torch.testing.assert_close(model.decode(latents), vqvae.decode(latents).sample.clamp(-1, 1))
    assert model.shape == (3, 8, 8)
    sigma = sigmas(np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)
    x = noised((3, 8, 8), sigma)
    expected = x - column(sigma) * network(vp_input(x, sigma), torch.tensor(STEPS)).sample
    assert_denoises(model, x, sigma, expected)


# ------------------------------------------------------------------------- facebook/DiT-XL-2-256


@pytest.fixture
def dit(tmp_path: Path) -> tuple[Path, torch.nn.Module, torch.nn.Module]:
    transformer, vae = hub.network(hub.DIT_TRANSFORMER), hub.network(hub.DIT_VAE, seed=1)
    hub.write(tmp_path / "transformer", hub.DIT_TRANSFORMER, transformer)
    hub.write(tmp_path / "vae", hub.DIT_VAE, vae)
    hub.write_scheduler(tmp_path / "scheduler", hub.DIT_SCHEDULER)
    return tmp_path, transformer, vae


def test_dit(dit: tuple[Path, torch.nn.Module, torch.nn.Module]) -> None:
    """The first 4 of 8 output channels; row 10, behind the classes 0 … 9, is "no class"; latents times 0.18215."""
    path, transformer, vae = dit
    model = DiT(str(path), freq_shift=1)
    model.load()
    assert (model.space, model.shape) == ("latents", (4, 8, 8))
    assert [(f.name, f.size) for f in model.factors] == [("class", 10)]
    sigma = sigmas(LINEAR)
    x = noised((4, 8, 8), sigma)
    for labels, rows in ((None, [10] * 4), (torch.tensor([[0], [9], [-1], [3]]), [0, 9, 10, 3])):
        output = transformer(vp_input(x, sigma), torch.tensor(STEPS), torch.tensor(rows)).sample
        assert output.shape[1] == 8
        scale = column(sigma.clamp_min(1))
        torch.testing.assert_close(
            model.denoise(x, sigma, labels) / scale,
            (x - column(sigma) * output[:, :4]) / scale,
            rtol=5e-4,
            atol=5e-5,
        )
    images = normal((3, 16, 16)).clamp(-1, 1)
    torch.testing.assert_close(model.encode(images), 0.18215 * vae.encode(images).latent_dist.mode())
    torch.testing.assert_close(model.decode(x[:1]), vae.decode(x[:1] / 0.18215).sample.clamp(-1, 1))
    assert model.taps == ("transformer_blocks.0", "transformer_blocks.1")


def test_dit_embeds_time_as_it_was_trained(dit: tuple[Path, torch.nn.Module, torch.nn.Module]) -> None:
    """256 numbers, (cos, sin) of t 10000^(-i / 128): diffusers has 127 there, and nothing complains."""
    path, transformer, _ = dit
    steps = torch.tensor([0.0, 10.0, 600.0, 999.0])
    exponent = -np.log(10000) * torch.arange(128) / 128
    angle = steps[:, None] * exponent.exp()[None]
    expected = torch.cat([angle.cos(), angle.sin()], dim=1)

    def embedded(network: torch.nn.Module) -> torch.Tensor:
        blocks = network.get_submodule("transformer_blocks")
        first, *others = (block.norm1.emb.time_proj(steps) for block in blocks)  # type: ignore[union-attr]
        assert all(torch.equal(first, other) for other in others)
        return first  # type: ignore[no-any-return]

    model = DiT(str(path))
    model.load()
    assert model.network is not None
    torch.testing.assert_close(embedded(model.network), expected, rtol=0, atol=1e-3)
    assert (embedded(transformer) - expected).abs().max() > 0.5
    other = DiT(str(path), freq_shift=1)
    other.load()
    assert other.fingerprint() != model.fingerprint()
    with pytest.raises(UsageError, match="freq_shift=2 is neither 0 nor 1"):
        DiT(str(path), freq_shift=2)


def test_dit_under_its_present_name(dit: tuple[Path, torch.nn.Module, torch.nn.Module]) -> None:
    from benchsuite.protocols.common import Taps

    path, transformer, _ = dit
    old = DiT(str(path))
    old.load()
    transformer.save_pretrained(path / "transformer")
    new = DiT(str(path))
    new.load()
    x, sigma = noised((4, 8, 8), torch.ones(4)), torch.ones(4)
    taps = Taps(new.network, new.taps)
    with taps.recording():
        assert torch.equal(old.denoise(x, sigma), new.denoise(x, sigma))
    assert taps.pooled["transformer_blocks.1"].shape == (4, 16)


def test_classes_of_a_dit(dit: tuple[Path, torch.nn.Module, torch.nn.Module]) -> None:
    path = dit[0]
    DiT(str(path)).bind(Images((3, 16, 16), values=10))
    with pytest.raises(NotApplicableError, match="factor 'class' has 10 values in the model and 3 in images"):
        DiT(str(path)).bind(Images((3, 16, 16)))
    DiT(str(path), factor="imagenet-class").bind(Images((3, 16, 16)))  # of another name: no contradiction


@pytest.mark.parametrize(
    "change", [{"norm_type": "layer_norm"}, {"norm_type": "ada_norm_single"}, {"num_embeds_ada_norm": None}]
)
def test_transformers_that_are_no_dit(
    dit: tuple[Path, torch.nn.Module, torch.nn.Module], change: dict[str, object]
) -> None:
    path = dit[0]
    edit_json(path / "transformer" / "config.json", **change)
    with pytest.raises(ModelLoadError, match=r"transformer/config\.json: norm_type .* is no DiT"):
        DiT(str(path)).load()


def test_a_dit_is_not_a_unet(dit: tuple[Path, torch.nn.Module, torch.nn.Module]) -> None:
    with pytest.raises(ModelLoadError, match=r"not a diffusers model directory: none of .*unet/config\.json"):
        LatentDiffusion(str(dit[0])).load()
