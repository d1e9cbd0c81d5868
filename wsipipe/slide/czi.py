"""Zeiss CZI through pylibCZIrw (extra ``czi``): stacks, and single scenes; plain slides open in OpenSlide, too."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pylibCZIrw import czi

from wsipipe.errors import UnsupportedSlide
from wsipipe.slide.planes import names_of, plane_of
from wsipipe.slide.protocol import SlideInfo
from wsipipe.slide.reader import Reader, pyramid
from wsipipe.slide.resolution import choose_mpp, number, pair
from wsipipe.units import Box

CACHE_BYTES, CACHE_BLOCKS = 1 << 27, 64
"""Of decoded blocks, for each open slide: a block of 2,048 px a side is read by many regions."""
GLASS = (1.0, 1.0, 1.0)
SAME_ZOOM = 0.02
"""Blocks whose zooms differ by less are of one level."""


@dataclass
class OpenCzi:
    """An open document and what regions of it need."""

    document: czi.CziReader
    closing: ExitStack
    scene: int | None = None
    corner: tuple[int, int] = (0, 0)
    plane: int = 0
    factors: list[int] = field(default_factory=lambda: [1])


class CziReader(Reader[OpenCzi]):
    """A slide opened by pylibCZIrw."""

    name = "czi"

    def _open(self) -> OpenCzi:
        cache = czi.CacheOptions(czi.CacheType.Standard, CACHE_BYTES, CACHE_BLOCKS)
        stack = ExitStack()
        opened = OpenCzi(stack.enter_context(czi.open_czi(self._path, cache_options=cache)), stack)
        try:
            self._choose(opened)
        except BaseException:
            stack.close()
            raise
        return opened

    def _choose(self, opened: OpenCzi) -> None:
        """Find scene, plane and levels in the document."""
        document, scenes = opened.document, opened.document.scenes_bounding_rectangle_no_pyramid
        _refuse_other_than_rgb(self._path, document)
        if scenes and self._settings.scene < len(scenes):
            opened.scene = sorted(scenes)[self._settings.scene]
        self._box = _box(document, opened.scene)
        opened.corner = self._box[:2]
        first, end = document.total_bounding_box_no_pyramid.get("Z", (0, 1))
        self._xml = ElementTree.fromstring(document.raw_metadata)
        self._planes = names_of(_heights(self._xml, end - first))
        opened.plane = first + plane_of(self._path, self._settings.plane, self._planes)
        opened.factors = _factors(document, opened.plane, self._box)

    def _describe(self, handle: OpenCzi) -> SlideInfo:
        width, height = self._box[2] - self._box[0], self._box[3] - self._box[1]
        objective = number(self._xml.findtext(".//Instrument/Objectives/Objective/NominalMagnification"))
        stated = pair(_metres(self._xml, "X"), _metres(self._xml, "Y"))
        mpp, source = choose_mpp(stated and (stated[0] * 1e6, stated[1] * 1e6), None, objective)
        return SlideInfo(
            path=self._path,
            backend=self.name,
            levels=pyramid([(width // f, height // f) for f in handle.factors]),
            mpp=mpp,
            mpp_source=source,
            objective=objective,
            vendor="zeiss",
            scenes=tuple(_scene_names(self._xml, len(handle.document.scenes_bounding_rectangle_no_pyramid))),
            scene=self._settings.scene,
            planes=self._planes,
            plane=int(self._settings.plane or 0),
        )

    def _read(self, handle: OpenCzi, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        factor, (left, top) = handle.factors[level], handle.corner
        bgr = handle.document.read(
            roi=(left + x * factor, top + y * factor, width * factor, height * factor),
            plane={"C": 0, "Z": handle.plane},
            scene=handle.scene,
            zoom=1 / factor,
            background_pixel=GLASS,
        )
        if bgr.shape != (height, width, 3):
            raise ValueError(f"the library gave {bgr.shape[1]} x {bgr.shape[0]} px for {width} x {height}")
        return np.ascontiguousarray(bgr[..., ::-1])

    def _release(self, handle: OpenCzi) -> None:
        handle.closing.close()


def _refuse_other_than_rgb(path: str, document: czi.CziReader) -> None:
    types, box = document.pixel_types, document.total_bounding_box_no_pyramid
    times = box.get("T", (0, 1))
    if times[1] - times[0] > 1:
        raise UnsupportedSlide(f"{path} holds {times[1] - times[0]} time points; expected one")
    if len(types) != 1 or not str(next(iter(types.values()))).startswith("Bgr"):
        raise UnsupportedSlide(
            f"{path} holds {len(types)} separate channel(s), as fluorescence or a mask does; expected brightfield RGB"
        )
    if (kind := next(iter(types.values()))) != "Bgr24":
        raise UnsupportedSlide(f"{path} holds {kind} pixels; expected 8-bit RGB")


def _box(document: czi.CziReader, scene: int | None) -> Box:
    """Return the box of a scene, or of all, in the document's own frame."""
    scenes = document.scenes_bounding_rectangle_no_pyramid
    x, y, width, height = document.total_bounding_rectangle_no_pyramid if scene is None else scenes[scene]
    return x, y, x + width, y + height


def _factors(document: czi.CziReader, plane: int, box: Box) -> list[int]:
    """Return the whole factors at which blocks of *box* are kept, 1 first; other levels would be pieced anew."""
    zooms: set[float] = set()

    def see(_index: int, block: object) -> bool:
        zooms.add(block.get_zoom())  # type: ignore[attr-defined]
        return True

    document.enumerate_subblocks_subset(see, {"Z": plane}, (box[0], box[1], box[2] - box[0], box[3] - box[1]))
    factors = {round(1 / zoom) for zoom in zooms if zoom > 0 and abs(round(1 / zoom) * zoom - 1) < SAME_ZOOM}
    smallest = min(box[2] - box[0], box[3] - box[1])
    return sorted({1, *(f for f in factors if f <= smallest)})


def _metres(xml: ElementTree.Element, axis: str) -> str | None:
    return xml.findtext(f".//Scaling/Items/Distance[@Id='{axis}']/Value")


def _heights(xml: ElementTree.Element, count: int) -> list[float | None]:
    """Return the heights of *count* planes above the first in µm; None where the file states no distance."""
    step = number(_metres(xml, "Z"))
    return [None if step is None else n * step * 1e6 for n in range(count)]


def _scene_names(xml: ElementTree.Element, count: int) -> list[str]:
    stated = [element.get("Name") for element in xml.findall(".//Dimensions/S/Scenes/Scene")]
    return [(stated[n] if n < len(stated) else None) or str(n) for n in range(max(1, count))]
