"""Does the tissue look like H&E in focus? Answered from a few fields at high resolution, as warnings, never errors.

The limits were set on public H&E images of eight sources: in none of them do they warn, save single pale fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray

from wsipipe.errors import TileReadError
from wsipipe.quality.focus import COARSEST_MPP, FOCUS_MPP, LEAST_SHARPNESS, reduced, sharpness
from wsipipe.quality.light import Pixels, optical_density
from wsipipe.slide.protocol import Slide
from wsipipe.units import Pair

FIELD_MPP = FOCUS_MPP
FIELD_UM = 256.0
FIELDS = 12
BROWN_SHARE = 0.10
"""Share of the stained pixels that absorb blue most (DAB) above which the stain is not H&E; H&E: under 0.02."""
COLD_SHARE = 0.15
"""The same for pixels that absorb red most and green little (trichromes, Alcian blue, Giemsa)."""
NUCLEAR_SHARE = 0.005
"""Share of the stained pixels that absorb red as haematoxylin does, under which there is none; H&E: over 0.1, in a
single field of muscle or bone 0.007."""
LEAST_STAINED = 0.1
"""Fields with a smaller share of stained pixels hold too little to be judged in focus or not."""
MOST_BLURRED = 0.15
"""Share of the fields that may be out of focus: one of twelve is often fat, or an edge."""


class Field(NamedTuple):
    """What one field shows: numbers of pixels, and sharpness in grey levels."""

    stained: int
    brown: int
    cold: int
    nuclear: int
    sharpness: float
    stained_share: float


def quality_warnings(slide: Slide, base_mpp: Pair, polygons: Sequence[shapely.Polygon]) -> tuple[str, ...]:
    """Return a line for each reason to doubt that the tissue (*polygons*, base pixels) is H&E in focus."""
    fields = [measure_field(pixels) for pixels in _fields(slide, base_mpp, polygons)]
    stained = sum(f.stained for f in fields)
    if not stained:
        return ()
    brown, cold, nuclear = (sum(f[i] for f in fields) / stained for i in (1, 2, 3))
    warnings = []
    if brown > BROWN_SHARE:
        warnings.append(f"looks like immunohistochemistry, not H&E: {brown:.0%} of the stained pixels are brown")
    if cold > COLD_SHARE:
        warnings.append(f"does not look like H&E: {cold:.0%} of the stained pixels are blue or green")
    if nuclear < NUCLEAR_SHARE:
        warnings.append("no haematoxylin seen: nuclei may be invisible")
    if max(base_mpp) <= COARSEST_MPP:
        warnings += _blurred(fields)
    return tuple(warnings)


def tissue_sharpness(slide: Slide, base_mpp: Pair, polygons: Sequence[shapely.Polygon]) -> float:
    """Return the median sharpness of fields of the tissue, in grey levels as :func:`~wsipipe.quality.focus.sharpness`.

    Parameters
    ----------
    slide : Slide
    base_mpp : (float, float)
    polygons : sequence of shapely.Polygon
        Tissue, in base pixels. Fields that are mostly glass count only where there are no others.

    Returns
    -------
    float
        0 where nothing could be read.
    """
    fields = [measure_field(pixels) for pixels in _fields(slide, base_mpp, polygons)]
    judged = [f for f in fields if f.stained_share >= LEAST_STAINED] or fields
    return float(np.median([f.sharpness for f in judged])) if judged else 0.0


def _blurred(fields: Sequence[Field]) -> list[str]:
    """Return a line when more of the *fields* are out of focus than by chance."""
    judged = [f.sharpness for f in fields if f.stained_share >= LEAST_STAINED]
    blurred = [value for value in judged if value < LEAST_SHARPNESS]
    if len(blurred) <= MOST_BLURRED * len(judged):
        return []
    where = "" if len(blurred) == len(judged) else f"{len(blurred)} of {len(judged)} fields of the tissue "
    middle = float(np.median(blurred))
    return [
        f"{where}looks out of focus: sharpness {middle:.1f}, expected over {LEAST_SHARPNESS:g}; nuclei merge or vanish "
        "there, so scan again, or leave that part out with --tissue FILE"
    ]


def measure_field(rgb: Pixels) -> Field:
    """Return what a field of about 0.5 µm/px shows."""
    od = optical_density(np.asarray(cv2.GaussianBlur(rgb, (0, 0), 1.0), np.uint8), np.full(3, 245, np.float32))
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    stained = od.mean(axis=2) > 0.12
    brown = (blue > 1.1 * green) & (red < blue) & stained
    cold = (green < 0.9 * red) & stained
    nuclear = (red > 0.3 * green) & (red > 0.08) & stained
    all_, *some = (int(mask.sum()) for mask in (stained, brown, cold, nuclear))
    return Field(all_, some[0], some[1], some[2], sharpness(rgb, FIELD_MPP), float(stained.mean()))


def _fields(slide: Slide, base_mpp: Pair, polygons: Sequence[shapely.Polygon]) -> Iterator[Pixels]:
    """Yield up to :data:`FIELDS` readable fields spread evenly over the tissue, resampled to about 0.5 µm/px."""
    info = slide.info
    level = min(range(len(info.levels)), key=lambda i: _distance(info.levels[i].downsample[0] * base_mpp[0]))
    down, size = info.levels[level].downsample, info.levels[level].size
    mpp = base_mpp[0] * down[0]
    side = max(32, round(FIELD_UM / mpp))
    for x, y in _centres(polygons, FIELD_UM / base_mpp[0]):
        left = int(np.clip(x / down[0] - side / 2, 0, max(0, size[0] - side)))
        top = int(np.clip(y / down[1] - side / 2, 0, max(0, size[1] - side)))
        try:
            pixels = slide.read_region(level, left, top, min(side, size[0]), min(side, size[1]))
        except TileReadError:
            continue
        yield reduced(pixels, mpp, FIELD_MPP)


def _distance(mpp: float) -> float:
    return abs(math.log(mpp / FIELD_MPP))


def _centres(polygons: Sequence[shapely.Polygon], step: float) -> NDArray[np.float64]:
    """Return at most :data:`FIELDS` points (n, 2) of the tissue in base pixels, evenly spaced ones of a square grid."""
    if not polygons:
        return np.zeros((0, 2))
    shape = shapely.MultiPolygon(polygons)
    shapely.prepare(shape)
    x0, y0, x1, y1 = shape.bounds
    x, y = (a.ravel() for a in np.meshgrid(np.arange(x0 + step / 2, x1, step), np.arange(y0 + step / 2, y1, step)))
    inside = np.flatnonzero(shapely.contains_xy(shape, x, y))
    if not inside.size:
        point = shapely.point_on_surface(shape)
        return np.array([[point.x, point.y]])
    chosen = inside[np.linspace(0, inside.size - 1, min(FIELDS, inside.size)).round().astype(int)]
    return np.stack([x[chosen], y[chosen]], axis=1)
