"""What the three diffusers families share: opening a checkpoint and reading its network as a denoiser."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchsuite import (
    Codec,
    Dataset,
    DiffusionModel,
    ModelLoadError,
    NotApplicableError,
    UsageError,
    fingerprint_state,
)
from benchsuite_models import factor_embedding
from benchsuite_models.card import Options, conditioning, data_range, patch_size, read_card
from benchsuite_models.checkpoint import STEPS, Part, find_part, load_network, read_scheduler, resolve
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.presets import Preset
from benchsuite_models.process import DataRange, FloatArray, Process

if TYPE_CHECKING:
    import torch

#: Shipped checkpoints: reference/<data set>/<model name>.
REFERENCE = Path(__file__).parent / "reference"
DTYPES = ("float32", "float16", "bfloat16")


class DiffusersModel(DiffusionModel):
    """A UNet2DModel with its noise schedule, in any diffusers directory (root or sub-folder layout) or hub id.

    The network is called with its own input and time (`Process`), classes come from `Conditioning`; of an
    output with twice the input's channels (learned variance, arXiv:2102.09672) the first half is the prediction.

    Args:
        source: directory, preset or hub id; None opens what ships for the data set (digits if none is bound).
        revision: of a hub id; pin it, hub repositories change.
        factor: name of the factor that the network's classes stand for, if there is no benchsuite.json.
        null_class: row of the class table that means "no class".
        data_range: range of the training data as LOW..HIGH, where the family's habit does not hold.
        step: opens the diffusion network as it was after so many training steps, if its recipe kept it then.
    """

    data_habit: ClassVar[tuple[float, float]] = (-1.0, 1.0)  #: what the family's data usually span
    presets: ClassVar[Mapping[str, Preset]] = {}

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        factor: str | None = None,
        null_class: int | None = None,
        data_range: str | None = None,
        step: int | None = None,
    ) -> None:
        self.source = source
        self.step = step
        self.revision = revision
        self.options = Options(factor, null_class, data_range)
        self._dataset: Dataset | None = None
        self._told: dict[str, int] = {}
        self._root: Path | None = None

    @abstractmethod
    def read_process(self, unet: Part, path: Path, config: dict[str, Any]) -> Process:
        """The noise process that the scheduler configuration at `path` describes for the network `unet`."""

    # ------------------------------------------------------------------------------- opening

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Check from the configuration alone that the model's images are the data set's.

        Raises:
            NotApplicableError: another image size, other values of a shared factor, or no shipped checkpoint.
            ModelLoadError: another number of channels, or a source that cannot be opened.
        """
        self._dataset = dataset
        self._root = None
        mine, theirs = self._image_shape(self._unet()), tuple(dataset.shape)
        if mine[0] != theirs[0] and self.source is not None:
            raise ModelLoadError(
                f"{self._image_part().where}: in_channels={mine[0]}, but images of {dataset.name} have {theirs[0]}"
            )
        if None not in mine and mine != theirs:
            raise NotApplicableError(f"{self.name} works on images {mine}, those of {dataset.name} are {theirs}")
        sizes = {factor.name: factor.size for factor in dataset.factors}
        for factor in self._conditioning(self._unet()).factors:
            if sizes.get(factor.name, factor.size) != factor.size:
                raise NotApplicableError(
                    f"{self.name}: factor {factor.name!r} has {factor.size} values in the model and "
                    f"{sizes[factor.name]} in {dataset.name}"
                )
        self._told = constant_values(dataset)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Read weights and schedule; `dtype` float32, float16 or bfloat16 is that of the network's arithmetic.

        Raises:
            ModelLoadError: with the file and the values at fault.
            UsageError: unknown dtype or a wrong option.
        """
        if dtype not in DTYPES:
            raise UsageError(f"dtype {dtype!r} is not supported; known: {', '.join(DTYPES)}")
        unet = self._unet()
        self._conditions = self._conditioning(unet)
        self._process = self._open_process(unet)
        self._range = self._data_range()
        self._channels = self._check_channels(unet)
        self.factors = self._conditions.factors
        self.sigma_range = self._range.sigma_range(self._process)
        self.shape = self._shape(unet)
        self.training_data = read_card(self.root).get("dataset")
        network = self._open_network(unet)
        self._config = {key: value for key, value in unet.config.items() if not key.startswith("_")}
        if self._conditions.summed:
            width = 4 * int(unet.config["block_out_channels"][0])
            network.factor_embedding = factor_embedding.load(self.factors, width, self._weights_root)
        self._fold = self._patch() if self.space == "pixels" else 1
        self.network = self.place(network, device, dtype)
        self.taps = default_taps(self.network)

    def place(self, network: torch.nn.Module, device: str, dtype: str) -> torch.nn.Module:
        """Put a network where it will work."""
        import torch

        # diffusers' own `to` warns about modules to be kept in float32 even where there are none
        return torch.nn.Module.to(network, device=device, dtype=getattr(torch, dtype))

    @property
    def root(self) -> Path:
        """Directory of the checkpoint."""
        if self._root is None:
            self._root = (
                self._shipped() if self.source is None else resolve(self.source, self.revision, self.presets)
            )
        return self._root

    def _shipped(self) -> Path:
        dataset = "digits" if self._dataset is None else self._dataset.name
        folder = REFERENCE / dataset / self.name
        if not folder.is_dir():
            known = sorted(p.parent.name for p in REFERENCE.glob(f"*/{self.name}"))
            raise NotApplicableError(
                f"no {self.name} checkpoint ships for {dataset} (for {', '.join(known)}); give a directory or a "
                f"hub id: {self.name}:PATH"
            )
        return folder

    def _unet(self) -> Part:
        return find_part(self._weights_root, ("unet",), ("UNet2DModel",))

    @property
    def _weights_root(self) -> Path:
        """Directory of the diffusion network: the checkpoint's, or that of one of its snapshots."""
        if self.step is None:
            return self.root
        folder = self.root / STEPS / str(self.step)
        if not folder.is_dir():
            kept = sorted((p.name for p in (self.root / STEPS).glob("*")), key=lambda name: (len(name), name))
            raise ModelLoadError(
                f"{self.root} was not kept as it was after {self.step} training steps, "
                + (f"only after {', '.join(kept)}" if kept else "nor after any others but the last")
            )
        return folder

    def _open_process(self, unet: Part) -> Process:
        return self.read_process(unet, *read_scheduler(self.root))

    def _open_network(self, unet: Part) -> torch.nn.Module:
        return load_network(unet)

    def _conditioning(self, unet: Part) -> Conditioning:
        return conditioning(read_card(self.root), self.options, unet)

    def _data_range(self) -> DataRange:
        return data_range(read_card(self.root), self.options, self.data_habit, self.root)

    def _patch(self) -> int:
        """Side of the pixel blocks folded into channels for the network that sees the images."""
        return patch_size(read_card(self.root), self.root)

    def _check_channels(self, unet: Part) -> int:
        inputs, outputs = (int(unet.config.get(key, 3)) for key in ("in_channels", "out_channels"))
        if outputs not in (inputs, 2 * inputs):
            raise ModelLoadError(
                f"{unet.where}: out_channels={outputs} is neither in_channels={inputs} nor "
                f"twice that (learned variance)"
            )
        return inputs

    def _size(self, unet: Part) -> tuple[int | None, int | None]:
        size = unet.config.get("sample_size")
        height, width = size if isinstance(size, list) else (size, size)
        return height, width

    def _image_part(self) -> Part:
        """The network that sees the images."""
        return self._unet()

    def _image_shape(self, unet: Part) -> tuple[int | None, ...]:
        """(C, H, W) of the images, with None where the configuration does not say."""
        return unfolded(int(unet.config.get("in_channels", 3)), self._size(unet), self._patch())

    def _shape(self, unet: Part) -> tuple[int, ...]:
        """Shape of one x."""
        shape = self._image_shape(unet)
        if None in shape and self._dataset is not None:
            shape = tuple(self._dataset.shape)
        if None in shape:
            raise ModelLoadError(f"{unet.where}: no sample_size, and no data set to take it from")
        return shape  # type: ignore[return-value]

    # ------------------------------------------------------------------------------- running

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """See `DiffusionModel.denoise`; arithmetic around the network is at least float32.

        On a data set with one value of a factor, that value is what null stands for.

        Raises:
            UsageError: labels of a wrong shape or outside their range.
        """
        import torch

        network = self.network
        assert network is not None, "load() first"
        given = [self._told.get(factor.name, -1) for factor in self.factors]
        if max(given, default=-1) >= 0:
            default = torch.tensor(given, device=x.device).expand(len(x), -1)
            labels = default if labels is None else torch.where(labels.to(x.device) == -1, default, labels)
        condition = self._conditions.index(labels, len(x), x.device)
        if self._conditions.summed:
            assert condition is not None
            condition = factor_embedding.embed(network.factor_embedding, condition)
        weights = next(network.parameters()).dtype

        def forward(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            seen = torch.nn.functional.pixel_unshuffle(state.to(weights), self._fold)
            output = network(seen, time, condition).sample[:, : self._channels]
            return torch.nn.functional.pixel_shuffle(output, self._fold).to(state.dtype)

        wide = torch.promote_types(x.dtype, torch.float32)
        return self._range.denoise(self._process, forward, x.to(wide), sigma.to(wide)).to(x.dtype)

    def native_time(self, log_snr: FloatArray) -> FloatArray:
        """The scheduler's clock, clipped to its ends: t/T of a discrete table, u of a score SDE."""
        return self._range.native_time(self._process, log_snr)

    def fingerprint(self) -> str:
        """Digest of weights, noise process, data range, classes and version."""
        assert self.network is not None, "load() first"
        facts = {
            "network": json.dumps(self._config, sort_keys=True),  # norms and heads are not in the weights
            "process": self._process.describe(),
            "data_range": (self._range.low, self._range.high),
            "classes": self._conditions,
            **({"told": sorted(self._told.items())} if self._told else {}),
            "code": f"{self.name} {self.version}",
        }
        return fingerprint_state({**self.network.state_dict(), **facts})


def constant_values(dataset: Dataset) -> dict[str, int]:
    """{factor: value} of the factors of which all training items have one value, though there are others."""
    found = {}
    for factor, column in zip(dataset.factors, dataset.split("train").labels.T, strict=True):
        if factor.size > 1 and len(column) and bool((column == column[0]).all()):
            found[factor.name] = int(column[0])
    return found


def unfolded(channels: int, size: tuple[int | None, ...], patch: int) -> tuple[int | None, ...]:
    """(C, H, W) of the images that a network of `channels` and `size` sees with patch x patch blocks folded."""
    return (channels // patch**2, *(None if s is None else s * patch for s in size))


def default_taps(network: torch.nn.Module) -> tuple[str, ...]:
    """Dotted paths of the input convolution, every down block, the middle and every up block of a UNet.

    Of a transformer: every block.
    """
    if hasattr(network, "transformer_blocks"):
        return tuple(f"transformer_blocks.{i}" for i in range(len(network.transformer_blocks)))  # type: ignore[arg-type]
    paths = ["conv_in", *(f"down_blocks.{i}" for i in range(len(network.down_blocks)))]  # type: ignore[arg-type]
    if network.mid_block is not None:
        paths.append("mid_block")
    return (*paths, *(f"up_blocks.{i}" for i in range(len(network.up_blocks))))  # type: ignore[arg-type]
