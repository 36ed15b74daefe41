"""Networks conditioned on a sum of factor embeddings, and on images folded into channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchsuite_models import factor_embedding
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.ddpm import DDPM
from benchsuite_models.latent_diffusion import LatentDiffusion
from diffusers_factory import autoencoder, ddpm_scheduler, edit_json, save, unet
from safetensors.torch import load_file, save_file

from benchsuite import Factor, ModelLoadError, UsageError

FACTORS = (Factor("hue", ("red", "green")), Factor("form", ("disc", "bar", "ring")))
CARD = {
    "factors": [{"name": f.name, "values": list(f.values)} for f in FACTORS],
    "patch": 2,
}
WIDTH = 32  # four times the first width of the factory's networks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folded, summed-conditional network: 4 channels of 4 x 4 stand for 1 x 8 x 8 images."""
    save(tmp_path / "model", unet(4, size=4, class_embed_type="identity"), ddpm_scheduler(), card=CARD)
    torch.manual_seed(5)
    factor_embedding.save(factor_embedding.build(FACTORS, WIDTH), FACTORS, tmp_path / "model")
    return tmp_path / "model"


def refusal(model: DDPM) -> str:
    with pytest.raises(ModelLoadError) as caught:
        model.load()
    return str(caught.value)


def test_rows_of_each_table() -> None:
    conditioning = Conditioning.with_null_last(FACTORS, summed=True)
    labels = torch.tensor([[0, 2], [-1, 1], [1, -1]])
    assert conditioning.index(labels, 3, torch.device("cpu")).tolist() == [[0, 2], [2, 1], [1, 3]]
    assert conditioning.index(None, 1, torch.device("cpu")).tolist() == [[2, 3]]
    with pytest.raises(UsageError, match="label 3 of factor 'form' is outside 0 … 2"):
        conditioning.index(torch.tensor([[0, 3]]), 1, torch.device("cpu"))
    one = Conditioning.with_null_last(FACTORS[:1], summed=True)
    assert one.index(torch.tensor([[-1], [1]]), 2, torch.device("cpu")).tolist() == [[2], [1]]


def test_the_network_is_given_the_sum_and_the_folded_image(folder: Path) -> None:
    """Against the network called by hand: blocks (i, j) of pixels become channel 2 i + j."""
    model = DDPM(str(folder))
    model.load()
    assert model.shape == (1, 8, 8)
    assert model.factors == FACTORS
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 2.0])
    tables = load_file(folder / factor_embedding.FILE)
    condition = torch.stack(
        [
            tables["hue"][1].float() + tables["form"][3].float(),
            tables["hue"][2].float() + tables["form"][0].float(),
        ]
    )
    alpha = (1 + sigma**2).rsqrt().view(-1, 1, 1, 1)
    state = (alpha * x)[:, 0]
    folded = torch.stack([state[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
    network = unet(4, size=4, class_embed_type="identity")
    with torch.no_grad():
        steps = model._process.timestep(sigma)
        output = network(folded, steps, condition).sample
        got = model.denoise(x, sigma, torch.tensor([[1, -1], [-1, 0]]))
    epsilon = torch.empty(2, 1, 8, 8)
    for channel in range(4):
        epsilon[:, 0, channel // 2 :: 2, channel % 2 :: 2] = output[:, channel]
    assert torch.allclose(got, x - sigma.view(-1, 1, 1, 1) * epsilon, atol=1e-5)


def test_the_tables_are_part_of_the_fingerprint(folder: Path) -> None:
    first, second = DDPM(str(folder)), DDPM(str(folder))
    first.load()
    tables = load_file(folder / factor_embedding.FILE)
    tables["hue"][0, 0] += 1
    save_file(tables, folder / factor_embedding.FILE)
    second.load()
    assert first.fingerprint() != second.fingerprint()


def test_missing_or_wrong_tables(folder: Path) -> None:
    path = folder / factor_embedding.FILE
    tables = load_file(path)
    save_file({"hue": tables["hue"]}, path)
    assert refusal(DDPM(str(folder))) == f"{path}: table 'form' has shape None, expected (4, 32)"
    save_file({**tables, "hue": tables["form"].clone()}, path)
    assert refusal(DDPM(str(folder))) == f"{path}: table 'hue' has shape (4, 32), expected (3, 32)"
    path.unlink()
    assert f"but {path} cannot be read" in refusal(DDPM(str(folder)))


@pytest.mark.parametrize("patch", [0, 1.5, "two"])
def test_a_patch_is_a_number_of_pixels(folder: Path, patch: object) -> None:
    edit_json(folder / "benchsuite.json", patch=patch)
    assert refusal(DDPM(str(folder))) == (
        f"{folder / 'benchsuite.json'}: patch {patch!r} is not a positive whole number"
    )


def test_an_autoencoder_may_see_folded_images(tmp_path: Path) -> None:
    card = {"patch": 2}
    save(tmp_path, unet(2, size=4), ddpm_scheduler(), vae=autoencoder(channels=4, scaling_factor=0.5), card=card)
    model = LatentDiffusion(str(tmp_path))
    model.load()
    assert model._image_shape(model._unet()) == (1, 16, 16)
    assert model.shape == (2, 4, 4)
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = model.encode(images)
        folded = torch.stack([images[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
        expected = model.autoencoder.encode(folded).latent_dist.mode() * 0.5
        assert torch.allclose(latents, expected, atol=1e-6)
        decoded = model.decode(latents)
        by_hand = model.autoencoder.decode(latents / 0.5).sample.clamp(-1, 1)
    assert decoded.shape == (3, 1, 16, 16)
    assert torch.allclose(decoded[:, 0, 1::2, 0::2], by_hand[:, 2], atol=1e-6)
