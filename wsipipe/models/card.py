"""What a model's card may say: known names, types and ranges, looked at before a network is built after it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

WIDEST, MOST_TYPES = 8192, 1000
"""Channels of a feature map, and cell types, that no model exceeds."""
STEP = 4
"""Of the backbone's widths: pixel-shuffling takes four channels for one."""
RULES = {
    "threshold": (0, 1),
    "marker_threshold": (0, 1),
    "min_area_um2": (0, 1e6),
    "max_diameter_um": (0.1, 1000),
    "growth_um": (0, 1000),
    "min_probability": (0, 1),
    "clump_threshold": (0, 1),
    "min_type_probability": (0, 1),
}
"""Range of each constant of the rules."""
_PARTS = ("format", "backbone", "name", "mpp", "rules", "licence", "classes", "training")
Test = Callable[[Any], bool]


@dataclass(frozen=True)
class Rules:
    """How a model's maps become cells; constants of the model, in working-grid pixels where not said otherwise.

    Attributes
    ----------
    threshold, marker_threshold : float
        Foreground and core probability, chosen on validation images.
    min_area_um2 : float
    max_diameter_um : float
        No nucleus is larger; bigger objects are split and flagged.
    growth_um : float
        How far a core grows to its nucleus's edge.
    min_probability : float
        Cells of a lower mean foreground probability are dropped.
    clump_threshold : float
        Core probability of the parts of a core that holds several small nuclei; 0: cores are never parted.
    min_type_probability : float
        Cells whose likeliest type has a lower mean probability are given none.
    """

    threshold: float = 0.5
    marker_threshold: float = 0.5
    min_area_um2: float = 6.0
    max_diameter_um: float = 32.0
    growth_um: float = 4.0
    min_probability: float = 0.0
    clump_threshold: float = 0.0
    min_type_probability: float = 0.0


def check_card(entry: Any, version: int, heads: Collection[str]) -> None:
    """Refuse the header *entry* of a checkpoint whose parts are missing, of another kind, or out of range.

    Parameters
    ----------
    entry : object
        From JSON.
    version : int
        The format that is read.
    heads : collection of str
        Kinds of heads that are known.

    Raises
    ------
    ValueError
        Says which part, its value, and what was expected.
    """
    _expect(isinstance(entry, dict), "entry", entry, "an object")
    for part in _PARTS:
        _expect(part in entry, "card", sorted(entry), f"one with {part}")
    if entry["format"] != version:
        raise ValueError(f"its format is {_short(entry['format'])}, this version of wsipipe reads format {version}")
    for part in ("name", "licence"):
        _expect(isinstance(entry[part], str), part, entry[part], "text")
    _expect(_number(0.05, 5)(entry["mpp"]), "mpp", entry["mpp"], "0.05 to 5 µm/px")
    _expect(isinstance(entry.get("digest", ""), str), "digest", entry.get("digest"), "text")
    _check_training(entry["training"])
    _expect(isinstance(entry.get("normalise", False), bool), "normalise", entry.get("normalise"), "true or false")
    _check_backbone(entry["backbone"])
    if entry.get("head"):
        _check_head(entry["head"], heads)
    _check_rules(entry["rules"])
    _check_colours(entry["classes"], entry.get("colours"))


def _check_training(said: Any) -> None:
    """Look at those parts of the training that are asked for later: which encoder it was."""
    _expect(isinstance(said, dict), "training", said, "an object")
    settings = said.get("settings") or {}
    _expect(isinstance(settings, dict), "training's settings", settings, "an object")
    for encoder in (said.get("encoder"), settings.get("encoder")):
        _expect(encoder is None or isinstance(encoder, str), "training's encoder", encoder, "its name")


def _check_backbone(said: Any) -> None:
    _expect(isinstance(said, dict) and {"widths", "condition"} <= set(said), "backbone", said, "widths and a condition")
    good = _list(_whole(STEP, WIDEST), 6)(said["widths"]) and not any(width % STEP for width in said["widths"])
    _expect(good, "backbone's widths", said["widths"], f"six multiples of {STEP}, up to {WIDEST}")
    _expect(_whole(0, 2 * WIDEST)(said["condition"]), "backbone's condition", said["condition"], "a width, or 0")


def _check_head(said: Any, heads: Collection[str]) -> None:
    good = isinstance(said, dict) and {"kind", "widths", "types"} <= set(said)
    _expect(good, "head", said, "a kind, widths and types")
    _expect(isinstance(said["kind"], str) and said["kind"] in heads, "head", said["kind"], f"one of {', '.join(heads)}")
    _expect(
        _list(_whole(1, WIDEST))(said["widths"]), "head's widths", said["widths"], f"numbers of channels to {WIDEST}"
    )
    types = said["types"]
    good = isinstance(types, list) and all(isinstance(name, str) and name for name in types)
    good = good and len(set(types)) == len(types) <= MOST_TYPES
    _expect(good, "cell types", types, f"names, each once, {MOST_TYPES} at most")


def _check_rules(said: Any) -> None:
    _expect(isinstance(said, dict), "rules", said, "an object")
    for name, value in said.items():
        _expect(name in RULES, "rule", name, f"one of {', '.join(RULES)}")
        low, high = RULES[name]
        _expect(_number(low, high)(value), name, value, f"{low:g} to {high:g}")


def _check_colours(classes: Any, colours: Any) -> None:
    good = isinstance(classes, dict) and all(map(_list(_whole(0, 255), 3), classes.values()))
    _expect(good, "classes", classes, "names with red, green and blue from 0 to 255")
    if colours:
        good = isinstance(colours, Mapping) and all(_list(_number(-1e3, 1e3), 3)(colours.get(k)) for k in _COLOURS)
        _expect(good and min(colours["spread"]) > 0, "colours", colours, "mean and spread of three channels")


_COLOURS = ("mean", "spread")


def _whole(low: float, high: float) -> Test:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Test:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _list(each: Test, count: int | None = None) -> Test:
    """Return whether a value is a list, as long as *count* says, whose members pass *each*."""
    return lambda value: isinstance(value, list) and len(value) == (count or len(value)) > 0 and all(map(each, value))


def _expect(good: bool, what: str, value: Any, wanted: str) -> None:
    if not good:
        raise ValueError(f"its {what} is {_short(value)}; expected {wanted}")


def _short(value: Any) -> str:
    """Return a value in few words, however large it is."""
    text = str(value)[:60] if not isinstance(value, int) or abs(value) < 10**60 else "a number without end"
    return text or "empty"
