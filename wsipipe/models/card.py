"""What a model's card may say: known names, types and ranges, looked at before a network is built after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from wsipipe.models.checks import WIDEST, expect, many, number, short, whole

MOST_TYPES = 1000
"""Cell types that no model exceeds."""
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
    expect(isinstance(entry, dict), "entry", entry, "an object")
    for part in _PARTS:
        expect(part in entry, "card", sorted(entry), f"one with {part}")
    if entry["format"] != version:
        raise ValueError(f"its format is {short(entry['format'])}, this version of wsipipe reads format {version}")
    for part in ("name", "licence"):
        expect(isinstance(entry[part], str), part, entry[part], "text")
    expect(number(0.05, 5)(entry["mpp"]), "mpp", entry["mpp"], "0.05 to 5 µm/px")
    expect(isinstance(entry.get("digest", ""), str), "digest", entry.get("digest"), "text")
    _check_training(entry["training"])
    expect(isinstance(entry.get("normalise", False), bool), "normalise", entry.get("normalise"), "true or false")
    if entry.get("head"):
        _check_head(entry["head"], heads)
    _check_rules(entry["rules"])
    _check_colours(entry["classes"], entry.get("colours"))


def _check_training(said: Any) -> None:
    """Look at those parts of the training that are asked for later: which encoder it was."""
    expect(isinstance(said, dict), "training", said, "an object")
    settings = said.get("settings") or {}
    expect(isinstance(settings, dict), "training's settings", settings, "an object")
    for encoder in (said.get("encoder"), settings.get("encoder")):
        expect(encoder is None or isinstance(encoder, str), "training's encoder", encoder, "its name")


def _check_head(said: Any, heads: Collection[str]) -> None:
    good = isinstance(said, dict) and {"kind", "widths", "types"} <= set(said)
    expect(good, "head", said, "a kind, widths and types")
    expect(isinstance(said["kind"], str) and said["kind"] in heads, "head", said["kind"], f"one of {', '.join(heads)}")
    expect(many(whole(1, WIDEST))(said["widths"]), "head's widths", said["widths"], f"numbers of channels to {WIDEST}")
    scale = said.get("scale", 1)
    expect(whole(1, 64)(scale), "head's scale", scale, "1 to 64")
    types = said["types"]
    good = isinstance(types, list) and all(isinstance(name, str) and name for name in types)
    good = good and len(set(types)) == len(types) <= MOST_TYPES
    expect(good, "cell types", types, f"names, each once, {MOST_TYPES} at most")


def _check_rules(said: Any) -> None:
    expect(isinstance(said, dict), "rules", said, "an object")
    for name, value in said.items():
        expect(name in RULES, "rule", name, f"one of {', '.join(RULES)}")
        low, high = RULES[name]
        expect(number(low, high)(value), name, value, f"{low:g} to {high:g}")


def _check_colours(classes: Any, colours: Any) -> None:
    good = isinstance(classes, dict) and all(map(many(whole(0, 255), 3), classes.values()))
    expect(good, "classes", classes, "names with red, green and blue from 0 to 255")
    if colours:
        good = isinstance(colours, Mapping) and all(many(number(-1e3, 1e3), 3)(colours.get(k)) for k in _COLOURS)
        expect(good and min(colours["spread"]) > 0, "colours", colours, "mean and spread of three channels")


_COLOURS = ("mean", "spread")
