"""Conformance kit for plugin authors: named checks that a healthy model, metric, data set or sampler passes.

One line in a plugin's test suite::

    from benchsuite.testing import assert_passed, check_model

    def test_my_model_conforms():
        assert_passed(check_model(MyModel(), expected_failed={"native-time": "trained without a clock"}))

or one test per check::

    @pytest.mark.parametrize("name", MODEL_CHECKS)
    def test_my_model(name):
        assert_passed(check_model(MyModel(), only=[name]))

On the command line: ``benchsuite check NAME``. What passes keeps its promises on small cases; how far a metric is
from the truth is what ``benchsuite calibrate`` measures.
"""

from benchsuite.testing.datasets import DATASET_CHECKS as DATASET_CHECKS
from benchsuite.testing.datasets import check_dataset as check_dataset
from benchsuite.testing.metrics import METRIC_CHECKS as METRIC_CHECKS
from benchsuite.testing.metrics import check_metric as check_metric
from benchsuite.testing.models import MODEL_CHECKS as MODEL_CHECKS
from benchsuite.testing.models import check_model as check_model
from benchsuite.testing.reference import ReferenceMixture as ReferenceMixture
from benchsuite.testing.results import CheckResult as CheckResult
from benchsuite.testing.results import assert_passed as assert_passed
from benchsuite.testing.samplers import SAMPLER_CHECKS as SAMPLER_CHECKS
from benchsuite.testing.samplers import check_sampler as check_sampler
