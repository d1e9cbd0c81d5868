"""What another network must offer: tiles in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsipipe.models.card import Rules
from wsipipe.plugins.levels import Levels

GROUP = "wsipipe.segmenters"
"""Group of the entry points that name plug-ins: each a function (weights: Path, device: str, said: Said)."""


@dataclass(frozen=True)
class Looks:
    """How a plug-in looks at a slide; lengths in its own pixels, where not said otherwise.

    Attributes
    ----------
    mpp : float
        Resolution that it was trained at, µm/px.
    tile : int
        Side of the square that it is shown at a time.
    context : int
        How far around an object its outline depends on pixels.
    max_diameter_um : float
        No object is longer. Tiles overlap by at least twice this and the context, so that each object is whole in the
        tile whose core holds its centroid.
    percentiles : (float, float) or None
        Of the slide's tissue, which become 0 and 1; None where 0 and 255 do.
    """

    mpp: float
    tile: int = 1024
    context: int = 64
    max_diameter_um: float = 32.0
    percentiles: tuple[float, float] | None = None


@dataclass(frozen=True)
class About:
    """What a plug-in says of itself.

    Attributes
    ----------
    version : str
        Of what computes: library and its version; part of every fingerprint.
    looks : Looks
    types : tuple of str
        Names of its cell types; empty without.
    licence : str
        Of the weights.
    rules : Rules
        Smallest area and probabilities of the cells; the other fields are not used.
    """

    version: str
    looks: Looks
    types: tuple[str, ...] = ()
    licence: str = "unknown"
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one tile.

    Attributes
    ----------
    labels : integer (side, side)
        0 is background; objects are 1..n.
    probability : float (n,), optional
        In [0, 1]; by default 1.
    types : float (n, T), optional
        Probability of each type; needed where there are types.
    """

    labels: NDArray[np.integer]
    probability: NDArray[np.floating] | None = None
    types: NDArray[np.floating] | None = None


class Segmenter(Protocol):
    """Another network on its device, with its own post-processing."""

    @property
    def about(self) -> About:
        """What it says of itself."""

    def objects(self, tiles: NDArray[np.uint8], levels: Levels) -> Sequence[Objects]:
        """Return the objects of each of the *tiles*.

        Equal tiles must give equal objects, whatever stands beside them in the batch. A RuntimeError that says "out
        of memory" makes the run go on with half the batch.

        Parameters
        ----------
        tiles : uint8 (n, side, side, 3)
            RGB at the resolution asked for; always as many at a time, the last ones black where there are fewer.
        levels : Levels
            Black and white of each channel for the whole slide; :func:`wsipipe.plugins.levels.scaled` applies them.
        """
