"""ADM: guided-diffusion's own checkpoint files, opened as UNet2DModels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchsuite import Codec, Dataset, ModelLoadError, NotApplicableError, UsageError
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models.adm_convert import Architecture, check, convert, read_architecture
from benchsuite_models.checkpoint import Part, one_line, require_finite
from benchsuite_models.ddpm import discrete_process
from benchsuite_models.diffusers_model import DiffusersModel
from benchsuite_models.process import VariancePreserving

if TYPE_CHECKING:
    import torch

#: guided-diffusion's noise schedules under diffusers' names; always 1000 steps
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


class ADM(DiffusersModel):
    """The U-Net of Dhariwal & Nichol 2021, from a plain ``.pt`` state dict of guided-diffusion.

    Widths, blocks, attention and resampling are read from the file. What a state dict does not say is an option;
    the defaults are those of ``256x256_diffusion_uncond.pt``, the class-unconditional ImageNet model. Class
    conditional files need ``factor=class`` and have no row for "no class", so they cannot make U-turns.

    Args:
        source: the file; it is opened without running code (``weights_only``).
        size: side of the images in pixels.
        num_head_channels: channels of one attention head.
        schedule: noise schedule, "linear" or "cosine", of 1000 steps.
        factor: see `DiffusersModel`.
        null_class: see `DiffusersModel`.
    """

    name = "adm"
    family = "ddpm"
    paper = "arXiv:2105.05233"

    def __init__(
        self,
        source: str | None = None,
        size: int = 256,
        num_head_channels: int = 64,
        schedule: str = "linear",
        factor: str | None = None,
        null_class: int | None = None,
    ) -> None:
        super().__init__(source, None, factor, null_class)
        for option, value in (("size", size), ("num_head_channels", num_head_channels)):
            if value < 1:
                raise UsageError(f"{self.name}: {option}={value} must be at least 1")
        if schedule not in SCHEDULES:
            raise UsageError(f"{self.name}: schedule={schedule!r} is unknown; known: {', '.join(SCHEDULES)}")
        self.size, self.num_head_channels, self.schedule = size, num_head_channels, schedule
        self._known: tuple[Part, Architecture] | None = None

    @property
    def root(self) -> Path:
        """The file."""
        if self.source is None:
            raise NotApplicableError(
                f"no {self.name} checkpoint ships; give a guided-diffusion file: {self.name}:FILE.pt"
            )
        path = Path(self.source).expanduser()
        if not path.is_file():
            raise ModelLoadError(f"{self.name}: no file {self.source!r}; give a guided-diffusion state dict (.pt)")
        return path

    def read_process(self, unet: Part, path: Path, config: dict[str, Any]) -> VariancePreserving:
        """See `DiffusersModel.read_process`."""
        return discrete_process(unet, path, config)

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """See `DiffusersModel.bind`."""
        self._known = None
        super().bind(dataset, codec)

    def _unet(self) -> Part:
        if self._known is None:
            with naming(self.root):
                architecture = read_architecture(read_state(self.root))
            config = architecture.config(self.size, self.num_head_channels)
            self._known = (Part(self.root, "UNet2DModel", config), architecture)
        return self._known[0]

    def _open_process(self, unet: Part) -> VariancePreserving:
        schedule = {"_class_name": "DDPMScheduler", "beta_schedule": SCHEDULES[self.schedule]}
        return self.read_process(unet, self.root, schedule)

    def _open_network(self, unet: Part) -> torch.nn.Module:
        import torch

        ensure_torchvision_importable()
        from diffusers import UNet2DModel

        assert self._known is not None
        architecture = self._known[1]
        with torch.device("meta"):  # the weights come below: none need to be drawn
            network = UNet2DModel(**unet.config)
        with naming(self.root):
            converted = convert(read_state(self.root), architecture, self.num_head_channels)
            check(converted, network.state_dict(), architecture)
        network.load_state_dict(converted, assign=True)
        require_finite(network, self.root)
        return network.eval().requires_grad_(False)  # type: ignore[no-any-return]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name in a ``.pt`` file, memory-mapped where the file allows it.

    Raises:
        ModelLoadError: not such a file.
    """
    import torch

    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be mapped
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file fails in the archive, the unpickler or torch
        raise ModelLoadError(f"{path}: not a state dict of tensors ({one_line(error)})") from error
    if not isinstance(state, dict):
        raise ModelLoadError(f"{path}: holds a {type(state).__name__}, expected a state dict")
    for key, value in state.items():
        if not (isinstance(key, str) and isinstance(value, torch.Tensor)):
            raise ModelLoadError(
                f"{path}: {key!r} is a {type(value).__name__}, expected a plain state dict of tensors"
            )
    return state


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except ModelLoadError as error:
        text = str(error)
        raise ModelLoadError(text if text.startswith(str(path)) else f"{path}: {text}") from error
