"""Areas of a slide as annotations that QuPath shows, with names, classes and measurements."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import orjson
import shapely

from wsipipe.artifacts import atomic_write
from wsipipe.formats.colours import Rgb
from wsipipe.geometry import qupath_origin

NAMESPACE = uuid.UUID("5e1d3a52-7a0c-5a43-9b55-6f8f6f0c2a11")


@dataclass(frozen=True)
class Annotation:
    """An area of a slide.

    Attributes
    ----------
    name, kind : str
        What it is called, and its class.
    colour : (int, int, int)
        Of its class.
    shape : shapely.Geometry
        One polygon or several, in base px.
    measurements : mapping
        Numbers by name.
    """

    name: str
    kind: str
    colour: Rgb
    shape: shapely.Geometry
    measurements: Mapping[str, float] = field(default_factory=dict)


def write_annotations(path: str | os.PathLike[str], areas: Sequence[Annotation], about: Mapping[str, Any]) -> None:
    """Write *areas* as a GeoJSON file for QuPath, atomically; the same areas give the same bytes.

    Parameters
    ----------
    path : path
    areas : sequence of Annotation
        Those without an area are left out.
    about : mapping
        ``size`` and ``bounds`` of the slide, and its ``fingerprint``.

    Raises
    ------
    OutputError
    """
    write_features(path, features_of(areas, about))


def features_of(areas: Sequence[Annotation], about: Mapping[str, Any]) -> list[bytes]:
    """Return *areas* (see :func:`write_annotations`) as GeoJSON features in QuPath's pixels."""
    features = []
    for area in areas:
        if shapely.area(area.shape) > 0:
            shape = in_qupath(area.shape, about)
            name = f"{about['fingerprint']}:{area.kind}:{area.name}:{shapely.to_wkb(shape, hex=True)}"
            features.append(feature_of(replace(area, shape=shape), str(uuid.uuid5(NAMESPACE, name))))
    return features


def write_features(
    path: str | os.PathLike[str], features: Sequence[bytes], about: Mapping[str, Any] | None = None
) -> None:
    """Write GeoJSON *features* as one collection, atomically; *about* becomes its member ``wsipipe``."""
    member = b'"wsipipe":' + orjson.dumps(about) + b"," if about else b""
    with atomic_write(path) as file:
        file.write(b'{"type":"FeatureCollection",' + member + b'"features":[\n' + b",\n".join(features) + b"\n]}\n")


def in_qupath(shape: shapely.Geometry, about: Mapping[str, Any]) -> shapely.Geometry:
    """Return *shape* (base px) in the frame that QuPath counts from, to 1/100 px."""
    origin = np.array(qupath_origin(about["size"], about["bounds"]), np.float64)
    return shapely.transform(shape, lambda xy: np.round(xy - origin, 2))


def feature_of(area: Annotation, identity: str, *, locked: bool = False) -> bytes:
    """Return *area*, whose shape is that of :func:`in_qupath`, as a GeoJSON feature; without a kind it has no class."""
    properties: dict[str, Any] = {"objectType": "annotation", "name": area.name}
    if locked:
        properties["isLocked"] = True
    if area.kind:
        properties["classification"] = {"name": area.kind, "color": list(area.colour)}
    properties["measurements"] = {k: v if math.isfinite(v) else "NaN" for k, v in area.measurements.items()}
    geometry = orjson.Fragment(shapely.to_geojson(area.shape).encode())
    feature = {"type": "Feature", "id": identity, "geometry": geometry, "properties": properties}
    return orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)
