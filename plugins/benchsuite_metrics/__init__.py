"""First-party metric plugins: three routes to one posterior."""

from benchsuite import Metric, hookimpl
from benchsuite_metrics.channel_susceptibility import ChannelSusceptibility
from benchsuite_metrics.class_retention import ClassRetention
from benchsuite_metrics.denoising_loss import DenoisingLoss
from benchsuite_metrics.feature_similarity import FeatureSimilarity
from benchsuite_metrics.fork_entropy import ForkEntropy
from benchsuite_metrics.level_retention import LevelRetention
from benchsuite_metrics.linear_probe import LinearProbe
from benchsuite_metrics.mutual_information import MutualInformation
from benchsuite_metrics.path_filter import PathFilter
from benchsuite_metrics.ridge_geometry.metric import RidgeGeometry
from benchsuite_metrics.sample_validity import SampleValidity
from benchsuite_metrics.susceptibility import Susceptibility


@hookimpl
def benchsuite_metrics() -> list[type[Metric]]:
    """The metrics that ship with benchsuite."""
    return [
        MutualInformation,
        ClassRetention,
        LinearProbe,
        ForkEntropy,
        PathFilter,
        Susceptibility,
        FeatureSimilarity,
        LevelRetention,
        ChannelSusceptibility,
        DenoisingLoss,
        SampleValidity,
        RidgeGeometry,
    ]
