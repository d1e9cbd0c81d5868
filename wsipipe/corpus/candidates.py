"""From a slide to the patches that it could give: where they lie, at what resolution, and how to read them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.corpus.sources import Source
from wsipipe.corpus.splits import rank
from wsipipe.errors import MissingMpp, SettingsError, TileReadError, UnsupportedSlide
from wsipipe.geometry import intersect
from wsipipe.quality.light import glass_colour, optical_density
from wsipipe.raster import Pixels, SlideRaster, slide_grid
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings
from wsipipe.slide import Slide, fingerprint, open_slide, require_mpp, thumbnail
from wsipipe.slide.overview import read_tolerantly
from wsipipe.slide.protocol import SlideInfo
from wsipipe.tissue import Tissue, find_tissue
from wsipipe.units import Box, Pair

TOLERANCE = 0.98
"""An image that is this much of a patch wide holds one: the rest is its reflection."""

NEUTRAL = 8.0
"""Glass is grey: a bright colour whose channels differ by more is pale tissue of a picture without any glass."""

SMALL_PIXELS = 1 << 22
"""A picture of no more pixels is reduced in one go."""

BRIGHT = 220.0
"""In a field of view the commonest bright grey counts as glass from this brightness on: it may be pale stroma."""
FIELD_PATCHES = 16
"""An image of no more patches is a field of view: it may be tissue throughout, which no search for glass can tell, and
its patches are judged one by one."""


class Look(NamedTuple):
    """What the filters need to know of a slide as a whole.

    Attributes
    ----------
    glass : float32 (3,)
        Colour of empty glass.
    density : float
        Median optical density of the tissue.
    mpp : float
        Resolution that the slide was scanned at, µm/px: what is enlarged beyond it cannot be sharp.
    """

    glass: NDArray[np.float32]
    density: float
    mpp: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """The patches that a slide could give.

    Attributes
    ----------
    raster : SlideRaster
    side : int
        Side of a patch in grid pixels.
    corners : int64 (n, 2)
        Top-left corners x, y in grid pixels, in the order in which they are tried.
    outside : int
        Number of further patches, which touch no tissue.
    look : Look
    warnings : tuple of str
        Reasons to doubt the slide: another stain, out of focus.
    """

    raster: SlideRaster
    side: int
    corners: NDArray[np.int64]
    outside: int
    look: Look
    warnings: tuple[str, ...]

    @property
    def mpp(self) -> float:
        """Resolution of the patches in µm/px (the geometric mean, where pixels are not square)."""
        return math.sqrt(self.raster.grid.um2_per_px)

    def with_raster(self, raster: SlideRaster) -> Candidates:
        """Return the same candidates, read through another handle."""
        return dataclasses.replace(self, raster=raster)

    def box(self, number: int) -> Box:
        """Return the grid pixels of a candidate."""
        x, y = self.corners[number].tolist()
        return x, y, x + self.side, y + self.side

    def base_corner(self, number: int) -> tuple[int, int]:
        """Return the top-left corner of a candidate in base pixels, rounded."""
        x0, y0, _, _ = self.raster.grid.base_box(self.box(number))
        return round(x0), round(y0)

    def read(self, number: int) -> Pixels | None:
        """Return the pixels of a candidate, uint8 (side, side, 3), or None when a part of it cannot be read."""
        box = self.box(number)
        pixels = self.raster.read(box)
        hit = any(x1 > x0 and y1 > y0 for x0, y0, x1, y1 in (intersect(bad, box) for bad in self.raster.bad))
        return None if hit else pixels


def find_candidates(
    source: Source,
    settings: CorpusSettings,
    slide_settings: SlideSettings,
    tissue_settings: TissueSettings,
    image_mpp: float | None = None,
) -> Candidates:
    """Return the patches that *source* could give; reads no more of it than a small picture and a few fields.

    Raises
    ------
    SlideError
        When the slide does not open, states no resolution, or is smaller than a patch.
    SettingsError
        When it is too coarse.
    """
    slide = _open(source, slide_settings, image_mpp)
    base_mpp = require_mpp(slide.info, slide_settings)
    target, allowed = _working_mpp(slide.info, base_mpp, settings)
    grid = slide_grid(slide.info, base_mpp, target, settings.allow_upsample or allowed)
    raster = SlideRaster(slide, grid, fingerprint(source.path), cached_chunks=8)
    corners = grid_corners(grid.size, settings.patch, settings.max_overlap)
    is_field = len(corners) <= FIELD_PATCHES
    if tissue_settings.tissue == "auto" and is_field:
        tissue_settings = dataclasses.replace(tissue_settings, tissue="none")
    tissue = find_tissue(slide, base_mpp, tissue_settings)
    _refuse_unread(source.path, tissue, settings.max_bad_tiles)
    boxes = np.concatenate([corners, corners + settings.patch], axis=1)
    inside = np.ones(len(boxes), bool) if tissue.source == "none" else tissue.overlaps(boxes, grid.scale)
    look = _look(slide, base_mpp, tissue, is_field)
    chosen = _ordered(corners[inside], settings, source.name)
    return Candidates(raster, settings.patch, chosen, int((~inside).sum()), look, tissue.warnings)


def _refuse_unread(path: str, tissue: Tissue, most: float) -> None:
    share = tissue.unread_um2 / tissue.area_um2 if tissue.area_um2 else 0.0
    if share > most:
        raise TileReadError(
            f"{path}: {share:.1%} of the tissue cannot be read; expected at most {most:.1%} (--max-bad-tiles)"
        )


def grid_corners(size: tuple[int, int], side: int, max_overlap: float) -> NDArray[np.int64]:
    """Return the corners x, y of patches side by side from the origin on, int64 (n, 2), row-major.

    What is left at the far edge becomes one more row or column, moved inwards to end at the edge, as long as it
    overlaps its neighbour by no more than *max_overlap* of a patch.
    """
    xs, ys = (_starts(n, side, max_overlap) for n in size)
    return np.array([(x, y) for y in ys for x in xs], dtype=np.int64).reshape(-1, 2)


def _starts(length: int, side: int, max_overlap: float) -> list[int]:
    if length < TOLERANCE * side:
        return []
    starts = list(range(0, max(1, length - side + 1), side))
    left = length - starts[-1] - side
    return [*starts, length - side] if left > 0 and left >= (1 - max_overlap) * side else starts


def _open(source: Source, settings: SlideSettings, image_mpp: float | None) -> Slide:
    """Open a slide with the resolution that its CSV, its file or, last, *image_mpp* says."""
    slide = open_slide(source.path, dataclasses.replace(settings, mpp=source.mpp or settings.mpp))
    if slide.info.mpp is None and image_mpp is not None:
        slide.close()
        slide = open_slide(source.path, dataclasses.replace(settings, mpp=image_mpp))
    if slide.info.mpp is None:
        slide.close()
        raise MissingMpp(f"{source.path} does not state its resolution: give --image-mpp, or the column mpp of a CSV")
    return slide


def _working_mpp(info: SlideInfo, base_mpp: Pair, settings: CorpusSettings) -> tuple[float | None, bool]:
    """Return the resolution at which to read a slide (None: its own), and whether it is enlarged to fill a patch."""
    own = math.sqrt(base_mpp[0] * base_mpp[1])
    wanted = settings.mpp or own
    filling = min(n * m for n, m in zip(info.size, base_mpp, strict=True)) / settings.patch
    if filling >= TOLERANCE * wanted:
        return settings.mpp or None, False
    if wanted > 1.001 * settings.max_zoom * filling:
        zoom, (width, height) = math.ceil(100 * wanted / filling) / 100, info.size
        raise UnsupportedSlide(
            f"{info.path} is smaller than a patch: {width} x {height} px at {own:.3g} µm/px, expected "
            f"{settings.patch} px at {wanted:.3g}; --max-zoom {zoom:g} takes it at a finer resolution"
        )
    return filling, True


def _look(slide: Slide, base_mpp: Pair, tissue: Tissue, is_field: bool) -> Look:
    side_um = min(n * m for n, m in zip(slide.info.size, base_mpp, strict=True))
    picture, scale = _small(slide, max(*base_mpp, min(8.0, side_um / 256)))
    glass = glass_colour(picture, slide.info.background)
    if np.ptp(glass) > NEUTRAL or (is_field and glass.min() < BRIGHT):
        glass = np.full(3, 245, np.float32)
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.0)
    mask = tissue.mask(scale, (0, 0, picture.shape[1], picture.shape[0]))
    density = optical_density(np.asarray(smooth, np.uint8), glass).mean(axis=2)
    return Look(glass, float(np.median(density[mask])) if mask.any() else 0.0, max(base_mpp))


def _small(slide: Slide, mpp: float) -> tuple[Pixels, Pair]:
    """Return the whole slide at about *mpp*, uint8 (h, w, 3), and base pixels per pixel of it."""
    width, height = slide.info.size
    if width * height > SMALL_PIXELS or slide.info.mpp is None:
        return thumbnail(slide, mpp)
    size = tuple(max(1, round(n * m / mpp)) for n, m in zip((width, height), slide.info.mpp, strict=True))
    picture = cv2.resize(read_tolerantly(slide, 0, 0, 0, width, height), size, interpolation=cv2.INTER_AREA)
    return np.asarray(picture, np.uint8), (width / size[0], height / size[1])


def _ordered(corners: NDArray[np.int64], settings: CorpusSettings, name: str) -> NDArray[np.int64]:
    """Return *corners* as they are, or drawn at random where only some of them will be kept."""
    if not 0 < settings.cap < len(corners):
        return corners
    seed = int(rank(settings.seed, "cap", name)[:16], 16)
    return corners[np.random.default_rng(seed).permutation(len(corners))]


def refuse(settings: CorpusSettings) -> None:
    """Raise :class:`~wsipipe.errors.SettingsError` for settings that contradict one another."""
    if settings.mpp and settings.mpp < 0.05:
        raise SettingsError(f"mpp is {settings.mpp}; expected 0.05 to 5 µm/px, or 0 for each image's own")
    if settings.val + settings.test > 1:
        raise SettingsError(
            f"val and test are {settings.val:g} and {settings.test:g}; expected shares that add up to at most 1"
        )
