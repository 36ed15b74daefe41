"""Opening diffusers checkpoints: where the parts lie, what their configurations say, and whole, finite weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchsuite import ModelLoadError
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models.presets import Preset

if TYPE_CHECKING:
    import torch

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")

#: In order of preference. diffusers opens ``.bin`` with ``torch.load(weights_only=True)``, so no code runs.
_WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
)

#: where the networks of a checkpoint lie; "" is its root
NETWORK_FOLDERS = ("", "unet", "transformer", "vae", "vqvae")
_NO_PRESETS: Mapping[str, Preset] = {}


#: Folder of the snapshots that a training run kept, by number of steps.
STEPS = "steps"


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint: its folder and its config.json, or the single file that is both."""

    folder: Path
    class_name: str
    config: dict[str, Any]

    @property
    def where(self) -> Path:
        """The file that says what the configuration says, for messages."""
        return self.folder if self.folder.is_file() else self.folder / "config.json"

    @property
    def weights(self) -> Path:
        """The weight file that will be read."""
        for name in _WEIGHTS:
            if (self.folder / name).is_file():
                return self.folder / name
        raise ModelLoadError(f"no weights in {self.folder}: expected {_WEIGHTS[0]} or {_WEIGHTS[2]}")


def resolve(source: str, revision: str | None = None, presets: Mapping[str, Preset] = _NO_PRESETS) -> Path:
    """Directory of `source`: a local path, else a preset or a hub id, downloaded once into the hub's own cache.

    Raises:
        ModelLoadError: no such directory, a preset without revision, or the hub does not answer.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelLoadError(f"{source} is a file; give the diffusers directory that holds it")
    if source in presets:
        preset = presets[source]
        pinned = revision or preset.revision
        if pinned is None:
            raise ModelLoadError(
                f"preset {source!r} is {preset.hub_id}, of which no revision could be confirmed: add "
                f"revision=COMMIT (the hub shows it under 'Files and versions'), or give a local directory"
            )
        return _download(preset.hub_id, pinned)
    if not _HUB_ID.fullmatch(source):
        known = f", nor one of the presets {', '.join(presets)}" if presets else ""
        raise ModelLoadError(f"no directory {source!r} (and not a hub id, which reads owner/name{known})")
    return _download(source, revision)


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        for weights in ("safetensors", "bin"):
            patterns = ["*.json", f"*diffusion_pytorch_model*.{weights}"]
            root = Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns))
            if _complete(root):
                break
    except Exception as error:  # every layer below has its own errors: HTTP, sockets, hub, offline mode
        raise ModelLoadError(
            f"cannot fetch {hub_id!r} from the hub ({type(error).__name__}: {one_line(error)}); there is no "
            "local directory of that name either. Download it elsewhere and pass the path of the directory"
        ) from error
    return root


def _complete(root: Path) -> bool:
    """Whether every network that we may open has weights: some repositories hold one of them as ``.bin`` only."""
    folders = [root / name for name in NETWORK_FOLDERS if (root / name / "config.json").is_file()]
    return all(any(folder.glob("diffusion_pytorch_model*")) for folder in folders)


def find_part(root: Path, folders: tuple[str, ...], classes: tuple[str, ...]) -> Part:
    """The network in one of the sub-`folders` of `root`, or at `root` itself, whose class is one of `classes`.

    Raises:
        ModelLoadError: none is there, or it is of another class.
    """
    tried = []
    for folder in (*(root / name for name in folders), root):
        path = folder / "config.json"
        tried.append(str(path))
        if not path.is_file():
            continue
        config = read_json(path)
        name = str(config.get("_class_name"))
        if name in classes:
            return Part(folder, name, config)
        raise ModelLoadError(f"{path} describes a {name}, expected {' or '.join(classes)}")
    raise ModelLoadError(f"{root} is not a diffusers model directory: none of {', '.join(tried)} exists")


def load_network(part: Part) -> torch.nn.Module:
    """Build the network and read its weights: on the CPU, float32, in evaluation mode.

    Raises:
        ModelLoadError: weights that are missing, of another shape, unreadable, or not finite.
    """
    ensure_torchvision_importable()
    import diffusers

    file = part.weights
    try:
        network, report = getattr(diffusers, part.class_name).from_pretrained(
            str(part.folder),
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
            use_safetensors="safetensors" in file.name,  # left to itself, diffusers complains about every .bin
        )
    except Exception as error:  # a damaged file can fail in the config, the parser or the module
        raise ModelLoadError(f"cannot read {file} as a {part.class_name}: {one_line(error)}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise ModelLoadError(f"{file} lacks {len(absent)} of the {part.class_name}'s weights, first {absent[0]}")
    require_finite(network, file)
    return network.float().eval().requires_grad_(False)  # type: ignore[no-any-return]


def require_finite(network: torch.nn.Module, file: Path) -> None:
    """Refuse weights that are not numbers.

    Raises:
        ModelLoadError: naming `file` and the first such weight.
    """
    import torch

    for name, value in network.state_dict().items():
        bad = int((~torch.isfinite(value)).sum())
        if bad:
            raise ModelLoadError(f"{file}: {bad} of {value.numel()} values of {name} are NaN or infinite")


def read_scheduler(root: Path) -> tuple[Path, dict[str, Any]]:
    """Path and content of scheduler_config.json, in ``scheduler/`` or at the root.

    Raises:
        ModelLoadError: there is none.
    """
    places = (root / "scheduler" / "scheduler_config.json", root / "scheduler_config.json")
    for path in places:
        if path.is_file():
            return path, read_json(path)
    raise ModelLoadError(
        f"no noise schedule: neither {places[0]} nor {places[1]} exists, and a network's weights do not say "
        "which noise its time steps mean"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object.

    Raises:
        ModelLoadError: it is not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {path}: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def one_line(error: Exception) -> str:
    """The beginning of an error's text, without line breaks."""
    return " ".join(str(error).split())[:300]
