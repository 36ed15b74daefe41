"""What U-turns record of hidden layers and positions: standardisation, chance level, kinds of change, streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from closed_forms import two_gaussians
from toys import DrawnData, ToyData, ToyModel, ToyReadout

from benchsuite import BenchsuiteError, DiffusionModel, Readout, Record, UTurn
from benchsuite.contracts import FloatArray
from benchsuite.own_data import ExactReadout
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.comparison import Similarities, Standards, changed, cosine, relative_distance
from benchsuite.protocols.returns import Streams
from benchsuite.protocols.settings import UTurnSettings
from benchsuite.protocols.u_turn import u_turn

SETTINGS = UTurnSettings(low=-3.0, high=5.0, every=2.0, steps_per_level=2, end=6.0, draws=2)
ALL = UTurn(features=True, positions=True)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Layered(ToyReadout):
    """Layers with a large mean, a large scale, a dead channel; rows of pixels as positions."""

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = torch.cat([images, 50 + 7 * images.flip(3), torch.full_like(images, 3.0)], dim=1)
        return {"maps": maps, "rows": images.mean(dim=3).flatten(1)}

    def positions(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0]  # (B, 4 rows, 4 columns): rows are positions, columns their embedding

    def position_distances(self) -> FloatArray:
        return np.abs(np.arange(4.0)[:, None] - np.arange(4.0))


def items_of(data: Any) -> Items:
    data.load()
    part = data.split("test")
    return Items(part.images, part.labels, part.ids, data.factors)


def run(model: DiffusionModel, items: Items, readout: Readout, batch: int = 64, **changes: Any) -> Record:
    settings = replace(SETTINGS, **{k: v for k, v in changes.items() if k != "request"})
    request = changes.get("request", ALL)
    return u_turn(
        model, items, readout, settings, seed=0, dataset="d", batch=batch, meter=Meter(), request=request
    )


def toy() -> ToyModel:
    model = ToyModel()
    model.load()
    return model


# ------------------------------------------------------------------------------------ standardisation


def test_channels_are_centred_and_scaled_over_items_and_places() -> None:
    images = items_of(ToyData()).x
    for pieces in (1, 5):
        standards = Standards.of(Layered(), images.split(len(images) // pieces))
        layer = standards.standardised(Layered(), images)["maps"].reshape(len(images), 3, 4, 4)
        own = images.double().numpy()
        expected = (own - own.mean()) / own.std()  # one channel: over items and places alike
        np.testing.assert_allclose(layer[:, 0].numpy(), expected[:, 0], atol=1e-6)
        # scale and mean of a channel make no difference, and one that never varies does not count
        np.testing.assert_allclose(layer[:, 1].flip(2).numpy(), expected[:, 0], atol=1e-4)
        assert (layer[:, 2] == 0).all()


def test_the_variance_is_centred() -> None:
    """Divided by E a² instead, a channel far from 0 would hardly count and unrelated items would look alike."""
    images = items_of(ToyData()).x
    standards = Standards.of(Layered(), [images])
    standardised = standards.standardised(Layered(), images)["maps"].reshape(len(images), 3, -1)
    np.testing.assert_allclose(standardised[:, :2].square().mean(dim=(0, 2)).numpy(), 1.0, rtol=1e-6)
    raw = Layered().features(images)["maps"].flatten(1).double()
    assert cosine(raw, raw.roll(1, 0)).mean() > 0.9
    ours = standards.standardised(Layered(), images)["maps"]
    pairs = torch.stack([cosine(ours, ours.roll(k, 0)).mean() for k in range(1, len(images))])
    assert abs(float(pairs.mean())) < 0.15  # all other items of a centred sample: about -1 / (N - 1)


def test_cosine_and_distance_of_known_vectors() -> None:
    a = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    assert cosine(a, b).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0])
    assert relative_distance(a, b).tolist() == pytest.approx([0.0, 5 / 2, 9 / 2, 0.0])


# ------------------------------------------------------------------------------------------- records


def test_arrays_of_a_record() -> None:
    items = items_of(ToyData())
    record = run(toy(), items, Layered())
    assert record.meta["layers"] == ["maps", "rows"]
    assert record.meta["positions"] == "embedding"
    for name in ("similarity/maps", "unrelated/rows", "distance/maps"):
        assert record[name].shape == (24, 5)
    assert record["changed"].shape == (24, 5, 4)
    np.testing.assert_array_equal(record["position_distances"], Layered().position_distances())
    plain = run(toy(), items, Layered(), request=UTurn())
    assert not any(name.startswith(("similarity", "changed", "position")) for name in plain.arrays)
    np.testing.assert_array_equal(plain["judged/class"], record["judged/class"])
    bare = run(toy(), items, ToyReadout())
    assert (bare.meta["layers"], bare.meta["positions"]) == ([], None)
    assert bare.arrays.keys() == plain.arrays.keys()


class Returning(ToyModel):
    """Decodes to the item itself, or to the next one, whatever the path did: what comes back is known."""

    def __init__(self, items: Items, shift: int) -> None:
        super().__init__()
        self.items, self.shift = items, shift
        self.shape = (1, 4, 4)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) <= len(self.items) and torch.isin(x.flatten(1)[:, 0], self.items.x.flatten(1)[:, 0]).all():
            return x  # clean items
        levels = len(x) // len(self.items)
        return self.items.x.roll(-self.shift, 0).repeat(levels, 1, 1, 1)


def test_what_a_copy_is_compared_with() -> None:
    items = items_of(ToyData())
    models = [Returning(items, shift) for shift in (0, 1)]
    for model in models:
        model.load()
    same, following = (run(model, items, Layered(), batch=10_000) for model in models)
    np.testing.assert_allclose(same["similarity/maps"], 1.0, atol=1e-6)
    np.testing.assert_allclose(same["distance/maps"], 0.0, atol=1e-6)
    assert (same["changed"] == 0).all()
    assert same["unrelated/maps"].mean() < 0.9
    np.testing.assert_allclose(following["unrelated/maps"], 1.0, atol=1e-6)
    gap = (items.x.roll(-1, 0) - items.x)[:, 0].double().norm(dim=2) / 2  # ‖ ‖ / √4
    np.testing.assert_allclose(following["changed"][:12, 0], gap.numpy(), rtol=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_no_batch_size_changes_a_number(batch: int) -> None:
    items = items_of(ToyData())
    record, other = run(toy(), items, Layered()), run(toy(), items, Layered(), batch=batch)
    assert record.arrays.keys() == other.arrays.keys()
    for name, array in record.arrays.items():
        assert array.dtype.kind == "U" or np.allclose(other[name], array, atol=1e-5), name


def test_one_item_has_no_level_of_chance() -> None:
    items = items_of(ToyData()).take([0])
    with pytest.raises(BenchsuiteError, match="at least 2 items"):
        run(toy(), items, Layered())
    assert run(toy(), items, Layered(), request=UTurn(positions=True))["changed"].shape == (2, 5, 4)


class Misfit(Layered):
    def position_distances(self) -> FloatArray:
        return np.zeros((3, 3))


def test_distances_must_fit_the_positions() -> None:
    with pytest.raises(BenchsuiteError, match=r"4 positions but distances \(3, 3\)"):
        run(toy(), items_of(ToyData()), Misfit())


def test_kinds_of_change() -> None:
    kind, found = changed(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 0, 3]]))
    assert (kind, found.tolist(), found.dtype) == ("token", [[0, 1, 0]], torch.uint8)
    kind, found = changed(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 4.0]]))
    assert (kind, found.tolist()) == ("field", [[-0.5, 2.0]])
    kind, found = changed(torch.zeros(1, 2, 4), torch.tensor([[[3.0, 4.0, 0, 0], [0, 0, 0, 1]]]))
    assert (kind, found.tolist()) == ("embedding", [[2.5, 0.5]])


# ------------------------------------------------------------------------------------------- streams


def test_independent_draws_are_the_even_antithetic_ones() -> None:
    """Draw j without pairs uses the streams of draw 2j with pairs; no two of them are opposite."""
    items = items_of(ToyData())

    def noise(draw: int, antithetic: bool) -> torch.Tensor:
        streams = Streams.of(0, "d", "u_turn", draw, items, [2.0], antithetic=antithetic)
        return torch.stack([streams.noised(torch.zeros_like(items.x), [2.0])[0], streams.reverse(1.0, items.x)])

    for draw in range(3):
        torch.testing.assert_close(noise(draw, False), noise(2 * draw, True))
    torch.testing.assert_close(noise(1, True), -noise(0, True))
    correlation = np.corrcoef(torch.stack([noise(d, False).flatten() for d in range(3)]).numpy())
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(noise(0, False).numel())


def test_a_record_says_whether_its_draws_are_paired() -> None:
    items = items_of(ToyData())
    assert run(toy(), items, Layered()).meta["antithetic"] is True
    assert run(toy(), items, Layered(), antithetic=False).meta["antithetic"] is False


# --------------------------------------------------------------------------------------- known answer


def test_similarity_of_a_binary_layer_is_known() -> None:
    """Two Gaussian classes, the layer being the one-hot of the class: standardised it is ±(1, -1), so that its
    mean cosine is 2 · retention - 1, and that of unrelated items 0.
    """
    from benchsuite_models.exact_mixture import ExactMixture

    model = ExactMixture([[1.3, 0.0], [-1.3, 0.0]], covariances=0.16)
    model.load()
    n = 600
    items = items_of(DrawnData(model, n))
    record = run(
        model,
        items,
        ExactReadout(model),
        batch=8192,
        low=-3.0,
        high=1.0,
        end=7.0,
        steps_per_level=8,
        request=UTurn(features=True),
    )
    for level, log_snr in enumerate(record["log_snr"]):
        retention = two_gaussians(1.3**2 / (0.16 + np.exp(-log_snr)))[1]
        values = record["similarity/class"][:, level].astype(float)
        error = values.std() / np.sqrt(n)  # two opposite draws an item: at most this
        assert values.mean() == pytest.approx(2 * retention - 1, abs=0.02 + 4 * error)
        chance = record["unrelated/class"][:, level].astype(float)
        assert chance.mean() == pytest.approx(0.0, abs=5 / np.sqrt(n))
    assert record["similarity/class"].mean(axis=0).max() > 0.5


def test_layers_of_the_record_are_those_of_the_readout_in_order() -> None:
    similarities = Similarities(Layered(), [items_of(ToyData()).x])
    assert similarities.layers == ["maps", "rows"]
