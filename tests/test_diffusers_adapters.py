"""Every adapter on checkpoints written by diffusers, against diffusers' own formulas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchsuite_models.ddpm import DDPM
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.score_sde import ScoreSDE
from diffusers_factory import autoencoder, ddpm_scheduler, edit_json, save, unet, ve_scheduler

from benchsuite import DiffusionModel

STEPS = (0, 1, 250, 999)


def query(shape: tuple[int, ...], batch: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(seed))


def levels(scheduler: object, steps: tuple[int, ...] = STEPS) -> torch.Tensor:
    """sigma of our coordinates at training steps."""
    alpha_bar = scheduler.alphas_cumprod[list(steps)].double()  # type: ignore[attr-defined]
    return ((1 - alpha_bar) / alpha_bar).sqrt().float()


def denoised_by_scheduler(network: torch.nn.Module, scheduler: object, x: torch.Tensor) -> torch.Tensor:
    """One row per step of STEPS through DDPMScheduler.step; x is in our coordinates."""
    rows = []
    for row, t in zip(x, STEPS, strict=True):
        state = row[None] * scheduler.alphas_cumprod[t].sqrt()  # type: ignore[attr-defined]
        output = network(state, torch.tensor([t])).sample
        rows.append(scheduler.step(output, t, state).pred_original_sample)  # type: ignore[attr-defined]
    return torch.cat(rows).detach()


def assert_same(actual: torch.Tensor, expected: torch.Tensor, sigma: torch.Tensor) -> None:
    """Equal to float32 accuracy, which is relative to the size of x, that is to sigma."""
    scale = sigma.clamp_min(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(actual / scale, expected / scale, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("nested", [False, True], ids=["root", "unet/"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddpm_equals_the_scheduler(tmp_path: Path, prediction: str, nested: bool) -> None:
    network, scheduler = unet(), ddpm_scheduler(prediction)
    model = DDPM(str(save(tmp_path, network, scheduler, nested=nested)))
    model.load()
    sigma = levels(scheduler)
    x = query((1, 8, 8)) * (1 + sigma.view(-1, 1, 1, 1))
    assert_same(model.denoise(x, sigma), denoised_by_scheduler(network, scheduler, x), sigma)
    assert model.shape == (1, 8, 8)
    assert model.factors == ()
    np.testing.assert_allclose(model.sigma_range, [sigma[0], sigma[-1]], rtol=1e-6)
    assert model.taps == ("conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"trained_betas": np.linspace(1e-3, 0.1, 1000).tolist()},
    ],
    ids=["cosine", "stable-diffusion", "own betas"],
)
def test_other_noise_tables(tmp_path: Path, config: dict[str, object]) -> None:
    network, scheduler = unet(), ddpm_scheduler(**config)
    model = DDPM(str(save(tmp_path, network, scheduler)))
    model.load()
    sigma = levels(scheduler)
    x = query((1, 8, 8)) * (1 + sigma.view(-1, 1, 1, 1))
    assert_same(model.denoise(x, sigma), denoised_by_scheduler(network, scheduler, x), sigma)


def test_learned_variance_is_split_off(tmp_path: Path) -> None:
    network, scheduler = unet(out=2), ddpm_scheduler()
    model = DDPM(str(save(tmp_path, network, scheduler)))
    model.load()
    network.conv_out.weight.data = network.conv_out.weight.data[:1]  # the mean's channel alone
    network.conv_out.bias.data = network.conv_out.bias.data[:1]
    sigma = levels(scheduler)
    x = query((1, 8, 8))
    assert_same(model.denoise(x, sigma), denoised_by_scheduler(network, scheduler, x), sigma)


@pytest.mark.parametrize("nested", [False, True], ids=["root", "unet/"])
@pytest.mark.parametrize(("option", "low", "high"), [(None, 0.0, 1.0), ("-1..1", -1.0, 1.0)])
def test_score_sde_is_tweedie_in_the_networks_range(
    tmp_path: Path, nested: bool, option: str | None, low: float, high: float
) -> None:
    network = unet(3, time_embedding_type="fourier")
    model = ScoreSDE(str(save(tmp_path, network, ve_scheduler(sigma_max=50.0), nested=nested)), data_range=option)
    model.load()
    half = (high - low) / 2  # one unit of ours is `half` units of the network's
    np.testing.assert_allclose(model.sigma_range, [0.01 / half, 50.0 / half])
    sigma = torch.tensor([0.03, 0.5, 2.0, 40.0])
    x = query((3, 8, 8))
    y = (x + 1) * half + low
    with torch.no_grad():
        score = network(y, half * sigma).sample
    expected = (y + (half * sigma.view(-1, 1, 1, 1)) ** 2 * score - low) / half - 1
    assert_same(model.denoise(x, sigma), expected, sigma)


@pytest.mark.parametrize("folder", ["vae", "vqvae"])
@pytest.mark.parametrize("quantised", [False, True], ids=["kl", "vq"])
def test_latent_diffusion(tmp_path: Path, quantised: bool, folder: str) -> None:
    """A KL autoencoder's latents are scaled; a VQModel's never, whatever default its configuration carries."""
    vae = autoencoder(quantised, scaling_factor=0.25) if not quantised else autoencoder(True)
    network, scheduler = unet(2, size=4), ddpm_scheduler()
    model = LatentDiffusion(str(save(tmp_path, network, scheduler, vae=vae, vae_folder=folder)))
    model.load()
    assert (model.space, model.shape) == ("latents", (2, 4, 4))
    images = query((1, 8, 8)).clamp(-1, 1)
    with torch.no_grad():
        latents = vae.encode(images).latents if quantised else 0.25 * vae.encode(images).latent_dist.mean
        inner = latents if quantised else latents / 0.25
        decoded = vae.decode(inner).sample.clamp(-1, 1)
    torch.testing.assert_close(model.encode(images), latents)
    torch.testing.assert_close(model.decode(latents), decoded)
    sigma = levels(scheduler)
    x = query((2, 4, 4), seed=1)
    assert_same(model.denoise(x, sigma), denoised_by_scheduler(network, scheduler, x), sigma)


def test_shift_and_scale_of_latents(tmp_path: Path) -> None:
    vae = autoencoder(scaling_factor=0.25, shift_factor=0.1)
    path = str(save(tmp_path, unet(2, size=4), ddpm_scheduler(), vae=vae))
    images = query((1, 8, 8)).clamp(-1, 1)
    with torch.no_grad():
        mean = vae.encode(images).latent_dist.mean
    for scale in (None, 3.0):
        model = LatentDiffusion(path, scaling_factor=scale)
        model.load()
        expected = (mean - 0.1) * (scale or 0.25)
        torch.testing.assert_close(model.encode(images), expected)
        torch.testing.assert_close(model.decode(expected), vae.decode(mean).sample.clamp(-1, 1).detach())


MODELS: dict[str, Callable[[Path], DiffusionModel]] = {
    "ddpm": lambda p: DDPM(str(save(p, unet(), ddpm_scheduler()))),
    "score-sde": lambda p: ScoreSDE(
        str(save(p, unet(time_embedding_type="fourier"), ve_scheduler(sigma_max=50.0)))
    ),
    "latent-diffusion": lambda p: LatentDiffusion(
        str(save(p, unet(2, size=4), ddpm_scheduler(), vae=autoencoder()))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_every_model_promises(tmp_path: Path, name: str) -> None:
    model = MODELS[name](tmp_path)
    model.load()
    low, high = model.sigma_range
    sigma = torch.logspace(np.log10(low), np.log10(high), 6)
    x = query(model.shape, 6) * (1 + sigma.view(-1, 1, 1, 1))
    before = x.clone()
    denoised = model.denoise(x, sigma)
    assert torch.equal(x, before)
    assert denoised.shape == x.shape
    assert torch.isfinite(denoised).all()
    alone = torch.cat([model.denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(6)])
    assert_same(alone, denoised, sigma)
    # where there is hardly any noise there is hardly anything to remove: |D - x| = sigma |eps|
    near = model.denoise(x[:1], sigma[:1])
    assert (near - x[:1]).abs().max() < 10 * low
    wide = model.denoise(x.double(), sigma.double())
    assert wide.dtype == torch.float64
    assert_same(wide.float(), denoised, sigma)
    for path in model.taps:
        assert model.network is not None
        model.network.get_submodule(path)
    assert all(not p.requires_grad for p in model.network.parameters())  # type: ignore[union-attr]
    leaf = x[2:3].clone().requires_grad_()
    model.denoise(leaf, sigma[2:3]).sum().backward()  # Jacobians go through the adapter
    assert leaf.grad is not None
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_half_precision_keeps_the_callers_dtype(tmp_path: Path, name: str, dtype: str) -> None:
    full, half = MODELS[name](tmp_path), MODELS[name](tmp_path)
    full.load()
    half.load(dtype=dtype)
    sigma = torch.full((4,), 1.0)
    x = query(full.shape)
    denoised = half.denoise(x, sigma)
    assert denoised.dtype == torch.float32
    assert next(half.network.parameters()).dtype == getattr(torch, dtype)  # type: ignore[union-attr]
    assert 0 < (denoised - full.denoise(x, sigma)).abs().max() < 0.1
    assert half.decode(half.encode(query((1, 8, 8)))).dtype == torch.float32
    assert half.fingerprint() != full.fingerprint()


def test_pickled_weights_are_read_without_running_code(tmp_path: Path) -> None:
    safe = DDPM(str(save(tmp_path / "safe", unet(), ddpm_scheduler())))
    plain = DDPM(str(save(tmp_path / "bin", unet(), ddpm_scheduler(), safe=False)))
    safe.load()
    plain.load()
    assert (tmp_path / "bin" / "diffusion_pytorch_model.bin").is_file()
    assert safe.fingerprint() == plain.fingerprint()


def test_fingerprint_follows_everything_that_changes_the_answer(tmp_path: Path) -> None:
    def digest(name: str, seed: int = 0, prediction: str = "epsilon", beta_end: float = 0.02) -> str:
        scheduler = ddpm_scheduler(prediction, beta_end=beta_end)
        model = DDPM(str(save(tmp_path / name, unet(seed=seed), scheduler)))
        model.load()
        return model.fingerprint()

    same = digest("a")
    assert digest("b") == same
    others = {digest("c", seed=1), digest("d", prediction="sample"), digest("e", beta_end=0.03)}
    assert len(others | {same}) == 4


def test_learned_time_tables_are_asked_for_whole_steps(tmp_path: Path) -> None:
    network, scheduler = unet(time_embedding_type="learned", num_train_timesteps=1000), ddpm_scheduler()
    model = DDPM(str(save(tmp_path, network, scheduler)))
    model.load()
    sigma = levels(scheduler)
    x = query((1, 8, 8))
    assert_same(model.denoise(x, sigma), denoised_by_scheduler(network, scheduler, x), sigma)


def test_size_comes_from_the_data_set_if_the_network_does_not_say(tmp_path: Path) -> None:
    from diffusers_factory import Images

    model = DDPM(str(save(tmp_path, unet(size=None), ddpm_scheduler())))
    model.bind(Images((1, 8, 8)))
    model.load()
    assert model.shape == (1, 8, 8)
    edit_json(tmp_path / "config.json", sample_size=[8, 12])
    wide = DDPM(str(tmp_path))
    wide.load()
    assert wide.shape == (1, 8, 12)
