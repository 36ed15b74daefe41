"""Find plugins and put what they offer in a catalog; one bad plugin never stops the others.

Stock `PluginManager.load_setuptools_entrypoints` dies on the first import error, drops the second of two entry
points of one name without a word and ignores misspelt hooks. Here every entry point is loaded, validated and
called on its own, and what goes wrong is data: a `Failure` with the distribution and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, distributions
from typing import Any

import pluggy

from benchsuite import hookspecs
from benchsuite.contracts import Dataset, DiffusionModel, Metric, Recipe
from benchsuite.errors import unknown

GROUP = "benchsuite"

_KINDS: Mapping[str, tuple[str, type]] = {
    "benchsuite_models": ("models", DiffusionModel),
    "benchsuite_metrics": ("metrics", Metric),
    "benchsuite_datasets": ("datasets", Dataset),
    "benchsuite_recipes": ("recipes", Recipe),
}


@dataclass(frozen=True)
class Failure:
    """A plugin, or a part of one, that could not be used."""

    plugin: str  #: "entry point (distribution version)"
    reason: str


@dataclass
class Catalog:
    """Everything that was found. A value: nothing here is global."""

    models: dict[str, type[DiffusionModel]] = field(default_factory=dict)
    metrics: dict[str, type[Metric]] = field(default_factory=dict)
    datasets: dict[str, type[Dataset]] = field(default_factory=dict)
    recipes: dict[str, type[Recipe]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    origins: dict[tuple[str, str], str] = field(default_factory=dict)  #: (kind, name) -> plugin

    def get(self, kind: str, name: str) -> type[Any]:
        """The class called `name` of `kind` ("models", "metrics", "datasets", "recipes").

        Raises:
            UsageError: no such name; lists near matches.
        """
        known: dict[str, type[Any]] = getattr(self, kind)
        if name not in known:
            raise unknown(kind.removesuffix("s").replace("dataset", "data set"), name, known)
        return known[name]


def discover(
    points: Iterable[EntryPoint] | None = None, keep: Callable[[EntryPoint], bool] = lambda point: True
) -> Catalog:
    """Load every plugin of the entry-point group and catalog what it offers.

    Args:
        points: entry points to use instead of the installed ones.
        keep: which of them to use.

    Returns:
        The catalog, with failures. Never raises for a plugin's fault.
    """
    catalog = Catalog()
    found = _installed(catalog.failures) if points is None else points
    for point in sorted(filter(keep, found), key=lambda p: (not _first_party(p), p.name, p.value)):
        _add(catalog, point)
    return catalog


def _installed(failures: list[Failure]) -> list[EntryPoint]:
    """The group's entry points in all distributions.

    `importlib.metadata.entry_points` fails as a whole if one line of one distribution is malformed.
    """
    points: dict[str, list[EntryPoint]] = {}
    for dist in distributions():
        try:
            mine = list(dist.entry_points.select(group=GROUP))
            if mine:  # of two copies of a distribution the first on sys.path counts, as for imports
                points.setdefault(dist.name, mine)
        except Exception as error:
            if f"[{GROUP}]" in (dist.read_text("entry_points.txt") or ""):
                failures.append(Failure(f"entry points of {dist.name} {dist.version}", _reason(error)))
    return [point for mine in points.values() for point in mine]


def _add(catalog: Catalog, point: EntryPoint) -> None:
    origin = describe(point)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(point.load(), name=origin)
        manager.check_pending()  # turns a misspelt hook name into an error
    except (Exception, SystemExit) as error:
        catalog.failures.append(Failure(origin, _reason(error)))
        return
    if not manager.get_hookcallers(manager.get_plugin(origin)):
        catalog.failures.append(Failure(origin, "implements no benchsuite hook (is @hookimpl missing?)"))
    for hook, (kind, base) in _KINDS.items():
        try:
            # called one by one: pluggy drops None, the answer of a hook that forgot its return
            offered = [cls for impl in getattr(manager.hook, hook).get_hookimpls() for cls in impl.function()]
        except (Exception, SystemExit) as error:
            catalog.failures.append(Failure(origin, f"{hook}: {_reason(error)}"))
            continue
        for cls in offered:
            _register(catalog, kind, base, cls, origin)


def _register(catalog: Catalog, kind: str, base: type, cls: object, origin: str) -> None:
    known: dict[str, type] = getattr(catalog, kind)
    name = getattr(cls, "name", None)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        reason = f"offers {cls!r} among its {kind}, which is not a subclass of {base.__name__}"
    elif not isinstance(name, str) or not name:
        reason = f"{cls.__module__}.{cls.__qualname__} has no name"
    elif missing := sorted(getattr(cls, "__abstractmethods__", ())):
        reason = f"{kind.removesuffix('s')} {name!r} lacks {', '.join(missing)}"
    elif name in known:
        reason = (
            f"{kind.removesuffix('s')} {name!r} of {cls.__module__} is already taken by "
            f"{known[name].__module__} from {catalog.origins[kind, name]}; the first one is kept"
        )
    else:
        known[name] = cls
        catalog.origins[kind, name] = origin
        return
    catalog.failures.append(Failure(origin, reason))


def describe(point: EntryPoint) -> str:
    """``name (distribution version)`` of an entry point."""
    dist = point.dist
    return f"{point.name} ({dist.name} {dist.version})" if dist is not None else f"{point.name} (unknown)"


def _first_party(point: EntryPoint) -> bool:
    """First-party plugins go first, so that a third party cannot take one of their names."""
    return point.dist is not None and point.dist.name == "benchsuite"


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")
