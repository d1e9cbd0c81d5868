"""Slides through TiffSlide: OME-TIFF, compressions that OpenSlide does not decode, and remote files (fsspec URLs)."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffFile, TiffFileError, TiffPageSeries
from tiffslide import TiffSlide

from wsipipe.errors import FAILURES, SettingsError, UnsupportedSlide
from wsipipe.settings import SlideSettings
from wsipipe.slide.planes import plane_of
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.remote import Blocks, is_url
from wsipipe.slide.resolution import choose_mpp, number, pair, tiff_mpp
from wsipipe.slide.tiff_planes import UM, planes_of, take_plane
from wsipipe.slide.tiff_tiles import Placed, missing_as_alpha, parts_held, refuse_missing_tiles
from wsipipe.units import Box, Pair

ASSOCIATED = ("label", "macro", "overview", "thumbnail")

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damage is raised, not logged


class RemoteTiffSlide(TiffSlide):
    """A slide at a URL, of which only the blocks that are read are fetched."""

    def __init__(self, url: str) -> None:
        self._blocks = Blocks(url)
        try:
            super().__init__(self._blocks, tifffile_options={"name": self._blocks.name})
        except BaseException:
            self._blocks.close()
            raise

    def close(self) -> None:
        """Close the file, and let go of its blocks."""
        super().close()
        self._blocks.close()


class TiffSlideReader(Reader[TiffSlide]):
    """A slide opened by TiffSlide."""

    name = "tiffslide"
    failures = (*FAILURES, TiffFileError)

    def _open(self) -> TiffSlide:
        handle = RemoteTiffSlide(self._path) if is_url(self._path) else TiffSlide(self._path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it remarks on what it does not know of NDPI and Ventana files
                self._planes = _select(handle, self._path, self._settings)
                _ = handle.properties
        except BaseException:
            handle.close()
            raise
        return handle

    def _describe(self, handle: TiffSlide) -> SlideInfo:
        properties, scene = handle.properties, self._settings.scene
        objective = number(properties["tiffslide.objective-power"])
        tiff = tiff_mpp(*(properties.get(f"tiff.{tag}") for tag in ("XResolution", "YResolution", "ResolutionUnit")))
        is_ome = handle.ts_tifffile.is_ome
        mpp, source = choose_mpp(_ome_mpp(handle, scene) if is_ome else _vendor_mpp(properties, tiff), tiff, objective)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid(list(handle.level_dimensions)),
            mpp=mpp,
            mpp_source=source,
            bounds=_bounds(properties),
            objective=objective,
            vendor=properties["tiffslide.vendor"] or ("ome-tiff" if is_ome else "generic-tiff"),
            scenes=tuple(_scene_names(handle)),
            scene=scene,
            planes=self._planes,
            plane=int(self._settings.plane or 0),
        )

    def _read(self, handle: TiffSlide, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        downsample = handle.level_downsamples[level]
        location = _locate(x, downsample), _locate(y, downsample)
        box = x, y, x + width, y + height
        held = parts_held(handle.ts_tifffile, _parts(handle, level), box)
        pixels = np.asarray(handle.read_region(location, level, (width, height), as_array=True), np.uint8)
        return missing_as_alpha(held, box, pixels)

    def _release(self, handle: TiffSlide) -> None:
        handle.close()


def _locate(level_px: int, downsample: float) -> int:
    """Return the base pixel that TiffSlide, which truncates base / downsample, turns into *level_px*."""
    base = math.ceil(level_px * downsample)
    return base if int(base / downsample) == level_px else base + 1


def _parts(handle: TiffSlide, level: int) -> list[Placed]:
    """Return the pages that make up a level: several in Leica files."""
    composition = handle.properties.get("tiffslide.series-composition")
    if not composition:
        return [Placed(_series(handle, handle.properties["tiffslide.series-index"]).levels[level].pages[0], (0, 0))]
    return [
        Placed(_series(handle, index).levels[level].pages[0], (offsets[level][1], offsets[level][0]))
        for index, offsets in composition["located_series"].items()
    ]


def _series(handle: TiffSlide, index: int) -> TiffPageSeries:
    return handle.ts_tifffile.series[index]


def _scene_indices(tiff: TiffFile) -> list[int]:
    """Return the series that are scenes: of OME-TIFF all but label and overview images, elsewhere the first."""
    if not tiff.is_ome:
        return [0]
    return [i for i, s in enumerate(tiff.series) if not s.name.lower().startswith(ASSOCIATED)] or [0]


def _scene_names(handle: TiffSlide) -> list[str]:
    tiff = handle.ts_tifffile
    return [tiff.series[i].name or str(n) for n, i in enumerate(_scene_indices(tiff))]


def _select(handle: TiffSlide, path: str, settings: SlideSettings) -> tuple[str, ...]:
    """Point TiffSlide, which knows only series 0 and no stacks, at scene and focal plane; return the planes' names."""
    tiff, indices = handle.ts_tifffile, _scene_indices(handle.ts_tifffile)
    if settings.scene >= len(indices):
        names = ", ".join(f"{i} {name!r}" for i, name in enumerate(_scene_names(handle)))
        raise SettingsError(f"{path} has no scene {settings.scene}; it has {len(indices)}: {names}")
    index = indices[settings.scene]
    planes = planes_of(tiff, index)
    plane = plane_of(path, settings.plane, planes)
    for i in {0, index}:
        take_plane(tiff, i, plane if i == index else 0)
    _refuse_other_than_rgb(path, _series(handle, index))
    refuse_missing_tiles(level.pages[0] for level in _series(handle, index).levels)
    _select_scene(handle, index)
    return planes


def _select_scene(handle: TiffSlide, index: int) -> None:
    if index == 0:
        return
    series, properties = _series(handle, index), handle.properties
    for key in [k for k in properties if k.startswith("tiffslide.level[")]:
        del properties[key]
    properties["tiffslide.series-index"], properties["tiffslide.series-axes"] = index, series.axes
    for i, level in enumerate(series.levels):
        height, width = level.shape[:2]
        properties[f"tiffslide.level[{i}].width"], properties[f"tiffslide.level[{i}].height"] = width, height


def _refuse_other_than_rgb(path: str, series: TiffPageSeries) -> None:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if sizes.get("T", 1) > 1:
        raise UnsupportedSlide(f"{path} holds {sizes['T']} time points; expected one")
    if sizes.get("S", 1) not in (3, 4):
        channels = sizes.get("C", sizes.get("S", 1))
        raise UnsupportedSlide(
            f"{path} holds {channels} separate channel(s), as fluorescence or a mask does; expected brightfield RGB"
        )
    if series.dtype != np.uint8:
        raise UnsupportedSlide(f"{path} holds {series.dtype} pixels; expected 8-bit RGB")


def _vendor_mpp(properties: Mapping[str, Any], tiff: Pair | None) -> Pair | None:
    """Return TiffSlide's resolution unless it merely repeats the TIFF tags."""
    stated = pair(properties["tiffslide.mpp-x"], properties["tiffslide.mpp-y"])
    same = stated is not None and tiff is not None and math.isclose(stated[0], tiff[0], rel_tol=1e-9)
    return None if same else stated


def _ome_mpp(handle: TiffSlide, scene: int) -> Pair | None:
    """Return PhysicalSizeX/Y of the scene's OME-XML in µm."""
    try:
        root = ElementTree.fromstring(handle.ts_tifffile.ome_metadata or "<none/>")
    except ElementTree.ParseError:
        return None
    pixels = root.findall(".//{*}Image/{*}Pixels")
    index = _scene_indices(handle.ts_tifffile)[scene]
    if index >= len(pixels):
        return None
    attributes = pixels[index].attrib
    um = [UM.get(attributes.get(f"PhysicalSize{axis}Unit", "\u00b5m")) for axis in "XY"]
    size = pair(attributes.get("PhysicalSizeX"), attributes.get("PhysicalSizeY"))
    return None if size is None or um[0] is None or um[1] is None else (size[0] * um[0], size[1] * um[1])


def _bounds(properties: Mapping[str, Any]) -> Box | None:
    values = [properties[f"tiffslide.bounds-{key}"] for key in ("x", "y", "width", "height")]
    if any(value is None for value in values):
        return None
    x, y, width, height = (int(value) for value in values)
    return x, y, x + width, y + height
