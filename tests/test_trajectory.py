"""Trajectories: where paths start, what is recorded, filters, costs; populations: whose points they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_mixture import ExactMixture
from toys import SMALL, ToyData, ToyModel

from benchsuite import BenchsuiteError, DiffusionModel, NotApplicableError, Population, Record, Split, Trajectory
from benchsuite.bench import Bench
from benchsuite.contracts import Dataset
from benchsuite.own_data import OwnData
from benchsuite.plan import Unit
from benchsuite.protocols.settings import SweepSettings, TrajectorySettings
from benchsuite.request import Settings
from benchsuite.samplers import ancestral_step

PATHS = TrajectorySettings(low=-4.0, high=4.0, every=2.0, steps_per_level=2, end=5.0, paths=7)
SETTINGS = replace(SMALL, trajectory=PATHS)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def bench(model: DiffusionModel, settings: Settings = SETTINGS, dataset: Dataset | None = None) -> Bench:
    if dataset is None:
        dataset = ToyData(shift=-0.3)  # within [-1, 1]
        dataset.load()
    model.bind(dataset)
    model.load()
    unit = Unit("m", model.name, type(model), lambda: model, dataset.name, "test")
    return Bench.build(model, dataset, unit, settings, "cpu")


def run(model: DiffusionModel, settings: Settings = SETTINGS, **request: Any) -> Record:
    return bench(model, settings).run(Trajectory(**request), lambda rows: None)


def mixture(settings: Settings) -> Bench:
    model = ExactMixture([[2.0, 0.0], [-2.0, 1.0], [0.0, -3.0]], [0.5, 0.3, 0.2], 0.04)
    model.load()
    data = OwnData(model, {"train": 4000, "val": 10, "test": 20}, 0)
    data.load()
    unit = Unit("own", "own", ExactMixture, lambda: model, "", "test", oracle=True)
    return Bench.build(model, data, unit, settings, "cpu")


def test_paths_are_recorded_from_the_noisiest_level_to_their_end() -> None:
    record = run(ToyModel())
    np.testing.assert_allclose(record["log_snr"], [-4, -2, 0, 2, 4])
    assert record["x"].shape == record["denoised"].shape == (7, 5, 1, 4, 4)
    assert record["final"].shape == (7, 1, 4, 4)
    assert list(record["items"][:2]) == ["path/0000001", "path/0000002"]
    np.testing.assert_allclose(record["verdict/class"].sum(axis=1), 1)
    assert (record.meta["method"], record.meta["spacing"]) == ("ancestral", 1.0)


def test_denoised_is_what_the_model_says_of_x_and_final_is_its_last_word() -> None:
    model = ToyModel()
    record = run(model, replace(SETTINGS, trajectory=replace(PATHS, end=4.0)))
    for t, log_snr in enumerate(record["log_snr"]):
        x = torch.from_numpy(record["x"][:, t])
        np.testing.assert_allclose(
            model.denoise(x, torch.full((7,), float(np.exp(-log_snr / 2)))), record["denoised"][:, t], atol=1e-5
        )
    np.testing.assert_array_equal(record["final"], record["denoised"][:, -1])


def test_steps_are_ancestral_steps_with_fresh_noise() -> None:
    """Every step recorded, the noise solved for: standard normal, and unrelated from step to step."""
    settings = replace(PATHS, every=1.0, steps_per_level=1, paths=300)
    record = run(ToyModel(), replace(SETTINGS, trajectory=settings, batch=512))
    sigma = np.exp(-record["log_snr"] / 2)
    noise = []
    for t in range(len(sigma) - 1):
        x, denoised, after = (
            torch.from_numpy(record[k][:, i]) for k, i in (("x", t), ("denoised", t), ("x", t + 1))
        )
        still = ancestral_step(x, denoised, sigma[t], sigma[t + 1], torch.zeros_like(x))
        noise.append(
            ((after - still) / (sigma[t + 1] * np.sqrt(1 - (sigma[t + 1] / sigma[t]) ** 2))).flatten(1).numpy()
        )
    z = np.stack(noise)
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)
    neighbours = (z[1:] * z[:-1]).mean()
    assert abs(neighbours) < 5 / np.sqrt(z[1:].size)


def test_starts_have_the_moments_of_the_noised_data() -> None:
    """Also where the data are not small beside the noise."""
    settings = replace(SETTINGS, probe_items=4000, trajectory=replace(PATHS, low=-1.0, paths=4000), batch=8192)
    found = mixture(settings)
    x = found.run(Trajectory(), lambda rows: None)["x"][:, 0]
    train = found.dataset.split("train").images.numpy()
    variance = train.var(axis=0) + np.exp(1.0)
    assert (np.abs(x.mean(axis=0) - train.mean(axis=0)) < 5 * np.sqrt(variance / len(x))).all()
    assert (np.abs(x.var(axis=0) / variance - 1) < 5 * np.sqrt(2 / len(x))).all()


def test_all_training_items_count_however_few_there_are() -> None:
    """A probe of two items learns from one and chooses by the other; paths start from both."""

    class Two(ToyData):
        enumerated = True

        def load(self) -> None:
            super().load()
            part = self.splits["train"]
            both = Split(part.images[:2], part.labels[:2], part.ids[:2])
            self.splits = dict.fromkeys(("train", "val", "test"), both)

    dataset = Two()
    dataset.load()
    found = bench(ToyModel(), dataset=dataset)
    assert len(found.probe["train"]) == 1
    assert set(found.training.ids) == set(dataset.split("train").ids)
    record = found.run(Trajectory(errors=True), lambda rows: None)
    assert np.isfinite(record["x"]).all()
    assert record["mse/train"].shape == (2, 5)


@pytest.mark.parametrize("method", ["ancestral", "sde-2m", "ode-heun"])
@pytest.mark.parametrize("errors", [False, True])
def test_passes_are_counted_before_they_are_made(method: str, errors: bool) -> None:
    model = ToyModel()
    found = bench(model, replace(SETTINGS, trajectory=replace(PATHS, method=method)))
    need = Trajectory(conditional=method == "ancestral", errors=errors)
    model.rows = 0
    record = found.run(need, lambda rows: None)
    assert found.count(need) == model.rows == record.meta["forward_passes"]


def test_batches_make_no_difference() -> None:
    one, other = (run(ToyModel(), replace(SETTINGS, batch=b), conditional=True, errors=True) for b in (3, 64))
    assert one.arrays.keys() == other.arrays.keys()
    for name, array in one.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(array, other[name], atol=1e-5, err_msg=name)


def test_errors_are_those_of_a_noise_sweep() -> None:
    """The same items under the same noise: draw 0 of the sweep."""
    from benchsuite import NoiseSweep

    sweep = SweepSettings(low=-4.0, high=4.0, nodes=5, draws=2)
    found = bench(ToyModel(), replace(SETTINGS, sweep=sweep))
    paths = found.run(Trajectory(errors=True), lambda rows: None)
    swept = found.run(NoiseSweep(heads=True), lambda rows: None)
    assert list(paths["items/test"]) == list(found.items.ids) == list(swept["items"][: len(found.items)])
    np.testing.assert_allclose(paths["mse/test"], swept["error/unconditional"][: len(found.items)], rtol=1e-4)
    assert set(paths["items/train"]) <= set(found.dataset.split("train").ids)
    assert paths["mse/train"].shape == (len(found.items), 5)


def test_filters_end_at_the_posterior() -> None:
    """Exact heads: the filter along a path is the posterior given x, up to the size of the steps."""
    apart = []
    for steps in (2, 12):
        paths = TrajectorySettings(low=-8.0, high=3.0, end=4.0, steps_per_level=steps, paths=120)
        record = mixture(replace(SETTINGS, trajectory=paths, batch=4096)).run(
            Trajectory(conditional=True), lambda rows: None
        )
        np.testing.assert_allclose(record["filter/class"].sum(axis=2), 1, rtol=1e-5)
        apart.append(np.abs(record["filter/class"] - record["posterior/class"]).sum(axis=2).mean() / 2)
    assert apart[1] < 0.02
    assert apart[1] < 0.6 * apart[0]


def test_filters_need_gaussian_steps() -> None:
    with pytest.raises(BenchsuiteError, match=r"a filter needs trajectory\.method=ancestral.*it is 'sde-2m'"):
        run(ToyModel(), replace(SETTINGS, trajectory=replace(PATHS, method="sde-2m")), conditional=True)


def test_a_range_without_two_levels_is_refused() -> None:
    with pytest.raises(
        BenchsuiteError, match=r"only one recorded level in \[-4\.0, 4\.0\] lies in the model's range"
    ):
        run(ToyModel(sigma_max=0.2))


# ---------------------------------------------------------------------------------- populations


class Trained(ToyModel):
    """One that says what it was trained on."""

    training_data = "toy-data"


def test_training_images_of_a_model_that_names_its_data_set() -> None:
    found = bench(Trained())
    record = found.run(Population(), lambda rows: None)
    train = found.dataset.split("train")
    np.testing.assert_array_equal(record["x"], train.images.numpy())
    np.testing.assert_array_equal(record["labels/class"], train.labels[:, 0].numpy())
    assert list(record["ids"]) == list(train.ids)
    assert found.count(Population()) == record.meta["forward_passes"] == 0


def test_options_of_the_data_set_do_not_make_it_another() -> None:
    """A recipe may add a factor or leave items out; what counts is what it is measured on."""
    model = type("Optioned", (ToyModel,), {"training_data": "toy-data:dummy_factor=2"})()
    assert bench(model).run(Population(), lambda rows: None)["x"].shape == (24, 1, 4, 4)


def test_the_ideal_denoiser_holds_its_population() -> None:
    record = bench(EmpiricalBayes()).run(Population(), lambda rows: None)
    assert record["x"].shape == (24, 1, 4, 4)


def test_latent_models_have_their_images_encoded() -> None:
    class Latent(Trained):
        space = "latents"

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return 3 * images

    found = bench(Latent())
    np.testing.assert_allclose(
        found.run(Population(), lambda rows: None)["x"], 3 * found.dataset.split("train").images, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_data": None}, "training data of toy are unknown: let its training_data .* say 'toy-data'"),
        ({"training_data": "mnist"}, "toy was trained on 'mnist', not on 'toy-data'"),
    ],
)
def test_unknown_training_data_are_not_guessed(changes: dict[str, Any], message: str) -> None:
    model = type("Changed", (ToyModel,), changes)()
    with pytest.raises(NotApplicableError, match=message):
        bench(model).run(Population(), lambda rows: None)


def test_a_distribution_is_no_set_of_points() -> None:
    with pytest.raises(NotApplicableError, match="exact-mixture is a distribution, not a finite set"):
        mixture(SETTINGS).run(Population(), lambda rows: None)


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda x: x[..., :2], r"training items \(1, 4, 2\) of toy do not have \(1, 4, 4\)"),
        (lambda x: x / 0, "not finite"),
    ],
)
def test_impossible_training_items_are_refused(encode: Any, message: str) -> None:
    class Latent(Trained):
        space = "latents"

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return encode(images) if len(images) > 12 else images  # the population, not the items

    with pytest.raises(BenchsuiteError, match=message):
        bench(Latent(), replace(SETTINGS, batch=1024)).run(Population(), lambda rows: None)


def test_images_in_another_range_are_refused() -> None:
    dataset = ToyData(shift=3.0)
    dataset.load()
    with pytest.raises(BenchsuiteError, match=r"training images must lie in \[-1, 1\], found .* to"):
        bench(Trained(), dataset=dataset).run(Population(), lambda rows: None)


def test_a_population_is_stored_once_for_all_models_of_its_images() -> None:
    """And never found by a model that does not say it was trained on them."""
    first, second = (bench(Trained(seed=s)).origin(Population()) for s in (0, 1))
    assert first == second
    assert bench(ToyModel()).origin(Population()) != first
    oracle = bench(EmpiricalBayes()).origin(Population())
    assert oracle != first
    assert oracle["model"] is not None
