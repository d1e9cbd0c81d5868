"""Conditions on cells in words: ``area_um2>=20, probability>=0.8, oversize=no, quality=fine|dust``.

All of them must hold. A condition is the name of a column, one of ``>= <= > < =``, and a number; ``=`` takes several
values with ``|`` between them. Columns that say yes or no take these words, ``quality`` those of
:class:`wsipipe.quality.map.Quality`. A cell without a number in the column does not meet the condition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.formats.columns import flag_names, measurement_names
from wsipipe.quality.map import Quality

SIGNS = (">=", "<=", ">", "<", "=")
_SPLIT = re.compile(r"\s*(?:,|\band\b|\s&+\s)\s*")
_PART = re.compile(r"(?P<column>[^<>=]+?)\s*(?P<sign>>=|<=|>|<|=)\s*(?P<value>[^<>=]+)")
_FLAGS = {"no": 0.0, "yes": 1.0, "0": 0.0, "1": 1.0}
_QUALITIES = {kind.label: float(kind) for kind in Quality}


@dataclass(frozen=True)
class Condition:
    """A condition on a column; ``values`` are several only with the sign ``=``."""

    column: str
    sign: str
    values: tuple[float, ...]

    def holds(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which *values* (numbers, or True and False) meet it; none that is no number does."""
        told = np.asarray(self.values, values.dtype if values.dtype.kind == "f" else np.float64)
        compare = {">=": np.greater_equal, "<=": np.less_equal, ">": np.greater, "<": np.less}
        met: NDArray[np.bool_] = np.isin(values, told) if self.sign == "=" else compare[self.sign](values, told[0])
        return met


def columns_with_conditions(schema: pa.Schema) -> tuple[str, ...]:
    """Return the columns of a master file that conditions can be on."""
    return (*measurement_names(schema), *flag_names(schema))


def read_conditions(text: str, schema: pa.Schema, option: str = "--where") -> tuple[Condition, ...]:
    """Return the conditions that *text* lists, on columns of *schema*; none of an empty text.

    Raises
    ------
    SettingsError
        *option* names where the text comes from.
    """
    flags, known = set(flag_names(schema)), columns_with_conditions(schema)
    return tuple(_read(part, known, flags, option) for part in _SPLIT.split(text.strip()) if part)


def _read(part: str, known: Sequence[str], flags: set[str], option: str) -> Condition:
    found = _PART.fullmatch(part.strip())
    if not found:
        raise SettingsError(f"{option}: {part!r} is no condition; expected some such as area_um2>=20, oversize=no")
    column, sign = found["column"].strip(), found["sign"]
    if column not in known:
        raise SettingsError(f"{option}: these cells have no column {column!r}; expected one of {', '.join(known)}")
    words = _FLAGS if column in flags else _QUALITIES if column == "quality" else {}
    values = tuple(_value(word.strip(), words, f"{option}: {part!r}") for word in found["value"].split("|"))
    if sign != "=" and (len(values) > 1 or column in flags):
        raise SettingsError(
            f"{option}: {part!r} has several values, or is of yes and no; those go with = alone, not {sign}"
        )
    return Condition(column, sign, values)


def _value(word: str, words: Mapping[str, float], where: str) -> float:
    if word.lower() in words:
        return words[word.lower()]
    try:
        value = float(word)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or (words is _FLAGS):
        wanted = f"a number, or one of {', '.join(words)}" if words else "a number"
        raise SettingsError(f"{where}: the value is {word!r}; expected {wanted}")
    return value


def met(table: pa.Table, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
    """Return which rows of *table* meet all *conditions*."""
    keep = np.ones(table.num_rows, np.bool_)
    for condition in conditions:
        keep &= condition.holds(numbers_of(table[condition.column]))
    return keep


def numbers_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as numbers, NaN where it has none; yes and no as 1 and 0."""
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return np.asarray(column.to_numpy())
