"""The suite that needs what no package may ship: what it asks for, what it plans, and that its parts fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from adm_reference import Adm
from benchsuite_datasets.image_folder import ImageFolder
from benchsuite_metrics.class_retention import ClassRetention
from benchsuite_metrics.feature_similarity import FeatureSimilarity
from benchsuite_metrics.susceptibility import Susceptibility
from benchsuite_models.adm import ADM
from benchsuite_models.empirical_bayes import EmpiricalBayes
from PIL import Image  # noqa: TID253 - a test
from rich.console import Console
from toy_runs import Counted, document, plan_of
from toys import ToyData, catalog_of, request

from benchsuite import Readout, UsageError, runner
from benchsuite.plan import make_plan
from benchsuite.progress import ConsoleReporter, bars
from benchsuite.runner import Reporter
from benchsuite.store import Store
from benchsuite.suite_files import load_suite


class Hue(Readout):
    """Judges by the channel that is brightest; shows two layers and the image's places."""

    name = "hue"

    def __init__(self) -> None:
        self.accuracy = {"class": 1.0}

    def to(self, device: str) -> Hue:
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"class": images.mean(dim=(2, 3)).mul(10).softmax(dim=1)}

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixels": images, "logits": images.mean(dim=(2, 3))}

    def positions(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, ::4, ::4].flatten(2).transpose(1, 2)  # (B, 16, 3)

    def position_distances(self) -> np.ndarray:
        place = np.stack(np.divmod(np.arange(16), 4), axis=1)
        return np.asarray(np.linalg.norm(place[:, None] - place[None], axis=2))

    def fingerprint(self) -> str:
        return "hue"


class Judged(ImageFolder):
    """An image folder whose judge needs no weights."""

    def readout(self) -> Readout:
        return Hue()


CATALOG = catalog_of(ADM, EmpiricalBayes, Judged, ClassRetention, FeatureSimilarity, Susceptibility)


@pytest.fixture
def specs(tmp_path: Path) -> dict[str, list[str]]:
    """A small ADM file and a folder of 3 classes, as the suite wants them."""
    rng = np.random.default_rng(0)
    for label in range(3):
        for i in range(5):
            pixels = rng.integers(0, 120, (16, 16, 3))
            pixels[..., label] += 100
            path = tmp_path / "images" / f"n0000000{label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    torch.save(Adm(widths=(32, 32), attention=(False, True)).state, tmp_path / "adm.pt")
    return {
        "models": [f"adm:{tmp_path / 'adm.pt'},size=16,num_head_channels=8"],
        "datasets": [f"image-folder:{tmp_path / 'images'},size=16,per_class=3"],
    }


def test_the_suite_says_what_is_left_to_the_user() -> None:
    suite = load_suite("imagenet")
    with pytest.raises(UsageError, match=r"--models; suite imagenet leaves them to you, for example adm:256x256"):
        make_plan(suite, CATALOG)
    with pytest.raises(
        UsageError, match=r"--datasets; suite imagenet leaves them to you, for example image-folder:"
    ):
        make_plan(suite.asking_for(models=["adm:x.pt"]), CATALOG)


def test_the_experiment_is_that_of_the_paper() -> None:
    settings = load_suite("imagenet").settings
    assert settings.items == 10_000
    assert (settings.u_turn.draws, settings.u_turn.antithetic) == (2, False)
    # the expected half-point, log-SNR -3.3 to -3.7, lies well inside
    assert settings.u_turn.low <= -6
    assert settings.u_turn.high >= 0


def test_only_the_model_is_run(specs: dict[str, list[str]]) -> None:
    asked = load_suite("imagenet").asking_for(**specs)
    (unit,) = make_plan(asked, CATALOG).units
    assert (unit.cls, unit.reference) == (ADM, None)
    with_oracle = replace(asked, settings=replace(asked.settings, oracle=True))
    assert len(make_plan(with_oracle, CATALOG).units) == 3


def test_its_parts_fit_together(tmp_path: Path, specs: dict[str, list[str]]) -> None:
    asked = load_suite("imagenet").asking_for(**specs)
    turns = replace(asked.settings.u_turn, low=-4.0, high=0.0, every=2.0, steps_per_level=1, end=2.0)
    settings = replace(asked.settings, items=6, block=2, bootstrap=20, u_turn=turns)
    plan = make_plan(replace(asked, settings=settings), CATALOG)
    found = document(plan, Store(tmp_path / "store"))
    rows = {row["metric"]: row for row in found["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == dict.fromkeys(rows, "ok")
    assert set(rows) == {"class-retention", "feature-similarity", "susceptibility"}
    retention = rows["class-retention"]
    # levels at log-SNR -4, -2, 0; 4 + 3 + 2 levels passed; two returns of six items
    assert retention["forward_passes"] == 2 * 6 * (4 + 3 + 2)
    assert retention["n_items"] == 6
    assert retention["curves"][0]["log_snr"] == pytest.approx([-4, -2, 0])
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    steps = np.interp([4, 2, 0], -np.log(alpha_bar / (1 - alpha_bar)), np.arange(1000))
    assert retention["curves"][0]["native_time"] == pytest.approx(steps / 1000, abs=1e-4)


# --------------------------------------------------------------------------------- what is ahead


class Told(Reporter):
    def __init__(self) -> None:
        self.told: list[tuple[str, int, float, int]] = []

    def long(self, name: str, passes: int, seconds: float, block: int) -> None:
        self.told.append((name, passes, seconds, block))

    def protocol(self, name: str, passes: int, stored: bool) -> Callable[[int], None]:
        return lambda rows: None


def test_long_protocols_are_announced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(Counted, metrics=("class-retention",))
    quiet, told, stored = Told(), Told(), Told()
    document(plan, None, quiet)
    assert quiet.told == []
    monkeypatch.setattr(runner, "MANY", 10)
    monkeypatch.setattr(runner, "LONG", 0.0)
    document(plan, Store(tmp_path), told)
    ((name, passes, seconds, block),) = told.told
    assert (name, block) == ("u_turn", plan.settings.block)
    assert passes > 10
    assert 0 < seconds / passes < 1
    document(plan, Store(tmp_path), stored)
    assert stored.told == []


def test_the_announcement() -> None:
    console = Console(record=True, width=300, file=StringIO())
    reporter = ConsoleReporter(console, bars(console))
    plan = plan_of(Counted, metrics=("class-retention",))
    reporter.start(plan.units[-1], "images")
    reporter.long("u_turn", 15_300_000, 191_250.0, 32)
    assert console.export_text().strip() == (
        "counted on images: u_turn is 15,300,000 forward passes, about 53.1 hours at 80 a second. Stop and run "
        "the same command again at any time: U-turns of 32 items at a time are kept"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("examples = 3", "examples must be a table, got 3"),
        ("[examples]\nmodel = 'x'", "key of suite .*: examples: 'model'; did you mean models"),
        ("[examples]\nmodels = ['x']", r"examples.models must be a string, got \['x'\]"),
    ],
)
def test_wrong_examples(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(str(path))


def test_data_are_still_asked_for_without_examples() -> None:
    with pytest.raises(UsageError, match=r"name one with --datasets$"):
        make_plan(request(["counted"], [], ["class-retention"]), catalog_of(Counted, ToyData, ClassRetention))
