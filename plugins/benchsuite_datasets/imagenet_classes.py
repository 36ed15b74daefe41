"""Which outputs of a classifier of ImageNet are the classes of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchsuite import UsageError


def match_classes(names: Sequence[str], known: Sequence[tuple[str, str]]) -> tuple[int, ...] | None:
    """The output of each class name (K,); None if no name is one of ImageNet's.

    Args:
        names: of the data set's classes: WordNet ids ("n02123045") or English names ("tabby cat", "tabby_cat").
        known: (WordNet id, "tabby, tabby cat") of every output, in order.

    Raises:
        UsageError: some names are known and others are not, or one fits two outputs ("crane").
    """
    places = _places(known)
    found = {name: places.get(_plain(name), ()) for name in names}
    if not any(found.values()):
        return None
    for name, outputs in found.items():
        if len(outputs) != 1:
            what = "is not one of ImageNet's" if not outputs else "is the name of several of ImageNet's"
            raise UsageError(f"class {name!r} {what}, unlike others of the data set; use WordNet ids (n02123045)")
    chosen = tuple(outputs[0] for outputs in found.values())
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"two classes of the data set are one of ImageNet's: {', '.join(names)}")
    return chosen


def _places(known: Sequence[tuple[str, str]]) -> Mapping[str, tuple[int, ...]]:
    places: dict[str, tuple[int, ...]] = {}
    for output, (wordnet, description) in enumerate(known):
        for word in {_plain(wordnet), *(_plain(lemma) for lemma in description.split(","))}:
            places[word] = (*places.get(word, ()), output)
    return places


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
