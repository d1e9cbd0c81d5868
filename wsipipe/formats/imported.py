"""Cells that come from elsewhere: QuPath's GeoJSON, edited by hand, as a master file."""

from __future__ import annotations

import gzip
import io
import math
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from wsipipe.artifacts.plain import refuse_special
from wsipipe.cells.measure import MEASURES
from wsipipe.errors import StoreError, in_words
from wsipipe.formats.parquet import merge_parts, write_part
from wsipipe.formats.table import BlankCells, cells_table
from wsipipe.geometry import mended, qupath_origin
from wsipipe.runs import scratch_folder

DRAWN = (".geojson", ".geojson.gz")
"""Endings of what QuPath exports."""
SUFFIXES = (*DRAWN, ".json", ".json.gz")
MALFORMED = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError),
    *(zlib.error, shapely.errors.ShapelyError),
)
"""What reading a file raises that is not what it seems."""
RATIO, SMALL, LARGEST = 100, 64 << 20, 4 << 30
"""Bytes of text to a byte of gzip, where there are more than SMALL, and at most in all: outlines pack to a tenth."""
LARGEST_UM2 = 4000.0
"""A larger polygon is a region, not a cell."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """An object of QuPath.

    Attributes
    ----------
    shape, nucleus : shapely.Geometry
        In base pixels, valid; the nucleus of a cell, or None.
    kind : str
        Its class, "" for none.
    name : str
        What it is called, "" for nothing.
    role : str
        QuPath's type of object: annotation, detection, cell, tile, tma_core, ...
    crossed : bool
        Its outline crossed itself and was mended.
    """

    id: str
    shape: shapely.Geometry
    nucleus: shapely.Geometry | None
    kind: str
    colour: tuple[int, int, int] | None
    measurements: Mapping[str, Any]
    name: str = ""
    role: str = "annotation"
    crossed: bool = False

    @property
    def annotation(self) -> bool:
        """Whether it is an annotation."""
        return self.role == "annotation"


def read_drawn(path: Path, origin: tuple[int, int] = (0, 0)) -> list[Drawn]:
    """Return the objects in a GeoJSON file, moved by *origin* (what QuPath calls (0, 0), in base pixels).

    The whole file is held in memory.

    Raises
    ------
    StoreError
    """
    try:
        refuse_special(path)
        raw = path.read_bytes()
        content = orjson.loads(_unpacked(raw) if raw[:2] == b"\x1f\x8b" else raw)
        features = content.get("features", [content]) if isinstance(content, dict) else content
        if not isinstance(features, list):
            raise ValueError("it holds no list of features")
        return [drawn_of(f, origin) for f in features if f.get("geometry")]
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    except MALFORMED as error:
        raise StoreError(f"{path}: not GeoJSON as QuPath writes it ({in_words(error)})") from error


def _unpacked(raw: bytes) -> bytes:
    """Return the text of a gzip file, which may be small and unpack to more than there is memory.

    Raises
    ------
    ValueError
        When there is more of it than outlines can be packed into so few bytes.
    OSError, EOFError, zlib.error
        When the file is damaged.
    """
    limit = min(LARGEST, max(SMALL, RATIO * len(raw)))
    with gzip.open(io.BytesIO(raw)) as file:
        text: bytes = file.read(limit + 1)
    if len(text) > limit:
        raise ValueError(f"it unpacks to more than {limit >> 20:,} MiB, which is no text of outlines")
    return text


def drawn_of(feature: Mapping[str, Any], origin: tuple[int, int]) -> Drawn:
    """Return the object in a GeoJSON feature; raises what :data:`MALFORMED` lists."""
    properties = feature.get("properties") or {}
    class_ = properties.get("classification") or {}
    colour = class_.get("color")
    shape, nucleus = shapely.from_geojson(orjson.dumps(feature["geometry"])), feature.get("nucleusGeometry")
    return Drawn(
        id=str(feature.get("id") or ""),
        shape=_moved(shape, origin),
        nucleus=_moved(shapely.from_geojson(orjson.dumps(nucleus)), origin) if nucleus else None,
        kind=str(class_.get("name") or ": ".join(class_.get("names") or [])),
        colour=(int(colour[0]), int(colour[1]), int(colour[2])) if colour else None,
        measurements=_measurements(properties.get("measurements") or {}),
        name=str(properties.get("name") or ""),
        role=str(properties.get("objectType") or "annotation"),
        crossed=not shapely.is_valid(shape),
    )


def _measurements(told: Any) -> Mapping[str, Any]:
    """Return measurements by name, also where they are a list of names and values, as in QuPath before 0.4."""
    return told if isinstance(told, dict) else {entry["name"]: entry.get("value") for entry in told}


def _moved(shape: shapely.Geometry, origin: tuple[int, int]) -> shapely.Geometry:
    """Return *shape*, mended where it crosses itself, in base pixels."""
    return shapely.transform(mended(shape), lambda xy: xy + origin)


@dataclass(frozen=True)
class Imported:
    """How many objects became cells, and how many were left out: regions, points, lines."""

    cells: int
    left_out: int


def import_geojson(path: Path, out: Path, about: Mapping[str, Any]) -> Imported:
    """Write the cells of a GeoJSON file as the master file *out*, not yet measured.

    Detections, cells and annotations that are no larger than a cell count; the largest part of a shape in several
    parts, without holes. Identities are kept.

    Parameters
    ----------
    about : mapping
        Metadata of the slide, as of :class:`wsipipe.formats.parquet.CellWriter`.

    Raises
    ------
    StoreError
    """
    drawn = read_drawn(path, qupath_origin(about["size"], about["bounds"]))
    um2 = about["mpp"][0] * about["mpp"][1]
    outlines = np.array([outline_of(d.shape) for d in drawn], np.object_)
    area = shapely.area(outlines) * um2 if len(drawn) else np.zeros(0)
    kept = np.flatnonzero((area > 0) & (area <= LARGEST_UM2))
    chosen = [drawn[i] for i in kept]
    if not chosen:
        raise StoreError(f"{path}: none of its {len(drawn)} objects is the outline of a cell")
    table = table_of(chosen, outlines[kept], about)
    colours = {d.kind: d.colour for d in chosen if d.kind}
    with scratch_folder(out) as folder:
        write_part(table, folder / "part.arrow")
        merge_parts([folder / "part.arrow"], out, {**about, "classes": colours})
    return Imported(len(chosen), len(drawn) - len(chosen))


def table_of(drawn: Sequence[Drawn], outlines: NDArray[np.object_], about: Mapping[str, Any]) -> pa.Table:
    """Return cells as a table, with measurements that are not known yet; what is a UUID stays their identity."""
    classes = sorted({d.kind for d in drawn if d.kind})
    nuclei = np.array([outline_of(d.nucleus or d.shape) for d in drawn], np.object_)
    whole = any(d.nucleus is not None for d in drawn)
    centres = shapely.get_coordinates(shapely.centroid(nuclei))
    scale = np.array(about["working_mpp"]) / np.array(about["mpp"])
    found = BlankCells(len(drawn))
    found.sums = np.column_stack([np.ones(len(drawn)), centres / scale]).astype(np.int64)
    found.type = np.array([classes.index(d.kind) if d.kind else -1 for d in drawn], np.int16)
    found.probability = np.array([_number(d.measurements.get("probability")) for d in drawn], np.float32)
    found.oversize = np.array([_number(d.measurements.get("oversize")) == 1 for d in drawn], np.bool_)
    measures = {name: np.full(len(drawn), np.nan) for name in MEASURES}
    measures |= {"x": centres[:, 0], "y": centres[:, 1]}
    table = cells_table(
        found,
        outlines,
        measures,
        fingerprint=about["fingerprint"],
        classes=classes,
        nuclei=nuclei if whole else None,
    )
    made = table["cell_id"].to_pylist()
    ids = [d.id if _is_uuid(d.id) else own for d, own in zip(drawn, made, strict=True)]
    return table.set_column(table.schema.get_field_index("cell_id"), "cell_id", pa.array(ids, pa.string()))


def outline_of(shape: shapely.Geometry) -> shapely.Polygon:
    """Return the largest polygon of *shape*, without holes, to 1/100 px; an empty one for points and lines."""
    parts = shapely.get_parts(shapely.get_parts(shape))
    polygons = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    if not len(polygons):
        return shapely.Polygon()
    largest = polygons[np.argmax(shapely.area(polygons))]
    rounded = shapely.transform(shapely.Polygon(largest.exterior), lambda xy: np.round(xy, 2))
    if shapely.is_valid(rounded):
        return rounded
    snapped = shapely.get_parts(shapely.set_precision(shapely.Polygon(largest.exterior), 0.01))
    return shapely.Polygon(snapped[np.argmax(shapely.area(snapped))].exterior) if len(snapped) else shapely.Polygon()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
