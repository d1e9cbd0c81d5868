"""Draw a phantom slide, and write down which nuclei are on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import orjson
import shapely
from numpy.typing import NDArray
from PIL import Image

from wsipipe.analysis.derived import NEGATIVE, POSITIVE
from wsipipe.analysis.tma import letters
from wsipipe.artifacts import atomic_write, check_writable
from wsipipe.errors import SettingsError
from wsipipe.formats.annotations import write_features
from wsipipe.formats.colours import KNOWN
from wsipipe.phantom.microarray import Core, lay_out
from wsipipe.phantom.slide import PhantomTruth, write_phantom
from wsipipe.runs import claimed
from wsipipe.settings import MicroarraySettings, PhantomSettings
from wsipipe.units import Box

BIN = 4096
"""Base pixels of truth worked out at a time, on either side."""
COLOURS = {"Nucleus": [97, 63, 156], **{name: list(KNOWN[name.lower()]) for name in (POSITIVE, NEGATIVE)}}
MAX_LABEL_PIXELS, MAX_LABELS = 2**28, 2**16 - 1

Path = str | os.PathLike[str]


def draw_demo(
    path: Path,
    settings: PhantomSettings,
    truth_path: Path | None = None,
    labels_path: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
    array: MicroarraySettings | None = None,
    cores_path: Path | None = None,
) -> PhantomTruth:
    """Write a phantom slide and, if wanted, its truth as GeoJSON and its instance map as 16-bit PNG.

    With *array* it is a microarray, whose true cores go to *cores_path* as GeoJSON.

    Raises
    ------
    SettingsError
        When the slide is too large for an instance map in one picture.
    OutputError
        When a file cannot be written.
    """
    if array is not None:
        settings, _ = lay_out(array, settings)
    if labels_path is not None and settings.width * settings.height > MAX_LABEL_PIXELS:
        raise SettingsError(
            f"{settings.width} x {settings.height} px are too many for one picture of labels (2^28 at most); "
            "--truth writes polygons of any slide"
        )
    outputs = [FilePath(output) for output in (path, truth_path, labels_path, cores_path) if output is not None]
    with claimed(*outputs):
        for output in outputs:
            check_writable(output)
        truth = write_phantom(path, settings, progress, array)
        if truth_path is not None:
            write_truth(truth, truth_path)
        if labels_path is not None:
            write_labels(truth, labels_path)
        if cores_path is not None:
            write_cores(truth, cores_path)
    return truth


def write_cores(truth: PhantomTruth, path: Path) -> int:
    """Write the cores of a drawn microarray as QuPath annotations in base px; return their number."""
    features = [_core_feature(truth.settings.seed, core) for core in truth.cores]
    write_features(path, features)
    return len(features)


def _core_feature(seed: int, core: Core) -> bytes:
    """Return the disc of a core; its class says whether it is missing or in fragments."""
    name = f"{letters(core.row)}-{core.column + 1}"
    kind = "TMA core: missing" if core.missing else "TMA core: torn" if core.fragmented else "TMA core"
    ring = np.round(shapely.get_coordinates(shapely.Point(core.x, core.y).buffer(core.radius)), 2)
    properties = {"name": name, "classification": {"name": kind, "color": [0, 150, 60]}}
    return _drawn(f"core {seed} {name}", ring, {"objectType": "annotation"} | properties)


def write_truth(truth: PhantomTruth, path: Path) -> int:
    """Write the nuclei as QuPath GeoJSON detections in base px, region by region; return their number."""
    count = 0
    with atomic_write(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        for box in _bins(truth.scanned):
            brown = truth.positive(box).tolist() if truth.settings.staining == "hdab" else None
            for k, (id_, polygon) in enumerate(zip(*truth.polygons(box), strict=True)):
                file.write(b",\n" if count else b"\n")
                kind = "Nucleus" if brown is None else POSITIVE if brown[k] else NEGATIVE
                file.write(_feature(truth.settings.seed, int(id_), polygon, kind))
                count += 1
        file.write(b"\n]}\n")
    return count


def write_labels(truth: PhantomTruth, path: Path) -> int:
    """Write the instance map as 16-bit PNG, ids renumbered from 1 in the order of the truth; return their number.

    Raises
    ------
    SettingsError
        When there are more nuclei than 16 bits can number.
    """
    width, height = truth.settings.width, truth.settings.height
    ids, labels = np.unique(truth.instance_map((0, 0, width, height)), return_inverse=True)
    count = len(ids) - int(ids[0] == 0)
    if count > MAX_LABELS:
        raise SettingsError(f"{count} nuclei are too many for 16-bit labels ({MAX_LABELS} at most); use --truth")
    numbered: NDArray[np.uint16] = (labels + int(ids[0] != 0)).reshape(height, width).astype(np.uint16)
    with atomic_write(path) as file:
        Image.fromarray(numbered).save(file, "PNG")
    return count


def _bins(area: Box) -> Iterator[Box]:
    for y in range(area[1], area[3], BIN):
        for x in range(area[0], area[2], BIN):
            yield x, y, min(x + BIN, area[2]), min(y + BIN, area[3])


def _feature(seed: int, id_: int, polygon: shapely.Polygon, kind: str) -> bytes:
    ring = np.round(shapely.get_coordinates(polygon.exterior), 2)
    properties = {"classification": {"name": kind, "color": COLOURS[kind]}, "measurements": {"id": id_}}
    return _drawn(f"{seed} {id_}", ring, {"objectType": "detection"} | properties)


def _drawn(name: str, ring: NDArray[np.float64], properties: Mapping[str, Any]) -> bytes:
    """Return a GeoJSON feature of what was drawn, whose identity follows from *name*."""
    feature = {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"wsipipe phantom {name}")),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    return orjson.dumps(feature, option=orjson.OPT_SERIALIZE_NUMPY)
