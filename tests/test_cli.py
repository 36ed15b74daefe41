"""The command line: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from toys import write_distribution

from benchsuite import Dataset, MissingDataError, cli, discovery, doctor, runner
from benchsuite.discovery import Catalog
from benchsuite.suite_files import suite_names

TOY = """
from pathlib import Path
from benchsuite import BenchsuiteError, Recipe, hookimpl
import toys

class Sick(toys.ToyModel):
    '''A toy that cannot be opened.'''
    name = "sick"
    def load(self, device="cpu", dtype="float32"):
        raise BenchsuiteError("weights of [sick] are gone")

class Bracketed(toys.ToyModel):
    '''A toy with brackets in its name.'''
    name = "toy[1]"

class Bake(Recipe):
    '''Bakes, slowly or fast.'''
    name = "bake"
    summary = "a small cake"
    def __init__(self, sugar: int = 2) -> None:
        self.sugar = sugar
    def train(self, out, *, device, seed, steps, datasets, track):
        if seed == 13:
            raise KeyboardInterrupt
        data = datasets("toy-data")
        done = [step for step in track(range(steps or 5), "baking", steps or 5)]
        Path(out, "cake.txt").write_text(f"{self.sugar} {seed} {len(done)} {len(data.split('train'))} {device}")
        return {"loss": 0.25, "steps": len(done)}

@hookimpl
def benchsuite_models():
    return [toys.ToyModel, Sick, Bracketed]

@hookimpl
def benchsuite_datasets():
    return [toys.ToyData]

@hookimpl
def benchsuite_recipes():
    return [Bake]
"""

SMALL = [
    "--limit=6",
    *("--set", "bootstrap=20"),
    *("--set", "probe_items=12"),
    *("--set", "sweep.nodes=9"),
    *("--set", "label_filter.nodes=9"),
    *("--set", "label_filter.negligible=0.0"),  # counted passes are then those made
    *("--set", "u_turn.every=2.0"),
    *("--set", "u_turn.steps_per_level=1"),
    "--device=cpu",
]
ON_TOYS = ["run", "--datasets", "toy-data", "--metrics", "mutual-information class-retention", *SMALL]


@dataclass
class Ended:
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Runs the command line in this process, with first-party plugins and a throw-away distribution of toys."""
    site = tmp_path / "site"
    write_distribution(
        site, "toy-plugins", {"toys": "toy_plugins", "gone": "nowhere.at.all"}, {"toy_plugins": TOY}
    )
    monkeypatch.syspath_prepend(site)
    known = [d for d in importlib.metadata.distributions() if d.name in ("benchsuite", "toy-plugins")]
    monkeypatch.setattr(discovery, "distributions", lambda: known)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["benchsuite", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        code = ended.value.code
        printed = capsys.readouterr()
        return Ended(code if isinstance(code, int) else 0, printed.out, printed.err)

    yield call
    sys.modules.pop("toy_plugins", None)


# ----------------------------------------------------------------------------------------- looking


def test_list(command: Command) -> None:
    ended = command("list")
    assert ended.code == 0
    for words in (
        ["model", "exact-mixture", "benchsuite_models (benchsuite"],
        ["model", "toy[1]", "toys (toy-plugins 1.0)"],
        ["metric", "mutual-information", "arXiv:2410.03368"],
        ["dataset", "digits"],
        ["recipe", "bake"],
        ["suite", "digits"],
    ):
        assert any(all(word in line for word in words) for line in ended.out.splitlines()), words
    # a plugin that is broken is shown with its distribution and reason, and stops nothing
    assert "plugin failed: gone (toy-plugins 1.0): ModuleNotFoundError: No module named 'nowhere'" in ended.out


def test_list_as_json(command: Command) -> None:
    ended = command("list", "--json")
    listing = json.loads(ended.out)
    assert {"toy", "toy[1]", "exact-mixture", "empirical-bayes"} <= set(listing["models"])
    assert listing["suites"] == suite_names()
    assert listing["recipes"].count("bake") == 1
    assert [failure["plugin"] for failure in listing["failures"]] == ["gone (toy-plugins 1.0)"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mutual-information", ["metric from benchsuite_metrics", "I(factor; x) in nats", "unit: nats"]),
        (
            "exact-mixture",
            ["model from benchsuite_models", "options (exact-mixture:key=value", "preset: str = None"],
        ),
        ("digits", ["dataset from", "handwritten digits", "digits  (suite)", "models: ddpm, score-sde"]),
        ("bake", ["recipe from toys (toy-plugins 1.0)", "summary: a small cake", "sugar: int = 2"]),
        ("toy[1]", ["A toy with brackets", "sigma_max: float = 100.0"]),
        ("exact-mixture:preset=flat", ["model from benchsuite_models"]),
    ],
)
def test_info(command: Command, name: str, words: list[str]) -> None:
    ended = command("info", name)
    assert ended.code == 0
    for word in words:
        assert word.lower() in ended.out.lower()


def test_info_on_a_suite_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('models = ["toy"]\nmetrics = ["linear-probe"]\n')
    assert "models: toy" in command("info", "mine.toml").out


@pytest.mark.parametrize("command_", ["run", "list", "info", "train", "leaderboard", "calibrate", "doctor"])
def test_every_command_has_help(command: Command, command_: str) -> None:
    ended = command(command_, "--help")
    assert ended.code == 0
    assert "Usage:" in ended.out


def test_the_commands_are_shown_without_arguments(command: Command) -> None:
    ended = command()
    assert "Usage:" in ended.out + ended.err
    assert "calibrate" in ended.out + ended.err


# ---------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digitz"], "unknown suite 'digitz'; did you mean digits?"),
        (["run", "mine.toml"], "no suite file mine.toml"),
        (["run", "--models", "exact-mixtur"], "unknown model 'exact-mixtur'; did you mean exact-mixture"),
        (["run", "--models", "toy:sed=1"], "unknown option of model 'toy': 'sed'; did you mean seed?"),
        (["run", "--models", "toy:seed=x"], "option 'seed' of model 'toy' must be int, got 'x'"),
        (["run", "--metrics", "mutual"], "unknown metric 'mutual'; did you mean mutual-information?"),
        (["run", "--datasets", "digit"], "unknown data set 'digit'; did you mean digits, few-digits?"),
        (["run", "--set", "sweep.nodez=9"], "unknown key of --set.sweep: 'nodez'; did you mean nodes"),
        (["run", "--set", "sweep.nodes=one"], "--set.sweep.nodes must be int, got 'one'"),
        (["run", "--set", "sweep.nodes"], "--set takes key=value, such as sweep.nodes=129; got 'sweep.nodes'"),
        (["run", "--set", "u_turn.method=euler"], "must be one of ancestral, sde-2m, ode-heun, got 'euler'"),
        (["run", "--dtype", "int8"], "dtype must be one of float32, float64, float16, bfloat16, got 'int8'"),
        (["run", "--device", "gpu"], "unknown device 'gpu'; use auto, cpu, cuda or cuda:N"),
        (["run", "--device", "cuda:97"], "device 'cuda:97' is not there"),
        (
            ["run", "--out", "taken/results"],
            "cannot write to taken/results: Not a directory; choose another --out",
        ),
        (["run", "--out", "taken"], "cannot write to taken: File exists; choose another --out"),
        (["info", "exact-mixtur"], "unknown name 'exact-mixtur'; did you mean exact-mixture"),
        (["train", "bakery"], "unknown recipe 'bakery'; did you mean bake"),
        (["train", "bake:salt=1"], "unknown option of recipe 'bake': 'salt'; known: sugar"),
        (["train", "bake", "--device", "gpu"], "unknown device 'gpu'"),
        (["leaderboard", "nowhere"], "nowhere"),
    ],
)
def test_wrong_requests_exit_with_2_and_one_line(
    command: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "taken").write_text("a file where a directory is wanted")
    ended = command(*arguments)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith("benchsuite: ")
    assert message in line
    assert not (tmp_path / "benchsuite-results").exists()


@pytest.mark.parametrize(
    "arguments", [["run", "--limit", "1"], ["run", "--seed", "x"], ["rum"], ["run", "--modles", "x"], ["train"]]
)
def test_wrong_options_exit_with_2(command: Command, arguments: list[str]) -> None:
    ended = command(*arguments)
    assert ended.code == 2
    assert "Traceback" not in ended.err


# ----------------------------------------------------------------------------------------- running


def test_a_run_writes_its_board_and_a_second_one_continues(command: Command, tmp_path: Path) -> None:
    once = command(*ON_TOYS, "--models", "toy", "--out", "found")
    assert once.code == 0
    files = {f"leaderboard.{kind}" for kind in ("md", "csv", "json", "html")}
    assert files <= {path.name for path in (tmp_path / "found").iterdir()}
    assert "toy on toy-data: 2 metrics" in once.out
    document = json.loads((tmp_path / "found" / "leaderboard.json").read_text())
    assert {row["status"] for row in document["rows"]} == {"ok"}
    assert document["provenance"]["suite"] == "digits"
    assert document["provenance"]["command"][0] == "benchsuite"
    assert document["settings"]["items"] == 6
    again = command(*ON_TOYS, "--models", "toy", "--out", "found", "--json")
    assert again.code == 0
    repeated = json.loads(again.out)  # nothing but the document on standard output
    assert repeated["rows"] == document["rows"]
    assert "toy on toy-data" in again.err


def test_the_dry_run_counts_what_the_run_then_makes(command: Command) -> None:
    arguments = [*ON_TOYS, "--models", "toy empirical-bayes", "--models", "toy[1]"]
    dry = command(*arguments, "--dry-run", "--out", "nothing")
    assert dry.code == 0
    assert not Path("nothing").exists()
    (promised,) = re.findall(r"([\d,]+) forward passes in all", dry.out)
    total = int(promised.replace(",", ""))
    table = [line.split() for line in dry.out.splitlines() if " toy-data " in line]
    assert [line[:2] for line in table] == [
        ["empirical-bayes", "toy-data"],
        ["empirical-bayes", "toy-data"],
        ["toy", "toy-data"],
        ["toy[1]", "toy-data"],  # brackets are not markup
    ]
    counts = [int(word.replace(",", "")) for line in table for word in line[3:6]]
    assert sum(counts) == total
    rows = json.loads(command(*arguments, "--json").out)["rows"]
    assert sum(row["forward_passes"] for row in rows) == total
    assert "settings: Settings(seed=0, items=6," in dry.out


def test_a_dry_run_names_what_cannot_run(command: Command) -> None:
    ended = command(*ON_TOYS, "--models", "toy sick", "--dry-run")
    assert ended.code == 3
    assert "sick: failed at model: weights of [sick] are gone" in ended.out


def test_partial_success_exits_with_3(command: Command) -> None:
    ended = command(*ON_TOYS, "--models", "toy sick", "--out", "found")
    assert ended.code == 3
    rows = json.loads(Path("found", "leaderboard.json").read_text())["rows"]
    assert {(row["label"], row["status"]) for row in rows if not row["oracle"]} == {
        ("toy", "ok"),
        ("sick", "failed"),
    }
    assert "failed at model: weights of [sick] are gone" in ended.out


def test_what_does_not_apply_is_no_failure(command: Command) -> None:
    ended = command("run", "--models", "toy", "--datasets", "digits", "--metrics", "class-retention", *SMALL)
    rows = json.loads(Path("benchsuite-results", "leaderboard.json").read_text())["rows"]
    (row,) = (row for row in rows if row["label"] == "toy")
    assert (row["status"], row["reason"]) == (
        "not_applicable",
        "toy works on (1, 4, 4), the data set has (1, 8, 8)",
    )
    assert ended.code == 0


def test_flags_come_after_assignments_and_those_after_the_suite(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'models = ["toy"]\ndatasets = ["toy-data"]\nmetrics = ["class-retention"]\n'
        "[settings]\nitems = 5\nseed = 4\nbootstrap = 30\n"
    )
    ended = command("run", "mine.toml", "--set", "seed=5", "--set", "items=7", "--limit", "3", "--dry-run")
    assert ended.code == 0
    assert re.search(r"Settings\(seed=5, items=3, .*bootstrap=30,", ended.out)


def test_an_interrupt_says_how_to_go_on(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner._Runner, "unit", interrupted)
    ended = command(*ON_TOYS, "--models", "toy")
    assert ended.code == 130
    assert ended.err.splitlines()[-1] == (
        "benchsuite: interrupted; run the same command again to go on from what is stored"
    )


# --------------------------------------------------------------------------------- training, doctor


def test_train(command: Command) -> None:
    ended = command("train", "bake:sugar=3", "--seed", "7", "--steps", "4", "--out", "oven", "--device", "cpu")
    assert ended.code == 0
    assert Path("oven", "cake.txt").read_text() == "3 7 4 24 cpu"
    assert ended.out.splitlines()[-3:] == ["loss: 0.25", "steps: 4", "wrote oven"]
    assert command("train", "bake").code == 0
    assert Path("bake", "cake.txt").read_text().startswith("2 0 5 24 ")
    assert command("train", "bake", "--seed", "13").code == 130


def test_doctor(command: Command, monkeypatch: pytest.MonkeyPatch, first_party: Catalog) -> None:
    """Broken plugins and missing packages are faults; data that are not there are not."""
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "pluggy"))
    for name in ("mnist", "fashion-mnist"):  # tens of thousands of images where they are installed

        def absent(self: Dataset) -> None:
            raise MissingDataError("not on this machine")

        monkeypatch.setattr(first_party.datasets[name], "load", absent)
    ended = command("doctor")
    assert ended.code == 3
    assert "BAD  plugin gone (toy-plugins 1.0): ModuleNotFoundError: No module named 'nowhere'" in ended.out
    assert re.search(r"^ok   numpy: \d", ended.out, re.MULTILINE)
    assert "ok   data set toy-data: 24 training images" in ended.out
    assert "ok   data set mnist: not available: not on this machine" in ended.out
    assert re.search(r"^ok   data set image-folder: not available: ", ended.out, re.MULTILINE)
    healthy = [d for d in discovery.distributions() if d.name == "benchsuite"]
    monkeypatch.setattr(discovery, "distributions", lambda: healthy)
    assert command("doctor").code == 0
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    ended = command("doctor")
    assert ended.code == 3
    assert "BAD  no-such-package: ModuleNotFoundError" in ended.out
    assert "try: pip install no-such-package" in ended.out


def test_as_a_module_and_as_a_script() -> None:
    """`python -m benchsuite` and the console script are the same program."""
    done = subprocess.run(
        [sys.executable, "-m", "benchsuite", "run", "--models", "nothing-like-it"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("benchsuite: unknown model 'nothing-like-it'; known: ")
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="benchsuite")
    assert script.load() is cli.main
