"""What counts as one cell, and how far around a pixel that can depend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wsipipe.errors import SettingsError

FOREGROUND, MARKER, TYPE = "foreground", "marker", "type:"
"""Names of maps: probability of a nucleus, of the core of a nucleus, and (as a prefix) of a type."""


CLUMP_PART_UM2, CLUMP_SHARE_UM2 = 1.0, 11.0
"""Smallest part of a clump, and what each part has at most; nuclei of some 4 µm, as in kidney tubules."""

MAX_DEPTH_PX = 51
"""Depths are kept in uint8, in fifths of a pixel."""


def level_of(threshold: float) -> int:
    """Return the smallest uint8 map value that counts as at or above a probability (at least 1)."""
    return max(1, math.ceil(threshold * 255 - 1e-9))


@dataclass(frozen=True)
class CellRules:
    """What counts as one cell. Lengths are in grid pixels; all but the thresholds are constants of the model.

    Attributes
    ----------
    threshold : float
        Foreground probability of a nucleus pixel.
    marker_threshold : float
        Probability of a nucleus core pixel (unused without a marker map).
    min_area_px : float
        Smaller cells are dropped.
    growth_px : int
        How far a core grows to the edge of its nucleus (R).
    max_diameter_px : int
        No side of a cell's box is longer (D). Cores up to D - 2 R are taken as they are.
    min_probability : float
        Cells with a lower mean foreground are dropped.
    core_share : float
        Where cores come from the shape: a core pixel is at least this share as deep as the deepest one nearby.
    peak_px : int
        What "nearby" means, and how far apart the seeds of an oversize object are.
    drop_oversize : bool
        Cells that were cut out of an oversize object are dropped.
    min_type_probability : float
        Cells whose likeliest type has a lower mean probability have none.
    clump_threshold : float
        Where the marker map is above it lie the parts of a core that holds several small nuclei; 0: no core does.
    clump_part_px : float
        Pixels of the smallest such part.
    clump_share_px : float
        Only cores with fewer pixels for each part are clumps: larger nuclei have uneven insides.
    """

    threshold: float
    marker_threshold: float
    min_area_px: float
    growth_px: int
    max_diameter_px: int
    min_probability: float = 0.0
    core_share: float = 0.75
    peak_px: int = 6
    drop_oversize: bool = False
    min_type_probability: float = 0.0
    clump_threshold: float = 0.0
    clump_part_px: float = 4.0
    clump_share_px: float = 44.0

    def __post_init__(self) -> None:
        if self.growth_px < 1 or self.peak_px < 1 or self.max_core_px < 3:
            raise SettingsError(
                f"growth_px {self.growth_px}, peak_px {self.peak_px}, max_diameter_px {self.max_diameter_px}; "
                "expected growth and peak of at least 1 and a diameter of at least 2 * growth + 3"
            )

    @property
    def level(self) -> int:
        """Smallest uint8 value of a foreground pixel."""
        return level_of(self.threshold)

    @property
    def max_core_px(self) -> int:
        """Longest side of a core's box that is not oversize."""
        return self.max_diameter_px - 2 * self.growth_px

    @property
    def depth_px(self) -> int:
        """Depth beyond which all pixels of an object count as equally deep."""
        return max(1, min(self.max_core_px // 3, MAX_DEPTH_PX))

    @property
    def shape_growth_px(self) -> int:
        """How far cores that come from a shape grow at most (S); each only as far as D allows."""
        return min(self.growth_px + self.depth_px, (self.max_diameter_px - 1) // 2)


def halo(rules: CellRules, names: Sequence[str] = (FOREGROUND, MARKER), expand_px: int = 0) -> int:
    """Return how many grid px a window must reach beyond its core (up to the slide's edge) for an exact result.

    With D = max_diameter_px, R = growth_px, C = D - 2 R (core), p = peak_px, d = depth_px, S = shape_growth_px >= R:

    1. A core pixel of the marker map depends on 1 px around (smoothing). Whether its component is oversize is known
       within C: a component that runs into the window's border from C px away has an extent above C, truncated or not.
       One that is not oversize is parted, as a clump, by what lies inside it.
    2. The depth inside oversize components reaches d further, a core pixel by shape p + 1, the extent of its component
       C, a seed p. Markers therefore depend on ``m = (C + 1) + d + 2 p + 1 + C`` px; without a marker map the first
       term is 0.
    3. Growth is at most one pixel a step: a label depends on S + m. A component without a core pixel fits in D, so it
       depends on D - 1 + 1 px (d + p + 1 in place of 1 without a marker map). Let ``l`` be the larger of the two.
    4. By construction no cell, in any window, is larger than D: C + 2 R, or D. A cell whose centroid lies in
       the core, and every cell that might enclose it, has that centroid in its box, hence lies within D - 1 of the
       core; all labels there must be right: ``D - 1 + l``.
    5. Growing by ``expand_px`` = e: the competitors lie within 2 e of the cell, and are right as whole cells within
       D - 1 more: ``+ 2 e + D - 1``.
    """
    d, core = rules.max_diameter_px, rules.max_core_px
    has_marker = MARKER in names
    marker = (core + 1 if has_marker else 0) + rules.depth_px + 2 * rules.peak_px + 1 + core
    bare = d - 1 + (1 if has_marker else rules.depth_px + rules.peak_px + 1)
    label = max(rules.shape_growth_px + marker, bare)
    return d - 1 + label + (2 * expand_px + d - 1 if expand_px else 0)
