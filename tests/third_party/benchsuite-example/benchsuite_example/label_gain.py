"""How much of the denoising error a label takes away."""

import numpy as np

from benchsuite import Curve, Metric, NoiseSweep, NotApplicableError


class LabelGain(Metric):
    """E‖x0 - D(x)‖² - E‖x0 - D(x; label)‖², in squared data units; 0 = the label does not help."""

    name = "label-gain"
    unit = "squared data units"
    bounds = (0.0, float("inf"))
    needs = (NoiseSweep(heads=True),)
    onset = False  # it rises and falls again: there is no level at which it is reached

    def compute(self, records):
        record = records["noise_sweep"]
        if not record.meta["heads"]:
            raise NotApplicableError("the model takes no label")
        variance = np.exp(-record["log_snr"])  # errors are stored in units of the noise
        items = tuple(record["items"])
        return [
            Curve(
                factor=head,
                log_snr=record["log_snr"],
                per_item=variance * (record["error/unconditional"] - record[f"error/{head}"]),
                items=items,
                unit=self.unit,
            )
            for head in record.meta["heads"]
        ]
