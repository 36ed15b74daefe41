"""What runs on a CPU runs on a GPU: nothing is left on the other device. See `pretend_gpu` for what that shows.

Every case has a process of its own, as torch is told of the device once and for all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchsuite_models.training import loop
from benchsuite_models.training.config import Optimisation

pytestmark = pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch cannot be told of a device from Python",
)
TESTS = Path(__file__).parent
#: little of everything
SETTINGS = (
    *("items=3", "oracle_items=3", "probe_items=24", "bootstrap=50", "sweep.nodes=5", "sweep.tap_stride=2"),
    *("u_turn.every=7", "u_turn.steps_per_level=1", "u_turn.draws=4", "u_turn.antithetic=false"),
    *("fork.every=5", "fork.steps_per_level=1", "fork.items=2", "fork.k=2"),
    *("label_filter.nodes=4", "label_filter.items=2", "channels.nodes=5", "channels.refine=1", "channels.items=2"),
    *("trajectory.every=5", "trajectory.steps_per_level=1", "trajectory.paths=3"),
)
ALL = "mutual-information fork-entropy:paths=true class-retention path-filter"


def python(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(TESTS), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout


def numbers(results: dict[str, Any]) -> dict[tuple[str, ...], list[float]]:
    """Values of every curve."""
    return {
        (row["label"], row["split"], row["metric"], row["factor"], curve["variant"]): curve["value"]
        for row in results["rows"]
        for curve in row["curves"]
    }


RUNS = """
import contextlib, sys
from benchsuite.cli import app
from pretend_gpu import pretend_gpu

out, *arguments = sys.argv[1:]
for device, world in (("cuda", pretend_gpu()), ("cpu", contextlib.nullcontext())):
    with world:
        app(["run", *arguments, "--device", device, "--out", f"{out}/{device}"], standalone_mode=False)
"""


@pytest.mark.parametrize(
    ("models", "dataset", "metrics"),
    [
        ("latent-diffusion", "digits", f"{ALL} linear-probe sample-validity"),
        (
            "exact-rhm:v=4,m=2,s=2,L=2 exact-mixture planted-error",
            "points:circle",
            f"{ALL} channel-susceptibility ridge-geometry",
        ),
    ],
    ids=["networks", "exact"],
)
def test_a_run_gives_the_same_numbers(models: str, dataset: str, metrics: str, tmp_path: Path) -> None:
    options = ["--models", models, "--datasets", dataset, "--metrics", metrics]
    options += [part for setting in SETTINGS for part in ("--set", setting)]
    python("-c", RUNS, str(tmp_path), "digits", *options)
    there, here = (json.loads((tmp_path / device / "leaderboard.json").read_text()) for device in ("cuda", "cpu"))
    assert there["provenance"]["device"] == "cuda (pretended)"
    assert [row["status"] for row in there["rows"]] == [row["status"] for row in here["rows"]]
    assert "failed" not in {row["status"] for row in there["rows"]}
    found, expected = numbers(there), numbers(here)
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # float32 in another order; verdicts and probes of so few items jump no further
        assert found[name] == pytest.approx(values, abs=2e-3, nan_ok=True), name


STAGES = """
import sys
from pathlib import Path
from benchsuite_models.training.config import Blend, Noise, Pairs, Stage
from test_training_blend import Grid
from pretend_gpu import pretend_gpu
from staged_training import losses

stages = [
    Stage(1, contrast=2.0),
    Stage(2, blends=(Blend(("other1",), -2.0, 4.0, emphasis=3.0),)),
    Stage(3, Noise(-2.0, 2.0), pairs=Pairs(1.0, centre=-1.0, width=0.7, contrast=2.0)),
]
with pretend_gpu():  # before the CPU's turn: autograd counts devices once
    print(*losses(Path(sys.argv[1], "cuda"), Grid(factors=2), *stages, muon=4, device="cuda"))
print(*losses(Path(sys.argv[1], "cpu"), Grid(factors=2), *stages, muon=4))
"""


def test_training_loses_the_same(tmp_path: Path) -> None:
    there, here = (
        [float(pair.split(",")[1]) for pair in line.split()]
        for line in python("-c", STAGES, str(tmp_path)).splitlines()
    )
    assert len(here) == 6
    assert there == pytest.approx(here, rel=1e-4)


def test_a_checkpoint_of_a_gpu_is_resumed_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved optimiser says where its moments were; torch opens what was on a GPU nowhere else unasked."""

    class Killed(Exception):
        pass

    def fit(steps: int, checkpoint: Path, stop: int | None = None) -> list[float]:
        def track(items: Iterable[int], description: str, total: int) -> Iterator[int]:
            for step in items:
                if step == stop:
                    raise Killed
                yield step

        torch.manual_seed(0)
        network = torch.nn.Linear(3, 1)
        config = Optimisation(steps=steps, batch=4, learning_rate=1e-2, warm_up=1, checkpoint_every=2)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            return network(torch.randn(4, 3, generator=generator)).square().mean()

        return loop.fit(
            network, loss, config, seed=0, checkpoint=checkpoint, identity={}, description="", track=track,
            keep=lambda step, average: None,
        )  # fmt: skip

    whole = fit(6, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        with pytest.raises(Killed):
            fit(6, tmp_path / "parts", stop=4)
    assert fit(6, tmp_path / "parts") == whole


MIXED = """
import torch
from pretend_gpu import pretend_gpu

with pretend_gpu():
    there, here = torch.arange(4.0, device="cuda"), torch.arange(4.0)
    assert (there + 1).device == there.device != here.device
    assert (there + 1).cpu().tolist() == (here + 1).tolist()
    assert there[torch.tensor([2])].item() == 2.0 == (there * torch.tensor(1.0))[2].item()
    whole = torch.arange(4, device="cuda").view(2, 2)
    for fault in (
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: here[whole[0]],
        lambda: there.numpy(),
        lambda: torch.randn(2, device="cuda", generator=torch.Generator()),
        lambda: whole @ whole,
        lambda: torch.nn.Linear(4, 1).to("cuda")(here),
    ):
        try:
            fault()
        except RuntimeError:
            print("refused")
"""


def test_what_cuda_refuses_is_refused() -> None:
    assert python("-c", MIXED).split() == ["refused"] * 7
