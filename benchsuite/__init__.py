"""benchsuite: when and how latent abstractions emerge in diffusion models.

Everything a plugin needs is importable from here. Importing this package does not import torch.
"""

from typing import TYPE_CHECKING

from benchsuite.channels import ChannelModel as ChannelModel
from benchsuite.channels import Channels as Channels
from benchsuite.channels import NoiseChannel as NoiseChannel
from benchsuite.channels import Passage as Passage
from benchsuite.contracts import Codec as Codec
from benchsuite.contracts import Curve as Curve
from benchsuite.contracts import Dataset as Dataset
from benchsuite.contracts import DiffusionModel as DiffusionModel
from benchsuite.contracts import ExactModel as ExactModel
from benchsuite.contracts import Factor as Factor
from benchsuite.contracts import Fork as Fork
from benchsuite.contracts import LabelFilter as LabelFilter
from benchsuite.contracts import Metric as Metric
from benchsuite.contracts import NoiseSweep as NoiseSweep
from benchsuite.contracts import Population as Population
from benchsuite.contracts import Readout as Readout
from benchsuite.contracts import Recipe as Recipe
from benchsuite.contracts import Record as Record
from benchsuite.contracts import Split as Split
from benchsuite.contracts import Track as Track
from benchsuite.contracts import Trajectory as Trajectory
from benchsuite.contracts import UTurn as UTurn
from benchsuite.contracts import fingerprint_state as fingerprint_state
from benchsuite.errors import BenchsuiteError as BenchsuiteError
from benchsuite.errors import MissingDataError as MissingDataError
from benchsuite.errors import ModelLoadError as ModelLoadError
from benchsuite.errors import NotApplicableError as NotApplicableError
from benchsuite.errors import UsageError as UsageError
from benchsuite.hookspecs import hookimpl as hookimpl

if TYPE_CHECKING:
    from benchsuite.api import Report as Report
    from benchsuite.api import measure as measure

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`benchsuite.measure` and its report need torch, which is imported when they are first used."""
    if name in ("measure", "Report"):
        from benchsuite import api

        return getattr(api, name)
    raise AttributeError(f"module 'benchsuite' has no attribute {name!r}")
