"""A slide whose nuclei are known: drawn from a seed, H&E-like, of any size, written as a tiled pyramidal TIFF."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsipipe.artifacts import atomic_write
from wsipipe.errors import SettingsError
from wsipipe.phantom.microarray import lay_out
from wsipipe.phantom.render import GLASS
from wsipipe.phantom.truth import PhantomTruth
from wsipipe.settings import MicroarraySettings, PhantomSettings
from wsipipe.slide.tiff_pyramid import TILE, Codec, PyramidWriter, level_sizes
from wsipipe.units import Box, Pair, Size

__all__ = ["PhantomSettings", "PhantomTruth", "write_phantom"]

BRIGHT = int(GLASS[0]), int(GLASS[1]), int(GLASS[2])
BLOCK = 1024
"""Base pixels drawn at a time, on either side."""
OVERVIEW = 512
"""Longest side of the thumbnail in an Aperio file, and of the macro image in a Leica file; both are plain glass."""


def write_phantom(
    path: str | os.PathLike[str],
    settings: PhantomSettings | None = None,
    progress: Callable[[float], None] = lambda share: None,
    array: MicroarraySettings | None = None,
) -> PhantomTruth:
    """Draw a phantom slide into a tiled pyramidal BigTIFF that OpenSlide, TiffSlide and cuCIM open.

    Memory does not grow with the slide, and glass costs next to nothing: all empty tiles are one tile of the file.

    Parameters
    ----------
    path : path
        The output, by any of the names .svs, .tif, .tiff, .scn; takes its place when it is complete.
    settings : PhantomSettings, optional
        With ``bounds`` the file is in Leica's manner: a canvas of ``width`` x ``height`` px, transparent outside of the
        scanned area, which grows to whole tiles of the coarsest level. Else in Aperio's manner, or plain TIFF.
    progress : callable, optional
        Told the share that is done.
    array : MicroarraySettings, optional
        Draw a microarray; the size of the slide is then what it needs, and not what *settings* say.

    Returns
    -------
    PhantomTruth

    Raises
    ------
    OutputError
        When *path* cannot be written.
    """
    settings = settings or PhantomSettings()
    if array:
        settings, cores = lay_out(array, settings)
        truth = PhantomTruth(settings, cores=cores)
    else:
        settings = dataclasses.replace(settings, bounds=_aligned(settings))
        truth = PhantomTruth(settings)
    x0, y0, x1, y1 = truth.scanned
    sizes = level_sizes((x1 - x0, y1 - y0), settings.level_factor)

    with atomic_write(path) as file:
        codec = Codec(0 if settings.lossless else settings.quality)
        writer = PyramidWriter(file, sizes, settings.level_factor, codec, BRIGHT)
        writer.draw(Brush(truth).tile, progress)
        truth.bad = _cut_short(writer, settings, (x0, y0))
        _finish(writer, settings, sizes)
    return truth


class Brush:
    """Draws tiles of the scanned area; keeps the last block of ``BLOCK`` px, since neighbours are asked for in turn."""

    def __init__(self, truth: PhantomTruth) -> None:
        self._truth = truth
        self._origin: Size | None = None
        self._block: NDArray[np.uint8] | None = None

    def tile(self, box: Box) -> NDArray[np.uint8] | None:
        """Return the picture of a tile, whose box counts from the corner of the scanned area; None for glass."""
        origin = box[0] // BLOCK * BLOCK, box[1] // BLOCK * BLOCK
        if origin != self._origin:
            self._origin, self._block = origin, self._draw(origin)
        if self._block is None:
            return None
        pixels = self._block[box[1] - origin[1] : box[3] - origin[1], box[0] - origin[0] : box[2] - origin[0]]
        return None if (pixels == BRIGHT).all() else pixels

    def _draw(self, origin: Size) -> NDArray[np.uint8] | None:
        x0, y0, x1, y1 = self._truth.scanned
        left, top = origin[0] + x0, origin[1] + y0
        box = left, top, min(left + BLOCK, x1), min(top + BLOCK, y1)
        return self._truth.picture(box) if self._truth.has_tissue(box) else None


def _finish(writer: PyramidWriter, settings: PhantomSettings, sizes: list[Size]) -> None:
    """Write the directories in the manner of the vendor."""
    shape = _overview_shape(settings)
    overview = np.broadcast_to(np.array(BRIGHT, np.uint8), (*shape, 3)).copy()
    if settings.bounds:
        text = leica_description(settings, settings.bounds, sizes, (shape[1], shape[0]))
        writer.finish(text, settings.mpp, subfile=0, overview=overview)
    elif settings.vendor == "aperio":
        writer.finish(aperio_description(settings), None, subfile=0, overview=overview)
    else:
        writer.finish("", settings.mpp)


def aperio_description(settings: PhantomSettings) -> str:
    """Return the ImageDescription of an Aperio file."""
    width, height = settings.width, settings.height
    head = f"Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) JPEG/RGB"
    scale = f"|AppMag = {10 / settings.mpp:g}|MPP = {settings.mpp:.6g}" if settings.mpp else ""
    return f"{head} Q={settings.quality}{scale}|Filename = phantom|Seed = {settings.seed}"


def leica_description(settings: PhantomSettings, bounds: Box, sizes: list[Size], macro: Size) -> str:
    """Return the ImageDescription of a Leica SCN file: a macro image of the canvas, and the scan placed in nm."""
    nm = settings.drawn_mpp * 1000
    canvas, (x0, y0, x1, y1) = (settings.width, settings.height), bounds
    scan = [(n + 1 if n else 0, size) for n, size in enumerate(sizes)]
    images = _leica_image("macro", [(1, macro)], canvas, (0, 0), 10 / nm, nm)
    images += _leica_image("scan", scan, (x1 - x0, y1 - y0), (x0, y0), 10_000 / nm, nm)
    return (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="urn:uuid:phantom">'
        f'<collection name="phantom" uuid="urn:uuid:phantom" sizeX="{canvas[0] * nm:.0f}" sizeY="{canvas[1] * nm:.0f}">'
        f"<barcode></barcode>{images}</collection></scn>"
    )


def _leica_image(
    name: str, dimensions: list[tuple[int, Size]], size: Size, offset: Pair, objective: float, nm: float
) -> str:
    levels = "".join(
        f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{ifd}"/>' for r, (ifd, (w, h)) in enumerate(dimensions)
    )
    width, height = dimensions[0][1]
    view = (f"{v * nm:.0f}" for v in (*size, *offset))
    return (
        f'<image name="{name}" uuid="urn:uuid:{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
        f'<device model="wsipipe phantom" version="1"/><pixels sizeX="{width}" sizeY="{height}">{levels}</pixels>'
        '<view sizeX="{}" sizeY="{}" offsetX="{}" offsetY="{}" spacingZ="0"/>'.format(*view)
        + f"<scanSettings><objectiveSettings><objective>{objective:g}</objective></objectiveSettings>"
        "<illuminationSettings><numericalAperture>0.75</numericalAperture>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
    )


def _overview_shape(settings: PhantomSettings) -> tuple[int, int]:
    scale = OVERVIEW / max(settings.width, settings.height)
    return max(1, round(settings.height * scale)), max(1, round(settings.width * scale))


def _aligned(settings: PhantomSettings) -> Box | None:
    """Return the bounds, grown so that every level has a whole number of pixels and lies within the canvas."""
    if settings.bounds is None:
        return None
    x0, y0, x1, y1 = settings.bounds
    if not (0 <= x0 < x1 <= settings.width and 0 <= y0 < y1 <= settings.height):
        raise SettingsError(f"bounds {settings.bounds} are not inside {settings.width} x {settings.height} px")
    step = settings.level_factor ** (len(level_sizes((x1 - x0, y1 - y0), settings.level_factor)) - 1)
    grown = x0 // step * step, y0 // step * step, -(-x1 // step) * step, -(-y1 // step) * step
    if grown[2] > settings.width or grown[3] > settings.height:
        raise SettingsError(
            f"bounds {settings.bounds} grow to {grown}, whole pixels of every level, and leave the "
            f"{settings.width} x {settings.height} px slide; expected some room there"
        )
    return grown


def _cut_short(writer: PyramidWriter, settings: PhantomSettings, origin: Size) -> tuple[Box, ...]:
    """Cut the data of some tiles of level 0 short, and return their boxes in base px."""
    tiles = writer.levels[0]
    drawn = np.flatnonzero(tiles.offsets != writer.blank[0])
    rng = np.random.default_rng(settings.seed)
    chosen = np.sort(rng.permutation(drawn)[: settings.corrupt_tiles])
    tiles.counts[chosen] = tiles.counts[chosen] * 2 // 5
    boxes = []
    for index in chosen.tolist():
        x, y = index % tiles.across * TILE, index // tiles.across * TILE
        x1, y1 = min(x + TILE, tiles.size[0]), min(y + TILE, tiles.size[1])
        boxes.append((x + origin[0], y + origin[1], x1 + origin[0], y1 + origin[1]))
    return tuple(boxes)
