"""What a user may say to choose a pretrained network as the judge of a data set: ``timm:NAME@WEIGHTS#LAYERS``."""

from __future__ import annotations

from dataclasses import dataclass

from benchsuite import UsageError

TIMM = "timm:"
LITE0 = "efficientnet-lite0"
HUB = "hub"


@dataclass(frozen=True)
class PretrainedChoice:
    """A network by timm's name for it, where its weights come from, and which layers are looked at."""

    model: str  #: timm's name, such as "convnext_base.fb_in1k"
    weights: str  #: a file, "hub", or "" for a network whose weights come as a package
    layers: tuple[str, ...]  #: dotted module paths, shallow to deep; empty = the stages that timm lists

    @property
    def name(self) -> str:
        """How it is called in messages and results."""
        return f"{TIMM}{self.model}" if self.weights else LITE0


def parse_choice(text: str) -> PretrainedChoice | None:
    """``timm:NAME@WEIGHTS[#LAYER+LAYER+…]`` or ``efficientnet-lite0[#…]``; None for anything else, a directory.

    Raises:
        UsageError: a timm network without a word on its weights: nothing is downloaded unasked.
    """
    text, _, layers = text.partition("#") if text.startswith((TIMM, LITE0)) else (text, "", "")
    taps = tuple(layer for layer in layers.split("+") if layer)
    if text == LITE0:
        return PretrainedChoice("tf_efficientnet_lite0", "", taps)
    if not text.startswith(TIMM):
        return None
    model, _, weights = text.removeprefix(TIMM).partition("@")
    if not model or not weights:
        raise UsageError(
            f"readout={text} must say where the weights come from: {TIMM}{model or 'NAME'}@FILE (a local "
            f".safetensors or .pth) or {TIMM}{model or 'NAME'}@{HUB} (downloads them)"
        )
    return PretrainedChoice(model, weights, taps)
