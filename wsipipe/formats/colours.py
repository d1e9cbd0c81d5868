"""Colours of cell classes, where a model does not bring its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rgb = tuple[int, int, int]

KNOWN: dict[str, Rgb] = {
    # as QuPath has them
    "tumor": (200, 0, 0),
    "tumour": (200, 0, 0),
    "stroma": (150, 200, 150),
    "immune cells": (160, 90, 160),
    "necrosis": (50, 50, 50),
    "other": (255, 200, 0),
    "negative": (90, 90, 180),
    "positive": (200, 50, 50),
    "1+": (255, 215, 0),
    "2+": (225, 150, 50),
    "3+": (200, 50, 50),
    # as annotated sets and their models are drawn
    "neoplastic": (226, 26, 28),
    "inflammatory": (40, 215, 80),
    "lymphocyte": (40, 215, 80),
    "connective": (50, 130, 255),
    "stromal": (50, 130, 255),
    "spindle-shaped": (50, 130, 255),
    "dead": (255, 255, 90),
    "necrotic": (255, 255, 90),
    "epithelial": (255, 140, 0),
}
"""Customary colours, by names in small letters. Those of models' types lie at least 30 (CIE76) from each other, and 45
from nuclei, cytoplasm and stroma in H&E."""
PALETTE: tuple[Rgb, ...] = (
    (230, 85, 13),
    (49, 130, 189),
    (49, 163, 84),
    (158, 54, 190),
    (214, 39, 100),
    (0, 150, 160),
    (140, 100, 30),
    (100, 100, 110),
)
"""For classes without a customary colour, in the order of their names; used again from the start after the last."""
NO_CLASS: Rgb = (0, 225, 235)
"""Of cells without a class, in pictures: no class has it, and no stain."""


def class_colours(classes: Mapping[str, Any] | Sequence[str]) -> dict[str, Rgb]:
    """Return the (r, g, b) of each class, from a mapping that may state it (or None) or from names alone."""
    stated = classes if isinstance(classes, Mapping) else dict.fromkeys(classes)
    free = [name for name in sorted(stated) if stated[name] is None and name.lower() not in KNOWN]
    spare = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(free)}
    return {name: _rgb(rgb) if rgb else spare.get(name) or KNOWN[name.lower()] for name, rgb in stated.items()}


def _rgb(value: Sequence[int]) -> Rgb:
    r, g, b = value
    return int(r), int(g), int(b)
