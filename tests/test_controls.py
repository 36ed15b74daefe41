"""Controls: what is measured where there is nothing to find, and where there is no hierarchy to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.digits import Digits
from benchsuite_models.exact_mixture import ExactMixture

from benchsuite import Split, measure
from benchsuite.api import Report, carry_out
from benchsuite.discovery import Catalog
from benchsuite.plan import make_plan
from benchsuite.protocols.settings import FilterSettings, SweepSettings
from benchsuite.request import Request, Settings

SETTINGS = Settings(
    items=50,
    probe_items=300,
    bootstrap=50,
    sweep=SweepSettings(low=-6.0, high=6.0, nodes=17, draws=2, tap_stride=4),
    label_filter=FilterSettings(low=-6.0, high=6.0, nodes=17, steps_per_level=3),
)


class FewDigits(Digits):
    """The first 300 training digits (balanced), and all others."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        return Split(part.images[:300], part.labels[:300], part.ids[:300])


class Shuffled(FewDigits):
    """Their labels dealt out at random in every split; shapes, counts and images as before."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        order = np.random.default_rng(len(part)).permutation(len(part))
        return replace(part, labels=part.labels[torch.from_numpy(order)])

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} shuffled"


def on_digits(catalog: Catalog, metrics: tuple[str, ...], dataset: Callable[[], Digits]) -> Report:
    """The ideal denoiser of the training digits, on them (split "train") and on held-out ones ("test")."""
    plan = make_plan(Request(("empirical-bayes",), ("digits",), metrics, SETTINGS), catalog)
    plan = replace(plan, datasets={"digits": dataset})
    return Report(carry_out(plan, catalog, "cpu", None)[0])


@pytest.fixture(scope="module")
def with_dummy(first_party: Catalog) -> Report:
    """Digits that carry a dummy factor of four values, hashed from the item's id."""
    return on_digits(first_party, ("mutual-information", "linear-probe"), lambda: FewDigits(dummy_factor=4))


def flags(report: Report, metric: str, factor: str, split: str) -> list[str]:
    found = [r for r in report.rows if (r["metric"], r["factor"], r["split"]) == (metric, factor, split)]
    return list(found[0]["flags"])


def test_held_out_images_tell_nothing_about_a_dummy_factor(with_dummy: Report) -> None:
    """The published form finds nothing. The plug-in form takes the disagreement of two heads for knowledge."""
    published = with_dummy.curve("mutual-information", "dummy", split="test")
    assert published.value.max() < 0.05
    assert published.low.max() <= 0.0
    assert published.log_snr_50 is None
    plug_in = with_dummy.curve("mutual-information", "dummy", "plug-in", split="test")
    assert plug_in.value[-1] > 10 * np.log(4)
    assert any("plug-in: exceeds H" in flag for flag in flags(with_dummy, "mutual-information", "dummy", "test"))
    assert any("information cannot" in flag for flag in flags(with_dummy, "mutual-information", "dummy", "test"))


def test_a_probe_of_held_out_images_is_at_chance_on_a_dummy_factor(with_dummy: Report) -> None:
    probe = with_dummy.curve("linear-probe", "dummy", split="test")
    assert probe.value.max() < 0.03
    accuracy = with_dummy.curve("linear-probe", "dummy", "accuracy", split="test")
    assert np.abs(accuracy.value - 0.25).max() < 3.5 * np.sqrt(0.25 * 0.75 / SETTINGS.items)
    known = with_dummy.curve("linear-probe", "class", "accuracy", split="test")
    assert known.value[-1] > 0.9  # the same probe on the same activations


def test_a_finite_population_is_memorised_down_to_its_dummy_factor(with_dummy: Report) -> None:
    """On its own images the ideal of a finite set knows which image it sees, hence also a coin tossed for it.

    That comes after the class: the onset of the dummy marks where single images are told apart, beyond which the
    population's curves are about this finite set and not about digits.
    """
    coin, digit = (with_dummy.curve("mutual-information", f, split="train") for f in ("dummy", "class"))
    assert coin.value[-1] == pytest.approx(np.log(4), abs=0.2)
    assert coin.log_snr_50 is not None
    assert digit.log_snr_50 is not None
    assert coin.log_snr_50 > digit.log_snr_50 + 0.5


def test_shuffled_labels_leave_the_probe_at_chance(first_party: Catalog) -> None:
    report = on_digits(first_party, ("linear-probe",), Shuffled)
    assert report.curve("linear-probe", "class", split="test").value.max() < 0.05
    accuracy = report.curve("linear-probe", "class", "accuracy", split="test")
    assert (accuracy.value < 0.1 + 3.5 * np.sqrt(0.1 * 0.9 / SETTINGS.items)).all()


def onsets(means: Any, factors: dict[str, Any]) -> dict[str, float]:
    model = ExactMixture(means, covariances=0.25**2, factors=factors)
    settings = replace(
        SETTINGS,
        sweep=SweepSettings(low=-8.0, high=6.0, nodes=29, draws=2),
        label_filter=FilterSettings(low=-8.0, high=6.0, nodes=57),
    )
    report = measure(model, metrics=["mutual-information"], n=150, settings=settings, device="cpu")
    found = {name: report.curve("mutual-information", name).log_snr_50 for name in factors}
    assert all(value is not None for value in found.values())
    return {name: float(value) for name, value in found.items() if value is not None}


def test_a_flat_mixture_has_no_level_that_comes_first() -> None:
    """Any grouping of a flat mixture's classes emerges with them; that of a hierarchy emerges long before.

    With distances D between groups and d within them, the two levels are about 2 ln(D / d) apart.
    """
    rng = np.random.default_rng(3)
    classes = np.arange(16)
    levels = {"group": classes // 4, "class": classes}
    directions = rng.standard_normal((16, 32))
    flat = onsets(directions, levels)
    assert abs(flat["group"] - flat["class"]) < 0.6
    ratio = 8.0
    nested = onsets(
        directions + ratio * np.repeat(rng.standard_normal((4, 32)), 4, axis=0), {**levels, "member": classes % 4}
    )
    assert nested["member"] - nested["group"] == pytest.approx(2 * np.log(ratio), abs=1.0)


def test_the_flat_preset_states_one_factor() -> None:
    assert [factor.name for factor in ExactMixture(preset="flat").factors] == ["class"]
    assert [factor.name for factor in ExactMixture(preset="hierarchy").factors] == ["coarse", "fine"]
