"""What a plugin promises and what the engine gives it. This package imports nothing of ours but errors.

Coordinates everywhere: variance-exploding, ``x = x0 + sigma * noise`` with pixels in [-1, 1] (or a latent
model's scaled latents), and ``log_snr = -2 ln sigma`` as the one clock. Native time (``t/T``) is a view.
"""

from __future__ import annotations

from benchsuite.contracts.data import Dataset as Dataset
from benchsuite.contracts.data import Factor as Factor
from benchsuite.contracts.data import FloatArray as FloatArray
from benchsuite.contracts.data import Readout as Readout
from benchsuite.contracts.data import Split as Split
from benchsuite.contracts.metrics import Curve as Curve
from benchsuite.contracts.metrics import Metric as Metric
from benchsuite.contracts.models import Codec as Codec
from benchsuite.contracts.models import DiffusionModel as DiffusionModel
from benchsuite.contracts.models import ExactModel as ExactModel
from benchsuite.contracts.models import fingerprint_state as fingerprint_state
from benchsuite.contracts.recipes import Recipe as Recipe
from benchsuite.contracts.recipes import Track as Track
from benchsuite.contracts.records import Fork as Fork
from benchsuite.contracts.records import LabelFilter as LabelFilter
from benchsuite.contracts.records import NoiseSweep as NoiseSweep
from benchsuite.contracts.records import Population as Population
from benchsuite.contracts.records import ProtocolOptions as ProtocolOptions
from benchsuite.contracts.records import Record as Record
from benchsuite.contracts.records import Trajectory as Trajectory
from benchsuite.contracts.records import UTurn as UTurn
