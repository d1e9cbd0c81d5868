"""Where the cores of a drawn microarray lie, and in what state they are, worked out from its settings and a seed."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import SettingsError
from wsipipe.settings import MicroarraySettings, PhantomSettings

MOST_PIXELS = 1_000_000
"""Longest side of a slide."""


@dataclass(frozen=True)
class Core:
    """A core of a drawn microarray.

    Attributes
    ----------
    row, column : int
        From 0, in the array's own directions.
    numbers : tuple of float
        What :func:`~wsipipe.phantom.nuclei.core_field` takes: empty for a core that is missing.
    x, y, radius : float
        In base px; the place where a missing core would be.
    fragmented : bool
    """

    row: int
    column: int
    numbers: tuple[float, ...]
    x: float
    y: float
    radius: float
    fragmented: bool

    @property
    def missing(self) -> bool:
        """Whether there is nothing at its place."""
        return not self.numbers


def lay_out(array: MicroarraySettings, settings: PhantomSettings) -> tuple[PhantomSettings, tuple[Core, ...]]:
    """Return the settings of a slide as large as *array* needs, and its cores, row by row.

    Raises
    ------
    SettingsError
        When cores would overlap, or the slide would be too large.
    """
    if array.spacing_um < array.core_um:
        raise SettingsError(
            f"spacing_um is {array.spacing_um:g}, less than a core's diameter of {array.core_um:g} µm; "
            "expected cores that do not overlap"
        )
    rng = np.random.default_rng([settings.seed, 77])
    places = _places(array, rng)
    margin = array.spacing_um
    places -= places.min(axis=0) - margin
    width, height = (places.max(axis=0) + margin) / settings.drawn_mpp
    if max(width, height) > MOST_PIXELS:
        raise SettingsError(
            f"an array of {width:,.0f} x {height:,.0f} px is too large; expected fewer or smaller cores"
        )
    count = array.rows * array.columns
    order = rng.permutation(count)
    missing, broken = round(array.missing * count), round(array.fragmented * count)
    gone, torn = set(order[:missing].tolist()), set(order[missing : missing + broken].tolist())
    cores = []
    for k, (x, y) in enumerate(places / settings.drawn_mpp):
        radius = array.core_um / 2 / settings.drawn_mpp * rng.uniform(0.97, 1.03)
        numbers = _numbers(float(x), float(y), radius, k in torn, rng)
        state = () if k in gone else numbers
        cores.append(Core(*divmod(k, array.columns), state, float(x), float(y), radius, k in torn))
    return dataclasses.replace(settings, width=math.ceil(width), height=math.ceil(height), bounds=None), tuple(cores)


def _places(array: MicroarraySettings, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the middles (n, 2) of all cores in µm, row by row, around the array's own middle."""
    row, column = (a.ravel() for a in np.mgrid[: array.rows, : array.columns].astype(np.float64))
    v = 2 * row / max(1, array.rows - 1) - 1
    u = 2 * column / max(1, array.columns - 1) - 1
    x = column * array.spacing_um + 0.5 * array.bend_um * v**2
    y = row * array.spacing_um + array.bend_um * u**2
    xy = np.stack([x, y], axis=1) + rng.uniform(-array.jitter_um, array.jitter_um, (len(x), 2))
    turn = math.radians(array.rotation)
    cos, sin = math.cos(turn), math.sin(turn)
    return np.asarray(xy @ np.array([[cos, sin], [-sin, cos]]))


def _numbers(x: float, y: float, radius: float, torn: bool, rng: np.random.Generator) -> tuple[float, ...]:
    """Return the numbers of a core; one that is *torn* has a crack or two, and may have lost a piece."""
    angle, gaps, holes = rng.uniform(0, math.pi), rng.uniform(0.12, 0.3, 2) * radius, rng.choice([0.0, 0.0, 0.4, 0.7])
    second, lost = rng.random() < 0.5, rng.random() < 0.5
    if not torn:
        return x, y, radius, 0.0, 0.0, 0.0, 0.0, -1.0, float(holes)
    piece = float(rng.integers(0, 4 if second else 2)) if lost else -1.0
    across = angle + rng.uniform(0.35, 0.65) * math.pi
    return x, y, radius, angle, float(gaps[0]), across, float(gaps[1]) if second else 0.0, piece, float(holes)
