"""From factor labels to rows of a class table, and what benchsuite.json and options say about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.ddpm import DDPM
from diffusers_factory import Images, ddpm_scheduler, save, unet

from benchsuite import Factor, ModelLoadError, NotApplicableError, Split, UsageError

THREE = {"factors": [{"name": "class", "values": ["a", "b", "c"]}]}


def rows(conditioning: Conditioning, *labels: tuple[int, ...]) -> list[int]:
    index = conditioning.index(torch.tensor(labels), len(labels), torch.device("cpu"))
    assert index is not None
    return index.tolist()


def model(folder: Path, card: dict[str, Any] | None, embeddings: int | None = 4, **options: Any) -> DDPM:
    network = unet(num_class_embeds=embeddings)
    made = DDPM(str(save(folder, network, ddpm_scheduler(), card=card)), **options)
    made.load()
    return made


def test_null_may_be_any_row() -> None:
    factor = Factor("class", ("a", "b", "c"))
    labels = ((0,), (1,), (2,), (-1,))
    assert rows(Conditioning.with_null_last((factor,)), *labels) == [0, 1, 2, 3]
    assert rows(Conditioning((factor,), null=0), *labels) == [1, 2, 3, 0]
    assert rows(Conditioning((factor,), null=1), *labels) == [0, 2, 3, 1]


def test_several_factors_share_one_table() -> None:
    both = Conditioning.with_null_last((Factor("hue", ("r", "g")), Factor("shape", ("o", "v", "x"))))
    assert both.rows == 3 * 4
    every = [(h, s) for h in (0, 1, -1) for s in (0, 1, 2, -1)]
    assert rows(both, *every) == list(range(12))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[3]], r"label 3 of factor 'class' is outside 0 … 2 \(-1 = null\)"),
        ([[-2]], r"label -2 of factor 'class' is outside 0 … 2"),
        ([[0, 1]], r"shape \(1, 2\), expected \(1, 1\): one column for each of class"),
    ],
)
def test_impossible_labels(labels: list[list[int]], message: str) -> None:
    conditioning = Conditioning.with_null_last((Factor("class", ("a", "b", "c")),))
    with pytest.raises(UsageError, match=message):
        conditioning.index(torch.tensor(labels), 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("card", "options"),
    [
        (THREE, {}),
        ({**THREE, "null_class": 3}, {}),
        (None, {"factor": "class", "null_class": 3}),
        ({**THREE, "null_class": 0}, {"factor": "class", "null_class": 3}),  # the option wins
    ],
)
def test_labels_reach_the_network(tmp_path: Path, card: dict[str, Any] | None, options: dict[str, Any]) -> None:
    ddpm = model(tmp_path, card, **options)
    assert [(f.name, f.size) for f in ddpm.factors] == [("class", 3)]
    x, sigma = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.full((4,), 1.0)
    conditional = ddpm.denoise(x, sigma, torch.tensor([[0], [1], [2], [-1]]))
    state, t = x / 2**0.5, ddpm._process.timestep(sigma)  # type: ignore[attr-defined]
    assert ddpm.network is not None
    expected = x - ddpm.network(state, t, torch.tensor([0, 1, 2, 3])).sample
    torch.testing.assert_close(conditional, expected)
    torch.testing.assert_close(ddpm.denoise(x, sigma)[3], conditional[3])
    assert not torch.allclose(ddpm.denoise(x, sigma)[0], conditional[0])


def test_an_unconditional_model_refuses_labels(tmp_path: Path) -> None:
    ddpm = model(tmp_path, None, embeddings=None)
    x, sigma = torch.zeros(1, 1, 8, 8), torch.ones(1)
    assert ddpm.denoise(x, sigma, torch.zeros(1, 0, dtype=torch.int64)).shape == x.shape
    with pytest.raises(UsageError, match=r"labels of shape \(1, 1\) given to an unconditional model"):
        ddpm.denoise(x, sigma, torch.zeros(1, 1, dtype=torch.int64))


def test_a_model_without_null_row_is_only_conditional(tmp_path: Path) -> None:
    ddpm = model(tmp_path, None, factor="class")
    assert ddpm.factors[0].size == 4
    x, sigma = torch.zeros(1, 1, 8, 8), torch.ones(1)
    assert ddpm.denoise(x, sigma, torch.tensor([[3]])).shape == x.shape
    with pytest.raises(UsageError, match="no null row for factor 'class', so it cannot be run unconditionally"):
        ddpm.denoise(x, sigma)


@pytest.mark.parametrize(
    ("card", "options", "message"),
    [
        (None, {}, r"config\.json: the network has num_class_embeds=4 but nothing says .*null_class=3"),
        ({"factors": [{"name": "class", "values": ["a"]}]}, {}, r"num_class_embeds=4 does not fit class \(1\): 2"),
        ({**THREE, "null_class": None}, {}, r"does not fit class \(3\): 3 rows expected"),
        ({**THREE, "null_class": 9}, {}, "null_class 9 is not a row 0 … 3 or null"),
        ({"factors": ["class"]}, {}, "factors must be a list of {name, values}, got"),
        ({**THREE, "data_range": [1, 0]}, {}, r"benchsuite\.json: data_range \[1, 0\] is not \[LOW, HIGH\]"),
        (None, {"factor": "class", "null_class": 4}, "null_class=4 is not a row of the 4 class embeddings"),
    ],
)
def test_contradictions(
    tmp_path: Path, card: dict[str, Any] | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message) as caught:
        model(tmp_path, card, **options)
    assert "\n" not in str(caught.value)


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="null_class=3 needs factor=NAME"):
        model(tmp_path, None, null_class=3)
    with pytest.raises(UsageError, match=r"data_range='0,1' is not LOW\.\.HIGH"):
        model(tmp_path, THREE, data_range="0,1")
    with pytest.raises(ModelLoadError, match="factor=class given, but the network has no class embeddings"):
        model(tmp_path / "plain", None, embeddings=None, factor="class")


def test_data_range_of_the_card_is_used(tmp_path: Path) -> None:
    ddpm = model(tmp_path, {**THREE, "data_range": [0, 1]})
    plain = model(tmp_path / "plain", THREE)
    assert ddpm.sigma_range == tuple(2 * s for s in plain.sigma_range)


def test_the_data_sets_factor_must_have_the_same_values(tmp_path: Path) -> None:
    ddpm = model(tmp_path, THREE)
    ddpm.bind(Images(values=3))
    with pytest.raises(NotApplicableError, match="factor 'class' has 3 values in the model and 5 in images"):
        ddpm.bind(Images(values=5))


class OneClass(Images):
    """Items of class 2 alone."""

    def split(self, name: str) -> Split:
        part = super().split(name)
        return replace(part, labels=torch.full_like(part.labels, 2))


def test_null_stands_for_the_only_value_that_the_data_have(tmp_path: Path) -> None:
    """On data of one class the unconditional denoiser of a conditional network is that class's own."""
    network = unet(num_class_embeds=4)
    folder = str(save(tmp_path, network, ddpm_scheduler(), card=THREE))
    models = {}
    for data in (Images(), OneClass()):
        models[type(data)] = DDPM(folder)
        models[type(data)].bind(data)
        models[type(data)].load()
    free, told = models[Images], models[OneClass]
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 1.0, 5.0])
    twos, ones = torch.full((3, 1), 2), torch.full((3, 1), 1)
    with torch.no_grad():
        torch.testing.assert_close(told.denoise(x, sigma), free.denoise(x, sigma, twos))
        torch.testing.assert_close(told.denoise(x, sigma, -torch.ones(3, 1).long()), free.denoise(x, sigma, twos))
        torch.testing.assert_close(told.denoise(x, sigma, ones), free.denoise(x, sigma, ones))
        assert not torch.allclose(free.denoise(x, sigma), free.denoise(x, sigma, twos))
    assert told.fingerprint() != free.fingerprint()
