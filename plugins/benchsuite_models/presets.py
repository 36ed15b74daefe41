"""Short names of published weights: ``ddpm:cifar10-32`` instead of a hub id and a commit.

A revision is a commit hash of the hub repository. Where no public trace of one could be found it is None, and the
user is asked for it: "main" would be whatever the repository holds that day.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Published weights."""

    hub_id: str
    revision: str | None  #: commit hash; None = must be given

    def __str__(self) -> str:
        return f"{self.hub_id} at {self.revision or 'revision=…, which must be given'}"


FOR_DDPM = {
    # seen in the cache paths of two unrelated public repositories
    "cifar10-32": Preset("google/ddpm-cifar10-32", "267b167dc01f0e4e61923ea244e8b988f84deb80"),
    "celebahq-256": Preset("google/ddpm-ema-celebahq-256", None),
    "church-256": Preset("google/ddpm-ema-church-256", None),
    "bedroom-256": Preset("google/ddpm-ema-bedroom-256", None),
    "cat-256": Preset("google/ddpm-ema-cat-256", None),
}
FOR_SCORE_SDE = {"celebahq-256": Preset("google/ncsnpp-celebahq-256", None)}
FOR_LATENT_DIFFUSION = {"celebahq-256": Preset("CompVis/ldm-celebahq-256", None)}
# seen in the cache path of one public repository
FOR_DIT = {"xl-2-256": Preset("facebook/DiT-XL-2-256", "eab87f77abd5aef071a632f08807fbaab0b704d0")}
