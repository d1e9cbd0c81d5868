"""napari's writer: shapes as annotations in GeoJSON, which wsipipe (``--tissue``, ``--regions``) and QuPath read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import shapely

from wsipipe.errors import OutputError
from wsipipe.formats.annotations import Annotation, write_annotations
from wsipipe.formats.colours import NO_CLASS, class_colours

ROUND = 64
"""Corners of an ellipse."""
AREAS = ("polygon", "rectangle", "ellipse")


def write_shapes(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write polygons, rectangles and ellipses of a shapes layer, y before x; return what was written.

    Data count base pixels, as those of this plugin's layers do. A layer of one's own must have the scale and the
    translation of the slide's layer (*Layer > Duplicate* of one of them has): it is drawn in base pixels then.

    Raises
    ------
    OutputError
        When no shape encloses an area, or nothing can be written.
    """
    known = (meta.get("metadata") or {}).get("wsipipe") or {}
    about = {"size": known.get("size") or (0, 0), "bounds": known.get("bounds"), "fingerprint": ""}
    kinds = _kinds(meta, len(data))
    outlines = [_shape(ring, kind) for ring, kind in zip(data, _types(meta, len(data)), strict=True)]
    colours = class_colours({kind: None for kind in kinds if kind})
    areas = [
        Annotation(f"shape {number}", kind, colours.get(kind, NO_CLASS), shape)
        for number, (shape, kind) in enumerate(zip(outlines, kinds, strict=True), 1)
        if shape is not None and shapely.area(shape) > 0
    ]
    if not areas:
        raise OutputError(f"cannot write {path}: no shape of the layer encloses an area; draw polygons")
    write_annotations(path, areas, about)
    return [path]


def _types(meta: Mapping[str, Any], count: int) -> Sequence[str]:
    told = meta.get("shape_type", "polygon")
    return [told] * count if isinstance(told, str) else list(told)


def _kinds(meta: Mapping[str, Any], count: int) -> list[str]:
    """Return the class of each shape, from the layer's features."""
    features = meta.get("features")
    if features is None or "class" not in features:
        return [""] * count
    return [str(kind) if isinstance(kind, str) else "" for kind in np.asarray(features["class"], object)]


def _shape(ring: Any, kind: str) -> shapely.Geometry | None:
    """Return a shape in base pixels, x before y, counted from the corner of the first pixel; None for a line."""
    yx = np.asarray(ring, np.float64)[:, -2:]
    if kind not in AREAS or len(yx) < 3:
        return None
    if kind == "ellipse":  # napari keeps the corners of its box
        centre, axes = yx.mean(axis=0), ((yx[1] - yx[0]) / 2, (yx[3] - yx[0]) / 2)
        angle = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)[:, None]
        yx = centre + np.cos(angle) * axes[0] + np.sin(angle) * axes[1]
    return shapely.make_valid(shapely.Polygon(yx[:, ::-1] + 0.5))
