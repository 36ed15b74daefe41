"""What a wrong checkpoint gets: one line with the file and the values at fault."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from benchsuite_models.ddpm import DDPM
from benchsuite_models.diffusers_model import DiffusersModel
from benchsuite_models.dit import DiT
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.score_sde import ScoreSDE
from diffusers_factory import Images, autoencoder, ddpm_scheduler, edit_json, save, unet, ve_scheduler
from safetensors.torch import load_file, save_file

from benchsuite import DiffusionModel, ModelLoadError, NotApplicableError, UsageError
from benchsuite.describe import describe
from benchsuite.discovery import Catalog

WEIGHTS = "diffusion_pytorch_model.safetensors"


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def refusal(model: DiffusionModel) -> str:
    with pytest.raises(ModelLoadError) as caught:
        model.load()
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model", unet(), ddpm_scheduler())


def test_no_such_directory(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    assert refusal(DDPM(missing)) == (
        f"no directory {missing!r} (and not a hub id, which reads owner/name, nor one of the presets cifar10-32, "
        "celebahq-256, church-256, bedroom-256, cat-256)"
    )


def test_a_file_is_not_a_directory(folder: Path) -> None:
    assert "is a file; give the diffusers directory that holds it" in refusal(DDPM(str(folder / WEIGHTS)))


def test_not_a_diffusers_directory(tmp_path: Path) -> None:
    text = refusal(DDPM(str(tmp_path)))
    assert text.startswith(f"{tmp_path} is not a diffusers model directory: none of ")
    assert f"{tmp_path / 'unet' / 'config.json'}" in text


def test_another_network_class(folder: Path) -> None:
    edit_json(folder / "config.json", _class_name="DiTTransformer2DModel")
    expected = f"{folder / 'config.json'} describes a DiTTransformer2DModel, expected UNet2DModel"
    assert refusal(DDPM(str(folder))) == expected


def test_damaged_configuration(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert refusal(DDPM(str(folder))).startswith(f"cannot read {folder / 'config.json'}: ")
    (folder / "config.json").write_text("[]")
    assert refusal(DDPM(str(folder))) == f"{folder / 'config.json'} holds a list, expected a JSON object"


def test_no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert refusal(DDPM(str(folder))) == (
        f"no weights in {folder}: expected {WEIGHTS} or diffusion_pytorch_model.bin"
    )


def test_damaged_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"not tensors")
    assert refusal(DDPM(str(folder))).startswith(f"cannot read {folder / WEIGHTS} as a UNet2DModel: ")


def test_missing_weights_are_not_replaced_by_random_ones(folder: Path) -> None:
    edit_weights(folder, lambda state: state.pop("conv_out.bias"))
    assert refusal(DDPM(str(folder))) == (
        f"{folder / WEIGHTS} lacks 1 of the UNet2DModel's weights, first conv_out.bias"
    )


def test_weights_of_another_shape(folder: Path) -> None:
    edit_json(folder / "config.json", in_channels=3, out_channels=3)
    text = refusal(DDPM(str(folder)))
    assert text.startswith(f"cannot read {folder / WEIGHTS} as a UNet2DModel: ")
    assert "conv_in.weight" in text or "conv_out" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder: Path, value: float) -> None:
    edit_weights(folder, lambda state: state["conv_in.weight"].view(-1)[:3].fill_(value))
    assert refusal(DDPM(str(folder))) == (
        f"{folder / WEIGHTS}: 3 of 72 values of conv_in.weight are NaN or infinite"
    )


def test_output_channels_without_a_meaning(tmp_path: Path) -> None:
    folder = save(tmp_path, unet(2, out=3), ddpm_scheduler())
    assert "out_channels=3 is neither in_channels=2 nor twice that" in refusal(DDPM(str(folder)))


def test_no_schedule(folder: Path) -> None:
    (folder / "scheduler_config.json").unlink()
    text = refusal(DDPM(str(folder)))
    assert text.startswith(f"no noise schedule: neither {folder / 'scheduler' / 'scheduler_config.json'} nor ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "FlowMatchEulerDiscreteScheduler has no known mapping",
        ),
        ({"_class_name": "ScoreSdeVeScheduler"}, "no known mapping to a discrete noise table; try score-sde"),
        ({"prediction_type": "flow"}, "prediction_type 'flow' has no known mapping; known: epsilon, v_prediction"),
        ({"beta_schedule": "spiral"}, "DDPMScheduler refuses its configuration: spiral is not implemented"),
        ({"beta_start": -0.5}, "cumulative alphas must decrease within (0, 1)"),
    ],
)
def test_schedules_without_a_known_mapping(folder: Path, change: dict[str, object], message: str) -> None:
    edit_json(folder / "scheduler_config.json", **change)
    text = refusal(DDPM(str(folder)))
    assert text.startswith(str(folder / "scheduler_config.json"))
    assert message in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "DDPMScheduler"}, "DDPMScheduler has no known mapping to a score; expected ScoreSdeVe"),
        ({"sigma_min": 3.0, "sigma_max": 2.0}, "needs 0 < sigma_min < sigma_max, got 3.0 and 2.0"),
        ({"sigma_max": None}, "scheduler_config.json: "),
    ],
)
def test_score_schedules(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = save(tmp_path, unet(time_embedding_type="fourier"), ve_scheduler())
    edit_json(folder / "scheduler_config.json", **change)
    assert message in refusal(ScoreSDE(str(folder)))


def test_a_network_of_sigma_is_no_ddpm(tmp_path: Path) -> None:
    folder = save(tmp_path, unet(time_embedding_type="fourier"), ddpm_scheduler())
    assert "time_embedding_type 'fourier' takes sigma, not a step" in refusal(DDPM(str(folder)))


def test_class_embeddings_that_are_no_table(tmp_path: Path) -> None:
    folder = save(tmp_path, unet(class_embed_type="timestep"), ddpm_scheduler())
    assert "class_embed_type 'timestep' is not a table of classes" in refusal(DDPM(str(folder)))


def test_latent_models_need_a_fitting_autoencoder(tmp_path: Path, folder: Path) -> None:
    assert refusal(LatentDiffusion(str(folder))) == (
        f"{folder} has no autoencoder: neither vae/ nor vqvae/ exists"
    )
    other = save(tmp_path / "latent", unet(3, size=4), ddpm_scheduler(), vae=autoencoder(latents=2))
    text = refusal(LatentDiffusion(str(other)))
    assert re.search(r"unet/config\.json: in_channels=3, but .*vae/config\.json makes latents of 2 channels", text)
    with pytest.raises(UsageError, match=r"scaling_factor=-1\.0 is not a positive number"):
        LatentDiffusion(str(other), scaling_factor=-1.0)


def test_dtype(folder: Path) -> None:
    with pytest.raises(UsageError, match="dtype 'int8' is not supported; known: float32, float16, bfloat16"):
        DDPM(str(folder)).load(dtype="int8")


def test_size_that_nobody_states(tmp_path: Path) -> None:
    folder = save(tmp_path, unet(size=None), ddpm_scheduler())
    assert "no sample_size, and no data set to take it from" in refusal(DDPM(str(folder)))


def test_images_of_another_shape(folder: Path) -> None:
    DDPM(str(folder)).bind(Images((1, 8, 8)))
    with pytest.raises(ModelLoadError, match=r"model/config\.json: in_channels=1, but images of images have 3"):
        DDPM(str(folder)).bind(Images((3, 8, 8)))
    with pytest.raises(
        NotApplicableError, match=r"works on images \(1, 8, 8\), those of images are \(1, 16, 16\)"
    ):
        DDPM(str(folder)).bind(Images((1, 16, 16)))


def test_images_of_a_latent_model_are_the_autoencoders(tmp_path: Path) -> None:
    path = str(save(tmp_path, unet(2, size=4), ddpm_scheduler(), vae=autoencoder()))
    LatentDiffusion(path).bind(Images((1, 8, 8)))
    with pytest.raises(NotApplicableError, match=r"works on images \(1, 8, 8\), those of images are \(1, 4, 4\)"):
        LatentDiffusion(path).bind(Images((1, 4, 4)))


def test_nothing_ships_for_an_unknown_data_set() -> None:
    with pytest.raises(NotApplicableError, match=r"no ddpm checkpoint ships for images \(for .*digits.*ddpm:PATH"):
        DDPM().bind(Images())


def test_the_hub_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    assert refusal(DDPM("someone/some-model")) == (
        "cannot fetch 'someone/some-model' from the hub (ConnectionError: no route to host); there is no local "
        "directory of that name either. Download it elsewhere and pass the path of the directory"
    )


class Hub:
    """Stands in for the hub: copies what the patterns ask for, and remembers what was asked."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self.asked: list[tuple[str, str | None, str]] = []

    def __call__(self, hub_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((hub_id, revision, allow_patterns[-1].rsplit(".")[-1]))
        for file in self.repository.rglob("*"):
            path = file.relative_to(self.repository)
            if file.is_file() and any(fnmatch(str(path), pattern) for pattern in allow_patterns):
                (self.cache / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.cache / path)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path / "repository", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", found)
    return found


@pytest.mark.parametrize("safe", [True, False])
def test_a_hub_model_is_fetched_at_its_revision(hub: Hub, safe: bool) -> None:
    save(hub.repository, unet(), ddpm_scheduler(), safe=safe)
    DDPM("someone/some-model", revision="abc").load()
    kinds = ["safetensors"] if safe else ["safetensors", "bin"]  # pickles only where there is nothing else
    assert hub.asked == [("someone/some-model", "abc", kind) for kind in kinds]


def test_one_network_of_a_repository_may_be_a_pickle(hub: Hub) -> None:
    save(hub.repository, unet(2, size=4), ddpm_scheduler(), vae=autoencoder(), safe=False)
    LatentDiffusion("someone/some-model", revision="abc").load()
    assert [kind for _, _, kind in hub.asked] == ["safetensors", "bin"]
    assert sorted(path.name for path in hub.cache.rglob("diffusion_pytorch_model*")) == [
        "diffusion_pytorch_model.bin",
        "diffusion_pytorch_model.safetensors",
    ]


def test_a_preset_is_its_hub_id_at_its_revision(hub: Hub) -> None:
    save(hub.repository, unet(), ddpm_scheduler())
    DDPM("cifar10-32").load()
    DDPM("cifar10-32", revision="mine").load()
    pinned = "267b167dc01f0e4e61923ea244e8b988f84deb80"
    assert hub.asked == [("google/ddpm-cifar10-32", r, "safetensors") for r in (pinned, "mine")]


def test_a_preset_without_a_confirmed_revision_asks_for_one(hub: Hub) -> None:
    save(hub.repository, unet(), ddpm_scheduler())
    assert refusal(DDPM("church-256")) == (
        "preset 'church-256' is google/ddpm-ema-church-256, of which no revision could be confirmed: add "
        "revision=COMMIT (the hub shows it under 'Files and versions'), or give a local directory"
    )
    assert hub.asked == []
    DDPM("church-256", revision="mine").load()
    assert hub.asked == [("google/ddpm-ema-church-256", "mine", "safetensors")]


def test_a_directory_wins_over_a_preset(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "cifar10-32", unet(), ddpm_scheduler())
    monkeypatch.chdir(tmp_path)
    DDPM("cifar10-32").load()
    assert hub.asked == []


@pytest.mark.parametrize("cls", [DDPM, ScoreSDE, LatentDiffusion, DiT])
def test_revisions_are_commits(cls: type[DiffusersModel]) -> None:
    assert cls.presets
    for name, preset in cls.presets.items():
        assert "/" in preset.hub_id
        assert "/" not in name
        assert preset.revision is None or re.fullmatch("[0-9a-f]{40}", preset.revision)


def test_info_shows_presets(first_party: Catalog) -> None:
    text = describe("ddpm", first_party)
    assert "  cifar10-32: google/ddpm-cifar10-32 at 267b167dc01f0e4e61923ea244e8b988f84deb80\n" in text
    assert "  cat-256: google/ddpm-ema-cat-256 at revision=…, which must be given" in text
    assert "presets" not in describe("empirical-bayes", first_party)
