"""Probes over layers: which layers there are, levels of one's own, the published protocol, stratified subsets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_metrics import linear_probe, logistic
from benchsuite_metrics.linear_probe import PAPER_A_LEVELS, LinearProbe, probes
from benchsuite_metrics.stratified import stratified
from numpy.typing import NDArray
from toys import ToyData, ToyModel

from benchsuite import Curve, NoiseSweep, NotApplicableError, Record
from benchsuite.errors import UsageError
from benchsuite.protocols.common import Items, Meter, every_layer
from benchsuite.protocols.noise_sweep import count_passes, noise_sweep, tapped_levels
from benchsuite.protocols.settings import SweepSettings
from benchsuite.torchvision_compat import ensure_torchvision_importable

Array = NDArray[np.float64]
SETTINGS = SweepSettings(low=-2.0, high=3.0, nodes=6, draws=2, tap_stride=2)


# ---------------------------------------------------------------------------------------------- layers


def test_the_published_network_has_162_layers() -> None:
    """146 convolutions and 16 attention projections in 65 574 549 parameters; 51 linear layers embed the time."""
    ensure_torchvision_importable()
    from diffusers import UNet2DModel

    down, up = "SkipDownBlock2D", "SkipUpBlock2D"
    with torch.device("meta"):
        network = UNet2DModel(
            sample_size=64,
            block_out_channels=[128, 128, 256, 256, 256, 256, 256],
            down_block_types=[down] * 4 + ["AttnSkipDownBlock2D"] + [down] * 2,
            up_block_types=[up] * 2 + ["AttnSkipUpBlock2D"] + [up] * 4,
            layers_per_block=2,
            mid_block_scale_factor=2**0.5,
            norm_num_groups=None,
            time_embedding_type="fourier",
        )
    assert sum(p.numel() for p in network.parameters()) == 65_574_549
    layers = every_layer(network)
    kinds = [type(network.get_submodule(path)).__name__ for path in layers]
    # diffusers has a linear layer of its own in some versions
    assert (len(layers), sum("Conv" in kind for kind in kinds)) == (162, 146)
    assert all(".to_" in path for path, kind in zip(layers, kinds, strict=True) if "Conv" not in kind)
    linear = sum(isinstance(module, torch.nn.Linear) for module in network.modules())
    assert linear - 16 == 51


def test_layers_that_only_see_the_time_or_a_label_are_left_out() -> None:
    names = (
        "conv_in",
        "time_embedding",
        "block.time_emb_proj",
        "block.emb_layers",
        "class_embedding",
        "attn.to_q",
    )
    network = torch.nn.Module()
    for name in names:
        *path, last = name.split(".")
        inner = network
        for part in path:
            if not hasattr(inner, part):
                inner.add_module(part, torch.nn.Module())
            inner = inner.get_submodule(part)
        inner.add_module(last, torch.nn.Conv2d(1, 1, 1) if last == "conv_in" else torch.nn.Linear(1, 1))
    assert every_layer(network) == ("conv_in", "attn.to_q")
    assert every_layer(None) == ()


# ----------------------------------------------------------------------------------------------- sweep


def toy_sweep(request: NoiseSweep) -> tuple[Record, int]:
    model, data, meter = ToyModel(), ToyData(), Meter()
    data.load()
    model.load()
    parts = {
        role: Items(s.images, s.labels, s.ids, data.factors)
        for role, s in ((role, data.split(role)) for role in ("test", "train", "val"))
    }
    probe = {role: parts[role] for role in ("train", "val")}
    with torch.no_grad():
        record = noise_sweep(
            model, parts["test"], probe, request, SETTINGS, seed=0, dataset="d", batch=64, meter=meter
        )
    counted = count_passes(SETTINGS, request, 12, 24 + 8, 1, model.sigma_range)
    assert counted == meter.rows
    return record, meter.rows


def test_levels_of_ones_own_stand_beside_the_grid() -> None:
    """The grid has a node at 1: asked for once more in other digits it stays one level; 0.5 lies between nodes."""
    request = NoiseSweep(heads=True, taps=True, tap_levels=(0.5, 1.0 + 1e-8, 99.0))
    record, rows = toy_sweep(request)
    assert record["tap_log_snr"].tolist() == pytest.approx([-2.0, 0.0, 0.5, 1.0, 2.0])
    assert record["log_snr"].tolist() == pytest.approx([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    assert record["tap/mid"].shape[:2] == (5, 12 + 24 + 8)
    assert record["error/unconditional"].shape == (24, 6)
    # 6 levels × 2 draws × 2 heads, the level between nodes once, and the probe's items at five levels
    assert rows == 12 * (6 * 2 * 2 + 1) + 5 * 32
    plain, _ = toy_sweep(NoiseSweep(heads=True, taps=True))
    at = [0, 1, 4]
    for name in ("tap/mid", "tap/input"):
        np.testing.assert_allclose(record[name][at], plain[name], atol=1e-6)
    np.testing.assert_array_equal(record["error/class"], plain["error/class"])


def test_without_strided_taps_only_the_levels_asked_for() -> None:
    request = NoiseSweep(tap_levels=(0.5, 2.5))
    record, rows = toy_sweep(request)
    assert record["tap_log_snr"].tolist() == record["log_snr"].tolist() == [0.5, 2.5]
    assert rows == 2 * (12 + 32)
    model = ToyModel()
    model.load()
    assert tapped_levels(SETTINGS, request, model.sigma_range) == ([0.5, 2.5], [0.5, 2.5])


def test_every_layer_is_tapped_beside_the_model_s_own() -> None:
    record, _ = toy_sweep(NoiseSweep(taps=True, layers=True))
    plain, _ = toy_sweep(NoiseSweep(taps=True))
    model = ToyModel()
    model.load()
    assert record.meta["taps"] == list(model.taps)
    found = {name.removeprefix("tap/") for name in record.arrays if name.startswith("tap/")}
    assert found == {*model.taps, *every_layer(model.network), "input", "denoised"}
    assert len(found) > len(model.taps) + 2
    for tap in model.taps:
        np.testing.assert_array_equal(record[f"tap/{tap}"], plain[f"tap/{tap}"])


# -------------------------------------------------------------------------------------------- the probe


def made(levels: Array, sizes: dict[str, int], values: int = 3, taps: int = 4) -> Record:
    """Layers `l0` … that know ever more of two factors, of two widths; `l0` alone is a tap of the model."""
    rng = np.random.default_rng(0)
    roles = np.concatenate([[role] * n for role, n in sizes.items()])
    a, b = rng.integers(values, size=len(roles)), rng.integers(2, size=len(roles))
    told = np.concatenate([np.eye(values)[a], np.eye(2)[b]], axis=1)
    arrays: dict[str, Any] = {
        "log_snr": levels,
        "tap_log_snr": levels,
        "tap_role": roles,
        "tap_items": np.array([f"i{n}" for n in range(len(roles))]),
        "tap_labels/a": a,
        "tap_labels/b": b,
    }
    for k in range(taps):
        noise = rng.normal(size=(len(levels), len(roles), 5 + k % 2))
        noise[..., :5] += 0.7 * k * told
        arrays[f"tap/l{k}"] = noise.astype(np.float32)
    arrays["tap/input"] = rng.normal(size=(len(levels), len(roles), 2)).astype(np.float32)
    meta = {
        "factors": {"a": values, "b": 2},
        "entropy": {"a": np.log(values), "b": np.log(2)},
        "exact": False,
        "seed": 0,
        "taps": ["l0"],
    }
    return Record("noise_sweep", arrays, meta)


def published(metric: LinearProbe, record: Record, factor: str = "a") -> Curve:
    (found,) = [c for c in metric.compute({"noise_sweep": record}) if c.factor == factor and not c.variant]
    return found


SIZES = {"test": 400, "train": 300, "val": 100}


def test_layers_are_for_those_who_ask() -> None:
    record = made(np.array([-1.0, 1.0]), SIZES)
    few, all_ = LinearProbe(), LinearProbe(layers=True)
    assert few.needs == (NoiseSweep(taps=True),)
    assert all_.needs == (NoiseSweep(taps=True, layers=True),)
    assert published(few, record).extra["taps"] == ["l0", "l0"]
    assert published(few, record).extra["candidates"] == 1
    assert published(all_, record).extra["taps"] == ["l3", "l3"]
    # 162 curves would bury the table: only the model's taps and the baselines are shown
    assert {c.variant for c in all_.compute({"noise_sweep": record})} == {"", "accuracy", "raw input", "tap l0"}


def test_one_tap_for_all_levels() -> None:
    """l3 knows most on the whole; at the second level it was broken and l2 knows more."""
    record = made(np.array([-1.0, 0.0, 1.0]), SIZES)
    record.arrays["tap/l3"][1] = record["tap/l0"][1, :, :1]
    assert published(LinearProbe(layers=True), record).extra["taps"] == ["l3", "l2", "l3"]
    whole = published(LinearProbe(layers=True, select="overall"), record)
    assert len(set(whole.extra["taps"])) == 1
    assert whole.tap == whole.extra["taps"][0]


def test_solving_together_or_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    record = made(np.array([-1.0, 1.0]), {"test": 50, "train": 80, "val": 30})
    features = {f"l{k}": record[f"tap/l{k}"] for k in range(4)}
    labels = record["tap_labels/a"][:, None]
    truth = [np.broadcast_to(np.eye(3)[labels[:50, 0]], (2, 50, 3))]
    [together] = probes(features, labels, record["tap_role"], truth)
    monkeypatch.setattr(linear_probe, "BLOCK", 1)
    [alone] = probes(features, labels, record["tap_role"], truth)
    assert [p.tap for p in together] == [p.tap for p in alone] == ["l0", "l1", "l2", "l3"]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.log_p, b.log_p, atol=5e-3)
        np.testing.assert_allclose(a.validation_nll, b.validation_nll, atol=2e-3)


def test_factors_are_solved_together_as_if_each_were_alone() -> None:
    """An easy factor is done at ridges at which a hard one still improves, and neither notices the other."""
    rng = np.random.default_rng(3)
    roles = np.array(["test"] * 60 + ["train"] * 120 + ["val"] * 60)
    labels = np.stack([rng.integers(3, size=240), rng.integers(2, size=240)], axis=1)
    x = rng.normal(size=(2, 240, 12))
    x[:, :, :3] += 4 * np.eye(3)[labels[:, 0]]
    x[:, :, 5] += 0.8 * labels[:, 1]
    truth = [np.broadcast_to(np.eye(k)[labels[:60, f]], (2, 60, k)) for f, k in enumerate((3, 2))]
    together = probes({"tap": x}, labels, roles, truth)
    for factor in (0, 1):
        [[alone]] = probes({"tap": x}, labels[:, [factor]], roles, [truth[factor]])
        np.testing.assert_allclose(together[factor][0].log_p, alone.log_p, atol=5e-3)
        np.testing.assert_allclose(together[factor][0].validation_nll, alone.validation_nll, atol=1e-3)


def test_the_published_protocol() -> None:
    """246 / 150 / 371 images at eleven levels of a VE process from 90 to 0.01, doubled from [0, 1] to [-1, 1]."""
    assert len(PAPER_A_LEVELS) == 11
    sigma = np.exp(-np.array(PAPER_A_LEVELS) / 2)
    np.testing.assert_allclose(
        sigma[1:10] / 2, [36.2, 14.6, 5.86, 2.36, 0.949, 0.382, 0.154, 0.0618, 0.0249], rtol=5e-3
    )
    np.testing.assert_allclose([sigma[0] / 2, sigma[-1] / 2], [90 * 9000**-0.01, 0.01 * 9000**0.01], rtol=1e-4)
    metric = LinearProbe(preset="paper-a")
    assert metric.needs == (NoiseSweep(layers=True, tap_levels=PAPER_A_LEVELS),)
    levels = np.array(sorted([*PAPER_A_LEVELS[3:6], 0.123]))
    found = published(metric, made(levels, {"test": 400, "train": 300, "val": 160}))
    assert found.log_snr.tolist() == list(PAPER_A_LEVELS[3:6])  # those of another metric are passed over
    assert len(found.items) == 371
    assert found.extra["probe_items"] == 246
    assert found.flags == ("the model accepts 3 of the 11 noise levels of paper-a",)
    short = published(metric, made(np.array(PAPER_A_LEVELS), {"test": 30, "train": 300, "val": 160}))
    assert short.flags == ("paper-a takes 371 test items, 30 were recorded",)
    assert len(short.log_snr) == 11
    with pytest.raises(NotApplicableError, match="accepts 0 of the 11 noise levels"):
        published(metric, made(np.array([0.1, 0.2]), SIZES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "paper-b"}, "preset must be one of paper-a, got 'paper-b'"),
        ({"select": "best"}, "level or overall"),
    ],
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LinearProbe(**options)


# --------------------------------------------------------------------------------------- stratification


def test_subsets_keep_the_shares_of_every_value() -> None:
    """Three factors of unequal frequencies: within three items of a share that random choice misses by ten."""
    rng = np.random.default_rng(1)
    laws = ((3, [0.6, 0.3, 0.1]), (2, [0.9, 0.1]), (5, [0.2] * 5))
    labels = np.stack([rng.choice(k, size=500, p=p) for k, p in laws], axis=1)

    def off(rows: NDArray[np.int64]) -> float:
        """Items by which the most misrepresented value is off."""
        misses = [
            np.bincount(labels[rows, f], minlength=k) - np.bincount(labels[:, f], minlength=k) / 500 * len(rows)
            for f, (k, _) in enumerate(laws)
        ]
        return float(np.abs(np.concatenate(misses)).max())

    for n in (60, 246):
        rows = stratified(labels, n, seed=0)
        assert len(np.unique(rows)) == n
        assert off(rows) < 3
        assert off(rows) < 0.5 * np.mean([off(rng.permutation(500)[:n]) for _ in range(20)])
    assert stratified(labels, 60, seed=0).tolist() == stratified(labels, 60, seed=0).tolist()
    assert stratified(labels, 60, seed=0).tolist() != stratified(labels, 60, seed=1).tolist()
    assert stratified(labels, 500, seed=0).tolist() == list(range(500))


def test_more_features_than_items_are_solved_in_their_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 features of 40 training items: the same test scores as scikit-learn's with all of them."""
    from sklearn.linear_model import LogisticRegression

    solve = logistic.fit
    monkeypatch.setattr(linear_probe, "RIDGES", (0.1,))
    monkeypatch.setattr(
        logistic,
        "fit",
        lambda x, y, classes, ridge, start: solve(x, y, classes, ridge, start, max_iterations=5000, tol=1e-7),
    )
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=90)
    roles = np.array(["train"] * 40 + ["val"] * 20 + ["test"] * 30)
    means = 0.4 * rng.normal(size=(3, 400))
    x = rng.standard_normal((90, 400)) * rng.uniform(0.1, 5.0, 400) + means[labels]
    [[found]] = probes({"wide": x[None]}, labels[:, None], roles, [np.eye(3)[labels[60:]][None]])
    z = (x - x[:40].mean(0)) / x[:40].std(0, ddof=1)
    fitted = LogisticRegression(C=1 / (40 * 0.1), tol=1e-9, max_iter=5000).fit(z[:40], labels[:40])
    expected = fitted.predict_log_proba(z[60:])[range(30), labels[60:]]
    np.testing.assert_allclose(found.log_p[:, 0], expected, atol=1e-3)
