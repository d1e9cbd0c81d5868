"""Colours of classes: customary ones, told apart, and seen on a slide."""

from __future__ import annotations

from itertools import combinations

import cv2
import numpy as np
import pytest

from wsipipe.formats.colours import KNOWN, NO_CLASS, PALETTE, Rgb, class_colours

TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial", "other")
"""What models tell apart."""
TISSUE: dict[str, Rgb] = {
    "nucleus": (80, 50, 120), "dark nucleus": (45, 30, 75), "stroma": (226, 170, 205), "cytoplasm": (200, 120, 170),
}  # fmt: skip


def _apart(one: Rgb, other: Rgb) -> float:
    """Return the CIE76 difference of two colours."""
    lab = [cv2.cvtColor(np.array([[rgb]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0] for rgb in (one, other)]
    return float(np.linalg.norm(lab[0] - lab[1]))


@pytest.mark.parametrize(("one", "other"), [*combinations((*TYPES, "none"), 2)])
def test_types_are_told_apart(one: str, other: str) -> None:
    colours = KNOWN | {"none": NO_CLASS}
    assert _apart(colours[one], colours[other]) >= 30


@pytest.mark.parametrize("name", [*TYPES, "none"])
@pytest.mark.parametrize("tissue", TISSUE)
def test_types_are_seen_on_tissue(name: str, tissue: str) -> None:
    assert _apart((KNOWN | {"none": NO_CLASS})[name], TISSUE[tissue]) >= 45


def test_what_is_stated_counts_and_names_are_known_in_any_case() -> None:
    found = class_colours({"Tumor": None, "OTHER": (1, 2, 3), "Goblet": None, "Immune cells": None})
    assert found == {"Tumor": (200, 0, 0), "OTHER": (1, 2, 3), "Goblet": PALETTE[0], "Immune cells": (160, 90, 160)}
