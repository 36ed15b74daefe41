"""benchsuite.json: what a diffusers directory cannot say about itself (factors, null row, data range).

``{"factors": [{"name": "class", "values": ["0", "1", …]}], "null_class": 10, "data_range": [-1, 1], "patch": 2}``

All keys are optional. ``patch`` P says that the network which sees the images sees them with every P x P block
of pixels folded into channels (``torch.nn.functional.pixel_unshuffle``). ``null_class`` is for one factor and
defaults to the row after the last value; JSON's ``null`` says that there is no such row. Other keys (data set,
training) are for the reader.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchsuite import Factor, ModelLoadError, UsageError
from benchsuite_models.checkpoint import Part, read_json
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.process import DataRange

FILE = "benchsuite.json"


@dataclass(frozen=True)
class Options:
    """What the user says on the command line; it wins over the file."""

    factor: str | None = None
    null_class: int | None = None
    data_range: str | None = None


def read_card(root: Path) -> dict[str, Any]:
    """The checkpoint's benchsuite.json, or {} if it has none."""
    path = root / FILE
    return read_json(path) if path.is_file() else {}


def conditioning(card: dict[str, Any], options: Options, unet: Part) -> Conditioning:
    """How labels reach the network `unet`, checked against its number of class embeddings.

    Raises:
        ModelLoadError: the network needs a class and nobody says what it means, or the numbers disagree.
    """
    rows = unet.config.get("num_class_embeds")
    where = unet.where
    if unet.config.get("class_embed_type") == "identity" and options.factor is None and card.get("factors"):
        return _from_card(card, summed=True)
    if unet.config.get("class_embed_type") is not None:
        raise ModelLoadError(
            f"{where}: class_embed_type {unet.config['class_embed_type']!r} is not a table of classes and has "
            f"no known mapping ('identity' takes a sum of embeddings, whose factors {FILE} must list)"
        )
    if options.factor is None and options.null_class is not None:
        raise UsageError(f"null_class={options.null_class} needs factor=NAME, the factor whose null it is")
    if options.factor is not None:
        result = _from_options(options.factor, options.null_class, rows, where)
    else:
        result = _from_card(card)
    if rows is not None and not result.factors:
        raise ModelLoadError(
            f"{where}: the network has num_class_embeds={rows} but nothing says what the classes are: put a "
            f"{FILE} beside it or give factor=class,null_class={rows - 1} (without null_class if no row means "
            "'no class')"
        )
    if result.rows != (rows or 0):
        names = " x ".join(f"{f.name} ({f.size})" for f in result.factors)
        raise ModelLoadError(
            f"{where}: num_class_embeds={rows} does not fit {names}: {result.rows} rows expected, null included"
        )
    return result


def patch_size(card: dict[str, Any], where: Path) -> int:
    """Side of the pixel blocks that are folded into channels; 1 = none.

    Raises:
        ModelLoadError: not a positive whole number.
    """
    patch = card.get("patch", 1)
    if not (isinstance(patch, int) and patch >= 1):
        raise ModelLoadError(f"{where / FILE}: patch {patch!r} is not a positive whole number")
    return patch


def data_range(card: dict[str, Any], options: Options, default: tuple[float, float], where: Path) -> DataRange:
    """Range of the data that the network was trained on: option, then file, then the family's `default`.

    Raises:
        UsageError: the option is not LOW..HIGH with LOW < HIGH.
        ModelLoadError: the file's is not [LOW, HIGH].
    """
    if options.data_range is not None:
        try:
            low, high = (float(part) for part in options.data_range.split(".."))
            return DataRange(low, high)
        except ValueError:
            raise UsageError(
                f"data_range={options.data_range!r} is not LOW..HIGH with LOW < HIGH, e.g. 0..1"
            ) from None
    low_high = card.get("data_range", default)
    try:
        low, high = low_high
        return DataRange(low, high)
    except (TypeError, ValueError):
        raise ModelLoadError(
            f"{where / FILE}: data_range {low_high!r} is not [LOW, HIGH] with LOW < HIGH"
        ) from None


def _from_options(name: str, null: int | None, rows: int | None, where: Path) -> Conditioning:
    if rows is None:
        raise ModelLoadError(f"{where}: factor={name} given, but the network has no class embeddings")
    if null is not None and not 0 <= null < rows:
        raise ModelLoadError(f"{where}: null_class={null} is not a row of the {rows} class embeddings")
    values = [str(row) for row in range(rows) if row != null]
    return Conditioning((Factor(name, tuple(values)),), null)


def _from_card(card: dict[str, Any], summed: bool = False) -> Conditioning:
    try:
        factors = tuple(
            Factor(str(f["name"]), tuple(str(v) for v in f["values"])) for f in card.get("factors", [])
        )
    except (KeyError, TypeError) as error:
        raise ModelLoadError(
            f"{FILE}: factors must be a list of {{name, values}}, got {card['factors']!r}"
        ) from error
    if len(factors) != 1 or summed:
        return Conditioning.with_null_last(factors, summed)
    null = card.get("null_class", factors[0].size)
    if null is not None and not (isinstance(null, int) and 0 <= null <= factors[0].size):
        raise ModelLoadError(f"{FILE}: null_class {null!r} is not a row 0 … {factors[0].size} or null")
    return Conditioning(factors, null)
