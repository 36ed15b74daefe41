"""Which items are measured, which train probes, and what the data say about themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from benchsuite_metrics.linear_probe import LinearProbe
from benchsuite_models.exact_mixture import ExactMixture
from toys import SMALL, ToyData, ToyModel

from benchsuite import NoiseSweep, NotApplicableError, Record, Split, UTurn
from benchsuite.bench import Bench
from benchsuite.own_data import ExactReadout, OwnData
from benchsuite.plan import Unit
from benchsuite.request import Settings


def bench(
    split: str = "test",
    settings: Settings = SMALL,
    model: ToyModel | None = None,
    data: ToyData | None = None,
) -> Bench:
    data, model = data or ToyData(), model or ToyModel()
    data.load()
    model.load()
    unit = Unit("toy", "toy", ToyModel, ToyModel, "toy-data", split, oracle=split == "train")
    return Bench.build(model, data, unit, settings, "cpu")


def test_items_are_a_fixed_random_part_of_the_split() -> None:
    found = bench()
    assert len(found.items) == 6
    assert all(item.startswith("test/") for item in found.items.ids)
    assert found.items.ids != tuple(f"test/{i}" for i in range(6))  # not the first ones
    assert bench().items.ids == found.items.ids
    assert bench(settings=replace(SMALL, seed=1)).items.ids != found.items.ids
    # a larger limit keeps what a smaller one had
    assert bench(settings=replace(SMALL, items=9)).items.ids[:6] == found.items.ids
    assert len(bench(settings=replace(SMALL, items=500)).items) == 12


def test_images_and_labels_belong_to_their_ids() -> None:
    found = bench()
    data = ToyData()
    data.load()
    part = data.split("test")
    for row, item in enumerate(found.items.ids):
        where = part.ids.index(item)
        assert torch.equal(found.items.x[row], part.images[where])
        assert torch.equal(found.items.labels[row], part.labels[where])


def test_probes_learn_from_train_and_choose_on_val() -> None:
    found = bench()
    assert {role: len(items) for role, items in found.probe.items()} == {"train": 12, "val": 3}
    assert all(item.startswith("train/") for item in found.probe["train"].ids)
    assert all(item.startswith("val/") for item in found.probe["val"].ids)


def test_probes_do_not_learn_from_what_they_are_tested_on_where_train_is_everything() -> None:
    class Everything(ToyData):
        enumerated = True

        def split(self, name: str) -> Split:
            parts = [ToyData.split(self, part) for part in ("train", "val", "test")]
            if name != "train":
                return ToyData.split(self, name)
            ids = tuple(item for part in parts for item in part.ids)
            return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]), ids)

    data, model = Everything(), ToyModel()
    data.load()
    model.load()
    unit = Unit("toy", "toy", ToyModel, ToyModel, "toy-data", "test")
    found = Bench.build(model, data, unit, replace(SMALL, probe_items=1000), "cpu")
    assert all(item.startswith("train/") for item in found.probe["train"].ids)
    assert len(found.probe["train"]) == 24


@torch.no_grad()
def test_probes_may_be_tested_on_more_items_than_are_evaluated() -> None:
    plain, more = bench(), bench(settings=replace(SMALL, probe_tests=10))
    assert more.items.ids == plain.items.ids
    assert more.probe["test"].ids == bench(settings=replace(SMALL, items=10)).items.ids[6:]
    for tests in (0, 6):  # no fewer than are evaluated
        assert bench(settings=replace(SMALL, probe_tests=tests)).probe.keys() == plain.probe.keys()
    need = NoiseSweep(heads=True, taps=True)
    few, many = (b.run(need, lambda rows: None) for b in (plain, more))
    assert many.meta["forward_passes"] == more.count(need)
    for name in ("items", "error/unconditional", "gap/class"):
        np.testing.assert_array_equal(many[name], few[name])
    tested, before = many["tap_role"] == "test", few["tap_role"] == "test"
    assert many["tap_items"][tested].tolist() == [*plain.items.ids, *more.probe["test"].ids]
    np.testing.assert_allclose(many["tap/mid"][:, tested][:, :6], few["tap/mid"][:, before], atol=1e-6)
    np.testing.assert_allclose(many["tap/mid"][:, ~tested], few["tap/mid"][:, ~before], atol=1e-6)
    assert more.origin(need)["probe"]["test"] == list(more.probe["test"].ids)


def test_an_exact_model_on_its_own_population_needs_no_more_tests() -> None:
    class Ideal(ToyModel):
        exact = True

    assert "test" not in bench("train", replace(SMALL, oracle_items=3, probe_tests=9), Ideal()).probe
    assert "test" in bench("test", replace(SMALL, probe_tests=9), Ideal()).probe


def test_an_oracle_is_evaluated_on_its_whole_population_and_its_probe_learns_and_chooses_on_other_parts() -> None:
    found = bench("train")
    learning, choosing = set(found.probe["train"].ids), set(found.probe["val"].ids)
    assert len(found.items) == 24
    assert learning | choosing <= set(found.items.ids)
    assert (len(learning), len(choosing), len(learning & choosing)) == (12, 3, 0)
    few = bench("train", settings=replace(SMALL, oracle_items=5))
    assert few.items.ids == found.items.ids[:5]


def test_a_small_population_is_shared_between_learning_and_choosing() -> None:
    found = bench("train", settings=replace(SMALL, probe_items=1000))
    learning, choosing = set(found.probe["train"].ids), set(found.probe["val"].ids)
    assert (len(learning), len(choosing)) == (20, 4)
    assert not learning & choosing


@torch.no_grad()
def test_where_all_splits_are_the_same_items_a_probe_learns_from_them_too() -> None:
    class Points(ToyData):
        enumerated = True

        def split(self, name: str) -> Split:
            return ToyData.split(self, "train")

    found = bench(data=Points(), settings=replace(SMALL, items=30, probe_items=1000))
    learning, choosing = set(found.probe["train"].ids), set(found.probe["val"].ids)
    assert (len(learning), len(choosing), len(learning & choosing)) == (20, 4, 0)
    record = found.run(NoiseSweep(heads=True, taps=True), lambda rows: None)
    seen = {role: record["tap/input"][0, record["tap_role"] == role] for role in ("test", "train")}
    known = dict(zip(found.items.ids, seen["test"], strict=True))
    for item, x in zip(found.probe["train"].ids, seen["train"], strict=True):
        assert np.abs(known[item] - x).max() > 1e-3  # under other noise


@torch.no_grad()
@pytest.mark.parametrize("lacking", ["train", "val"])
def test_a_sweep_does_without_items_that_a_probe_lacks(lacking: str) -> None:
    found, plain = bench(), bench()
    found.probe[lacking] = found.probe[lacking].take(range(0))
    need = NoiseSweep(heads=True, taps=True)
    record, whole = found.run(need, lambda rows: None), plain.run(need, lambda rows: None)
    np.testing.assert_array_equal(record["gap/class"], whole["gap/class"])
    assert set(record["tap_role"]) == {"test", "train", "val"} - {lacking}
    meta = record.meta | {"factors": {"class": 2}, "entropy": {"class": 0.7}, "exact": False}
    with pytest.raises(NotApplicableError, match=f"no items of the role '{lacking}'"):
        LinearProbe().compute({"noise_sweep": Record("noise_sweep", record.arrays, meta)})


def test_every_model_gets_the_same_items() -> None:
    assert bench(model=ToyModel(seed=4)).items.ids == bench().items.ids


def test_encoding_is_done_once_in_batches() -> None:
    class Encoder(ToyModel):
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            assert len(images) <= SMALL.batch
            return 2 * images

    found, plain = bench(settings=replace(SMALL, batch=4), model=Encoder()), bench()
    assert torch.equal(found.items.x, 2 * plain.items.x)
    assert torch.equal(found.probe["train"].x, 2 * plain.probe["train"].x)


def test_entropy_is_that_of_the_training_labels() -> None:
    found = bench()
    assert found.entropy["class"] == pytest.approx(np.log(2))
    # the joint of all factors, with the Miller–Madow correction (values - 1) / 2 n
    assert found.entropy["joint"] == pytest.approx(np.log(2) + 1 / 48)


def test_the_joint_entropy_of_a_whole_population_is_not_an_estimate() -> None:
    class Whole(ToyData):
        enumerated = True

    assert bench(data=Whole()).entropy["joint"] == pytest.approx(np.log(2))


def test_what_can_be_asked_of_data_without_a_judge() -> None:
    found = bench()
    assert found.can(NoiseSweep())
    assert found.can(UTurn())
    found.readout = None
    assert found.can(NoiseSweep())
    assert not found.can(UTurn())


# ------------------------------------------------------------------------- an exact model's own data


def own(seed: int = 0) -> tuple[ExactMixture, OwnData]:
    model = ExactMixture([[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]], [0.5, 0.25, 0.25], 0.04)
    model.load()
    data = OwnData(model, {"train": 4000, "val": 30, "test": 20}, seed)
    data.load()
    return model, data


def test_own_data_are_fresh_draws() -> None:
    model, data = own()
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [4000, 30, 20]
    assert data.factors == model.factors
    assert data.shape == (2,)
    train, test = data.split("train"), data.split("test")
    same_size = OwnData(model, {"train": 20, "test": 20}, 0)
    same_size.load()
    assert not torch.equal(same_size.split("train").images, same_size.split("test").images)
    assert len(set(train.ids) | set(test.ids)) == 4020
    shares = torch.bincount(train.labels[:, 0]) / 4000
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=4 * np.sqrt(0.25 / 4000))
    assert torch.equal(own()[1].split("test").images, test.images)
    assert not torch.equal(own(1)[1].split("test").images, test.images)
    assert own()[1].fingerprint() == data.fingerprint() != own(1)[1].fingerprint()


def test_its_readout_is_the_models_posterior() -> None:
    model, data = own()
    readout = data.readout()
    assert isinstance(readout, ExactReadout)
    assert readout.exact
    test = data.split("test")
    p = readout.probabilities(test.images)["class"]
    np.testing.assert_allclose(p.sum(dim=1), 1, rtol=1e-6)
    assert torch.equal(p.argmax(dim=1), test.labels[:, 0])  # 10 standard deviations apart
    assert readout.fingerprint() == model.fingerprint()
    assert readout.to("cpu") is readout


def test_its_entropy_is_stated_by_the_model_not_counted() -> None:
    model, data = own()
    unit = Unit("own", "own", ExactMixture, lambda: model, "", "test", oracle=True)
    found = Bench.build(model, data, unit, SMALL, "cpu")
    assert found.exact
    assert found.entropy["class"] == pytest.approx(1.5 * np.log(2))
