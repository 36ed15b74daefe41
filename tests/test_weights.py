"""Published weights, for whoever has them: ``pytest --weights DIR tests/test_weights.py``.

Golden numbers are those that Hugging Face keeps in ``scripts/generate_logits.py`` of diffusers (Apache-2.0): the
first values of the network's output on ``torch.manual_seed(0); torch.randn(1, C, S, S)`` at time 10, to 1e-3. Here
they are recovered from `denoise`, so that schedule, coordinates and data range are checked along with the weights.
Upstream computes the comparison and does not act on it, so a deviation would need a second look. Nobody has
published such numbers for ADM and DiT: these are held to invariants (`weight_checks`), and where two readings of a
file are possible the right one must denoise better.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hub_formats as hub
import numpy as np
import pytest
import torch
from benchsuite_datasets.digits import Digits
from benchsuite_models import adm_convert
from benchsuite_models.adm import ADM
from benchsuite_models.ddpm import DDPM
from benchsuite_models.diffusers_model import DiffusersModel
from benchsuite_models.dit import DiT
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.score_sde import ScoreSDE
from weight_checks import noise_left, problems, soft_image

LINEAR = np.linspace(1e-4, 0.02, 1000)
SCALED = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2

GOLDEN: dict[str, tuple[type[DiffusersModel], list[float]]] = {
    "ddpm-cifar10-32": (DDPM, [-0.7515, -1.6883, 0.2420, 0.0300, 0.6347, 1.3433, -1.1743, -3.7467]),
    "ddpm-ema-celebahq-256": (DDPM, [-1.3525, -1.9628, -0.3956, -0.6860, 1.4664, 1.0014, -0.1259, -2.7212]),
    "ddpm-ema-church-256": (DDPM, [-2.0628, -2.7667, -0.2089, -0.8263, 2.0539, 0.5992, 0.6495, -3.8336]),
    "ddpm-ema-bedroom-256": (DDPM, [-2.3639, -2.5344, 0.0054, -0.6674, 1.5990, 1.0158, 0.3124, -2.1436]),
    "ddpm-ema-cat-256": (DDPM, [-1.4574, -2.0569, -0.0473, -0.6117, 1.4018, 0.5769, 0.4129, -2.7344]),
    "ncsnpp-celebahq-256": (ScoreSDE, [0.1154, 0.1218, 0.0307, 0.0526, -0.0711, -0.0541, 0.0366, 0.2078]),
    "ldm-celebahq-256": (
        LatentDiffusion,
        [-0.6531, -0.6891, -0.3172, -0.5375, -0.9140, -0.5367, -0.1175, -0.7869],
    ),
}


@pytest.fixture
def weights(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Path of a repository or file in the directory of weights; skips if there is none."""

    def find(name: str) -> str:
        folder: Path | None = request.config.getoption("--weights")
        if folder is None:
            pytest.skip(f"needs published weights: pytest --weights DIR, with DIR/{name}")
        if not (folder / name).exists():
            pytest.skip(f"no {folder / name}")
        return str(folder / name)

    return find


@pytest.fixture(autouse=True)
def no_grad() -> object:
    with torch.no_grad():
        yield


def answer(model: DiffusersModel, step: int = 10) -> torch.Tensor:
    """The network's own output on seeded noise at time `step`, worked out from `denoise`."""
    torch.manual_seed(0)
    seen = torch.randn(1, *model.shape)
    if isinstance(model, ScoreSDE):  # time is sigma of data in [0, 1], the output the score there
        denoised = (model.denoise(2 * seen - 1, torch.tensor([2.0 * step])) + 1) / 2
        return (denoised - seen) / step**2
    alpha_bar = float(np.cumprod(1 - (SCALED if isinstance(model, LatentDiffusion) else LINEAR))[step])
    sigma = (1 / alpha_bar - 1) ** 0.5
    x = seen / alpha_bar**0.5
    return (x - model.denoise(x, torch.tensor([sigma]))) / sigma


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_outputs(weights: Callable[[str], str], name: str) -> None:
    cls, expected = GOLDEN[name]
    model = cls(weights(name))
    model.load()
    found = answer(model)[0, 0, 0, : len(expected)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*GOLDEN, "DiT-XL-2-256", "256x256_diffusion_uncond.pt"])
def test_published_weights_denoise(weights: Callable[[str], str], name: str) -> None:
    path = weights(name)
    model = ADM(path) if name.endswith(".pt") else {**GOLDEN, "DiT-XL-2-256": (DiT, [])}[name][0](path)
    model.load()
    size = 32 if "cifar10" in name else 256
    clean = model.encode(soft_image(3, size))
    assert problems(model, clean, (1.0, 3.0) if model.space == "latents" else (0.3, 1.0)) == []
    if model.space == "latents":
        assert float((model.decode(clean) - soft_image(3, size)).square().mean()) < 0.01


def test_dit_knows_its_own_frequencies(weights: Callable[[str], str]) -> None:
    """That published DiT weights are conversions with 10000^(-i / 128) is read off code; this measures it."""
    path = weights("DiT-XL-2-256")
    left = []
    for shift in (0, 1):
        model = DiT(path, freq_shift=shift)
        model.load()
        clean = model.encode(soft_image(3, 256))
        left.append(sum(noise_left(model, clean, sigma) for sigma in (0.5, 1.0, 2.0)))
    assert left[0] <= left[1]


def test_adm_attention_is_read_head_by_head(
    weights: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other reading of the fused tensor, a three-way split, fits as well and must denoise worse."""

    def left() -> float:
        model = ADM(weights("256x256_diffusion_uncond.pt"))
        model.load()
        return sum(noise_left(model, soft_image(3, 256), sigma) for sigma in (0.3, 1.0, 3.0))

    right = left()
    monkeypatch.setattr(
        adm_convert, "split_heads", lambda fused, channels, key: fused.reshape(len(fused), -1).squeeze(-1).chunk(3)
    )
    assert right < left()


# --------------------------------------------------------------- the checks, on weights that are here


def test_what_is_compared_is_the_networks_own_output(tmp_path: Path) -> None:
    """Otherwise a golden number would test the way to it."""
    for name, cls, config, scheduler in (
        ("ddpm", DDPM, hub.DDPM_UNET, hub.DDPM_SCHEDULER),
        ("ncsnpp", ScoreSDE, hub.NCSNPP_UNET, hub.NCSNPP_SCHEDULER),
        ("ldm", LatentDiffusion, hub.LDM_UNET, hub.LDM_SCHEDULER),
    ):
        network, folder = hub.network(config), tmp_path / name
        hub.write(folder / "unet", config, network)
        hub.write_scheduler(folder / "scheduler", scheduler)
        if cls is LatentDiffusion:
            hub.write(folder / "vqvae", hub.LDM_VQVAE, hub.network(hub.LDM_VQVAE))
        model = cls(str(folder))
        model.load()
        torch.manual_seed(0)
        expected = network(torch.randn(1, *model.shape), torch.tensor([10])).sample
        torch.testing.assert_close(answer(model), expected, rtol=1e-3, atol=2e-4)


def shipped(cls: type[DiffusersModel], **options: object) -> tuple[DiffusersModel, torch.Tensor]:
    data = Digits()
    data.load()
    model = cls(**options)  # type: ignore[arg-type]
    model.bind(data)
    model.load()
    return model, model.encode(data.split("test").images[:8])


@pytest.mark.parametrize("cls", [DDPM, ScoreSDE, LatentDiffusion])
def test_well_read_weights_pass(cls: type[DiffusersModel]) -> None:
    model, clean = shipped(cls)
    assert problems(model, clean, (1.0, 3.0) if model.space == "latents" else (0.3, 1.0)) == []


def test_a_wrong_data_range_is_seen() -> None:
    assert len(problems(*shipped(ScoreSDE, data_range="-1..1"))) >= 2


def test_a_wrong_scale_of_latents_is_seen() -> None:
    found = problems(*shipped(LatentDiffusion, scaling_factor=0.1), (1.0, 3.0))
    assert any("of the noise is left" in problem or "wrong noise level" in problem for problem in found)


@pytest.mark.parametrize("damage", ["time", "weights"])
def test_misread_networks_are_seen(damage: str) -> None:
    """Swapped (cos, sin), and weights in another order."""
    model, clean = shipped(DDPM)
    network = model.network
    assert network is not None
    if damage == "time":
        network.time_proj.flip_sin_to_cos = not network.time_proj.flip_sin_to_cos  # type: ignore[union-attr]
    else:
        for parameter in network.parameters():
            parameter.copy_(parameter.flip(0))
    assert problems(model, clean) != []
