"""Numbers and explanations as every report prints them, so that no two reports say different things."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from benchsuite.boards import Board
from benchsuite.results import Estimate, Results

#: Column heads: scalar → (name, what it is).
SCALAR_TITLES = {"log_snr_50": "log-SNR₅₀", "width": "width", "gap": "gap", "area": "area"}


def number(value: float | None, digits: int = 2, minus: str = "-") -> str:
    """Fixed-point text, "–" for None; never "-0.00"."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", minus)


def interval(estimate: Estimate | None, digits: int = 2, minus: str = "-") -> str:
    """The text "[low, high]", "" when there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, digits, minus)}, {number(estimate.high, digits, minus)}]"


def estimate_text(estimate: Estimate | None, digits: int = 2) -> str:
    """The text "value [low, high]", or "–"."""
    if estimate is None:
        return "–"
    return f"{number(estimate.value, digits)} {interval(estimate, digits)}".rstrip()


def scalar_title(name: str) -> str:
    """Column head of a scalar; one that this version does not know goes by its own name."""
    return SCALAR_TITLES.get(name, name.replace("_", " "))


def scalar_unit(name: str, unit: str) -> str:
    """The unit of a scalar where it is not log-SNR: an area is in the `unit` of its curve × log-SNR."""
    return f"{unit} × log-SNR" if name == "area" and unit else ""


def percent(value: float | None) -> str:
    """0.985 → "98.5 %"."""
    return "–" if value is None else f"{100 * value:.1f} %"


def board_facts(board: Board) -> list[tuple[str, str]]:
    """(name, value) of what the numbers of a board rest on."""
    facts = []
    if board.entropy is not None:
        facts.append((f"H({board.factor})", f"{number(board.entropy, 3)} nats"))
    if measured := board.held_out:
        facts.append(("held-out images", _held_out(measured)))
    if board.population is not None:
        truth = "the whole population: the truth" if board.enumerated else "of this finite set, not of its source"
        facts.append(("oracle", f"ideal of N = {board.population} images, {truth}"))
    if board.readout_accuracy is not None:
        facts.append(("readout accuracy", f"{percent(board.readout_accuracy)} on held-out images"))
    return facts


def _held_out(measured: Mapping[str, tuple[int, int | None]]) -> str:
    """Images and noise draws of every route, or of all of them where they are the same."""
    routes: dict[str, list[str]] = {}
    for route, (images, draws) in measured.items():
        routes.setdefault(f"{images} × {draws}" if draws else f"{images}", []).append(route)
    counts = [*routes] if len(routes) == 1 else [f"{n} ({enumeration(names)})" for n, names in routes.items()]
    return enumeration(counts) + (" noise draws" if any(draws for _, draws in measured.values()) else "")


def verdict_words(board: Board, route: str) -> str:
    """What calibration says about a route; "" when the document does not say."""
    if route not in board.calibration:
        return ""
    verdict = board.calibration[route]
    if verdict is None:
        return "never calibrated, does not rank"
    limits = f"bias {number(verdict.bias, 3)} of {number(verdict.tolerance, 3)} {verdict.unit} allowed"
    if verdict.passed:
        return f"calibrated, {limits}"
    return f"failed calibration, does not rank: {verdict.reason or limits}"


def when(board: Board) -> str:
    """Title of what shows the onsets."""
    return f"When {board.factor} is fixed" if board.factor else "When half of the way is gone"


def headline(board: Board, minus: str = "-") -> str:
    """One or two sentences: when the ideal model fixes the factor by each route, and who comes closest."""
    sentences = []
    oracle = next((line for line in board.lines if line.oracle), None)
    onsets = [(route, row.scalars["log_snr_50"]) for route, row in oracle.rows.items()] if oracle else []
    said = [f"{number(onset.value, 2, minus)} ({route})" for route, onset in onsets if onset]
    if oracle and said:
        ideal = f"The ideal of these {board.population} images" if board.population else oracle.label
        does = f"fixes {board.factor}" if board.factor else "is half way"
        sentences.append(f"{ideal} {does} at log-SNR {', '.join(said)}.")
    best = [line for line in board.lines if line.rank == 1 and line.score]
    if best:
        gaps = [number(line.score.value, 2, minus) for line in best if line.score]
        gap = gaps[0] if gaps[0] == gaps[-1] else f"{gaps[0]} to {gaps[-1]}"
        verb, tie = ("come", ", too close to tell apart") if len(best) > 1 else ("comes", "")
        names = enumeration([line.label for line in best])
        sentences.append(f"{names} {verb} closest to it: oracle gap {gap}{tie}.")
    if not board.ranks:
        return "Nothing measured here has an onset, so no model has a rank."
    return " ".join(sentences) or "No model has a rank on this board."


def curves_only(board: Board, verdicts: bool = False) -> str:
    """A sentence that names the routes without a number in any table, so that none is lost; "" if all have one."""
    routes = [route for route in board.routes if route not in board.columns and not board.stated(route)]
    found = {route: verdict_words(board, route) if verdicts else "" for route in routes}
    said = [f"{route} ({verdict})" if verdict else route for route, verdict in found.items()]
    return f"Curves only, without an onset: {enumeration(said)}." if said else ""


def enumeration(names: list[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


#: (term, explanation) for the legend of every report.
LEGEND: tuple[tuple[str, str], ...] = (
    (
        "log-SNR",
        "the one clock of all families, 2 ln(alpha / sigma). Low = noise, high = clean image; a sample is "
        "generated from low to high. Native time t/T depends on a model's schedule and is only a view.",
    ),
    (
        "log-SNR₅₀",
        "where the curve of a route passes half way from its floor to its ceiling: for information, H/2. "
        "The lower, the earlier in generation (the more noise) the factor is fixed.",
    ),
    (
        "width",
        "log-SNR at 90 % minus log-SNR at 10 % of the way. Small = fixed abruptly, large = gradually.",
    ),
    (
        "gap",
        "log-SNR₅₀ minus that of the oracle, by the same route and in the same space. On enumerated data the "
        "oracle meets the images and the noise that the model meets and is scored like it (same images), so that "
        "luck with either is no gap; on a real data set it is measured on its population. 0 is ideal, above 0 is "
        "later, below 0 is earlier.",
    ),
    (
        "area",
        "distance of the curve from the oracle's by the same route, integrated over the levels that both cover; "
        "signed for a loss, of which only the excess counts. 0 is ideal.",
    ),
    ("oracle gap", "mean of |gap| over the routes that rank, which the board names. The rank follows it."),
    (
        "rank",
        "models that cannot be told apart share a rank, marked with =. A model with a cell missing in a "
        "route that ranks keeps its place on the board without a rank.",
    ),
    (
        "route",
        "an independent way to the same onset (a metric). For a perfect model information routes agree; "
        "routes with another ceiling, such as retention, have an onset of their own, which the oracle row shows.",
    ),
    (
        "oracle",
        "the exact denoiser of a finite set of N images, measured like a model, but for filters, U-turns and "
        "forks, which are read off its posterior. On enumerated data it is the truth. On a real data set it is "
        "the ideal of that finite set only and commits to single images earlier than the population would, so its "
        "curve for images outside the set (held out) stands beside it.",
    ),
    (
        "calibrated",
        "measured on models whose answer is known exactly: the largest bias beyond two standard errors, against "
        "the tolerance that the metric states for itself. A route that fails, or was never tried, does not rank.",
    ),
    (
        "consistency",
        "how far identities between the routes are missed, averaged over the levels where the factor is being "
        "decided. 0 for a perfect model with perfect estimates; a bound counts only by its excess.",
    ),
    (
        "routes agree",
        "largest difference of two routes to one number at any level, as a fraction of H (of the range from floor "
        "to ceiling). Beyond 0.15, sampling aside, the route farther from the oracle's curve is named as failing; "
        "without an oracle, the one farther from the median.",
    ),
    (
        "order of emergence",
        "factors sorted by log-SNR₅₀; ≈ where the 95 % interval of the paired distance of neighbours holds 0. "
        "Kendall's τ-b compares it with the oracle's order by the same route.",
    ),
    ("[low, high]", "95 % bootstrap interval over images."),
    (
        "H",
        "entropy of the factor in nats, the most that can be known. Estimates above H are flagged, not clipped.",
    ),
    ("readout accuracy", "held-out accuracy of the frozen classifier that judges generated images."),
)


def provenance_items(results: Results) -> list[tuple[str, str]]:
    """(name, value) of where the numbers come from."""
    facts = results.provenance
    items = [("benchsuite", str(facts.get("benchsuite", "unknown")))]
    git = facts.get("git")
    if isinstance(git, dict):
        state = " with uncommitted changes" if git.get("dirty") else ""
        items.append(("revision", f"{git.get('revision', 'unknown')}{state}"))
    command = facts.get("command")
    if isinstance(command, list):
        items.append(("command", shlex.join(map(str, command))))
    for name in ("suite", "seed", "device", "dtype", "platform", "python", "started"):
        if facts.get(name) is not None:
            items.append((name, str(facts[name])))
    seconds = facts.get("seconds")
    if isinstance(seconds, int | float):
        items.append(("wall time", f"{seconds:.0f} s"))
    for name in ("versions", "plugins"):
        found = facts.get(name)
        if isinstance(found, dict) and found:
            items.append((name, ", ".join(f"{key} {value}" for key, value in sorted(found.items()))))
        elif isinstance(found, list) and found:
            items.append((name, ", ".join(map(str, found))))
    counts = dict.fromkeys(dict.fromkeys(row.status for row in results.rows), 0)
    for row in results.rows:
        counts[row.status] += 1
    items.append(("cells", ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in counts.items()) or "none"))
    return items
