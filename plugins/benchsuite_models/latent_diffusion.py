"""Latent diffusion: a discrete-time UNet in the latents of an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchsuite import ModelLoadError, UsageError, fingerprint_state
from benchsuite_models.checkpoint import Part, find_part, load_network
from benchsuite_models.ddpm import discrete_process
from benchsuite_models.diffusers_model import DiffusersModel, unfolded
from benchsuite_models.presets import FOR_LATENT_DIFFUSION, Preset
from benchsuite_models.process import DataRange, VariancePreserving

if TYPE_CHECKING:
    import torch


class LatentDiffusion(DiffusersModel):
    """A UNet2DModel on the scaled latents of an AutoencoderKL or VQModel (Rombach et al. 2022).

    ``x = (mode - shift) * scale`` with the autoencoder's own scaling and shift factors, so the clock is that of
    the scaled latents. Encoding is deterministic (the posterior's mode). A VQModel is used unscaled: the latent
    diffusion models with one were trained so, and the 0.18215 in their configurations is a default that came
    later; its latents are those before quantisation, and decoding quantises.

    Args:
        source: see `DiffusersModel`.
        revision: see `DiffusersModel`.
        factor: see `DiffusersModel`.
        null_class: see `DiffusersModel`.
        scaling_factor: overrides the autoencoder's scale.
        step: see `DiffusersModel`; the autoencoder is that of the finished model.
    """

    name = "latent-diffusion"
    family = "latent-diffusion"
    paper = "arXiv:2112.10752"
    space = "latents"
    presets: ClassVar[Mapping[str, Preset]] = FOR_LATENT_DIFFUSION

    def __init__(
        self,
        source: str | None = None,
        revision: str | None = None,
        factor: str | None = None,
        null_class: int | None = None,
        scaling_factor: float | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(source, revision, factor, null_class, step=step)
        if scaling_factor is not None and not 0 < scaling_factor < float("inf"):
            raise UsageError(f"scaling_factor={scaling_factor} is not a positive number")
        self.scaling_factor = scaling_factor

    def read_process(self, unet: Part, path: Path, config: dict[str, Any]) -> VariancePreserving:
        """See `DiffusersModel.read_process`."""
        return discrete_process(unet, path, config)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Read both networks, see `DiffusersModel.load`."""
        part = self._autoencoder_part()
        self._check_latent_channels(part)
        super().load(device, dtype)
        self.autoencoder: Any = self.place(load_network(part), device, dtype)
        self._image_fold = self._patch()
        self._quantised = part.class_name == "VQModel"
        scale = 1.0 if self._quantised else float(part.config.get("scaling_factor", 0.18215))
        self._scale = scale if self.scaling_factor is None else self.scaling_factor
        self._shift = 0.0 if self._quantised else float(part.config.get("shift_factor") or 0.0)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) in [-1, 1] => scaled latents (B, *shape), same dtype."""
        import torch

        folded = torch.nn.functional.pixel_unshuffle(images.to(self._weights_dtype()), self._image_fold)
        encoded = self.autoencoder.encode(folded)
        latents = encoded.latents if self._quantised else encoded.latent_dist.mode()
        return (latents.to(images.dtype) - self._shift) * self._scale  # type: ignore[no-any-return]

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, *shape) => images (B, C, H, W), same dtype, clipped to [-1, 1]."""
        latents = x / self._scale + self._shift
        import torch

        folded = self.autoencoder.decode(latents.to(self._weights_dtype())).sample
        images = torch.nn.functional.pixel_shuffle(folded, self._image_fold)
        return images.to(x.dtype).clamp(-1, 1)

    def fingerprint(self) -> str:
        """Digest of both networks and the scale of the latents."""
        facts = {"unet": super().fingerprint(), "scale": (self._scale, self._shift)}
        return fingerprint_state({**self.autoencoder.state_dict(), **facts})

    def _weights_dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.autoencoder.parameters()).dtype
        return dtype

    def _image_part(self) -> Part:
        return self._autoencoder_part()

    def _autoencoder_part(self) -> Part:
        """Never at the root: that is where the UNet may be."""
        for folder in ("vae", "vqvae"):
            if (self.root / folder).is_dir():
                return find_part(self.root / folder, (), ("AutoencoderKL", "VQModel"))
        raise ModelLoadError(f"{self.root} has no autoencoder: neither vae/ nor vqvae/ exists")

    def _check_latent_channels(self, autoencoder: Part) -> None:
        unet = self._unet()
        latent = autoencoder.config.get("vq_embed_dim") or autoencoder.config.get("latent_channels")
        if latent != unet.config.get("in_channels"):
            raise ModelLoadError(
                f"{unet.where}: in_channels={unet.config.get('in_channels')}, but "
                f"{autoencoder.where} makes latents of {latent} channels"
            )

    def _data_range(self) -> DataRange:
        """Latents are not rescaled."""
        return DataRange(-1.0, 1.0)

    def _image_shape(self, unet: Part) -> tuple[int | None, ...]:
        part = self._autoencoder_part()
        factor = self._downsampling(part)
        size = tuple(None if s is None else s * factor for s in self._size(unet))
        return unfolded(int(part.config.get("in_channels", 3)), size, self._patch())

    def _shape(self, unet: Part) -> tuple[int, ...]:
        channels, *size = super()._shape(unet)
        factor = self._downsampling(self._autoencoder_part()) * self._patch()
        return (int(unet.config.get("in_channels", channels)), *(s // factor for s in size))

    @staticmethod
    def _downsampling(autoencoder: Part) -> int:
        return int(2 ** (len(autoencoder.config.get("block_out_channels", [64])) - 1))
