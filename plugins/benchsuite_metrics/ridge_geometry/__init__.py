"""Ridge geometry: how a model's paths reach the ridge of its training data, align with it and slide along."""

from benchsuite_metrics.ridge_geometry.local import Frame as Frame
from benchsuite_metrics.ridge_geometry.local import frame as frame
from benchsuite_metrics.ridge_geometry.local import normal_distance as normal_distance
from benchsuite_metrics.ridge_geometry.local import project as project
from benchsuite_metrics.ridge_geometry.metric import RidgeGeometry as RidgeGeometry
from benchsuite_metrics.ridge_geometry.responsibilities import LocalStatistics as LocalStatistics
from benchsuite_metrics.ridge_geometry.responsibilities import local_statistics as local_statistics
