"""Cells of one block as an Arrow table: columns, identities and the order of rows."""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from wsipipe.cells.measure import MEASURES

NAMESPACE = uuid.UUID("5b1a5f0e-0d0c-5e0c-9d2b-7c9b7a0d6f31")
"""Namespace of the cells' UUIDs (version 5)."""
KEYS = ("_cy", "_cx")
"""Columns of the integer centroid in grid pixels: in parts, for their merge; not in the master file."""
PER_CLASS = "probability_"
"""What the name of a class follows in the name of the column of its probability."""

BBOX = pa.struct([(name, pa.float32()) for name in ("xmin", "ymin", "xmax", "ymax")])
_FLOAT64 = ("x", "y")


class FoundCells(Protocol):
    """The part of :class:`wsipipe.cells.instances.Cells` that a table needs; n cells."""

    @property
    def sums(self) -> NDArray[np.int64]:
        """Pixels, sum of x and sum of y in global grid pixel indices; (n, 3)."""

    @property
    def probability(self) -> NDArray[np.float32]:
        """Mean foreground probability; (n,)."""

    @property
    def type(self) -> NDArray[np.int16]:
        """Index of the class, -1 for none; (n,)."""

    @property
    def type_probability(self) -> NDArray[np.float32]:
        """Mean probability of the likeliest class; (n,)."""

    @property
    def type_means(self) -> NDArray[np.float32]:
        """Mean probability of each of the model's T classes; (n, T), or (n, 0) where no model told them."""

    @property
    def oversize(self) -> NDArray[np.bool_]:
        """Whether the cell comes of an object larger than the model's largest cell; (n,)."""


class BlankCells:
    """*count* cells without a class, of which nothing is known yet: what of them is gets set by whoever knows it."""

    def __init__(self, count: int, classes: int = 0) -> None:
        self.sums = np.zeros((count, 3), np.int64)
        self.probability = np.full(count, np.nan, np.float32)
        self.type = np.full(count, -1, np.int16)
        self.type_probability = np.full(count, np.nan, np.float32)
        self.type_means = np.full((count, classes), np.nan, np.float32)
        self.oversize = np.zeros(count, np.bool_)


def cells_table(
    cells: FoundCells,
    polygons: NDArray[np.object_],
    measures: Mapping[str, NDArray[Any]],
    *,
    fingerprint: str,
    classes: Sequence[str] = (),
    nuclei: NDArray[np.object_] | None = None,
) -> pa.Table:
    """Return the table of n cells, in the columns of the master file and :data:`KEYS`; rows as they come.

    Parameters
    ----------
    cells : Cells
    polygons : (n,) array of shapely.Polygon
        Outlines in base pixels, rounded to 1/100; of whole cells when *nuclei* are given, else of nuclei.
    measures : mapping of name to (n,) array
        From :func:`wsipipe.cells.measure.measure`; names beyond those of ``MEASURES`` become columns after them.
    fingerprint : str
        Of the slide; goes into the cells' identities.
    classes : sequence of str
        Class names of the model, in the order of ``cells.type``; empty when it has none.
    nuclei : (n,) array of shapely.Polygon, optional
        Outlines of the nuclei inside expanded cells.

    Raises
    ------
    ValueError
        When a polygon is empty or something else than a polygon, or when lengths differ.
    """
    _check_polygons(polygons, len(cells.sums))
    columns: dict[str, pa.Array] = {
        "cell_id": cell_ids(polygons, fingerprint),
        "geometry": _wkb(polygons),
    }
    if nuclei is not None:
        _check_polygons(nuclei, len(cells.sums))
        columns["nucleus"] = _wkb(nuclei)
    columns |= {name: pa.array(measures[name], pa.float64()) for name in _FLOAT64}
    columns |= _class_columns(cells, classes)
    columns["probability"] = pa.array(cells.probability, pa.float32())
    columns |= {PER_CLASS + name: pa.array(means) for name, means in zip(classes, cells.type_means.T, strict=False)}
    names = [name for name in (*MEASURES, *measures) if name not in _FLOAT64]
    columns |= {name: pa.array(np.asarray(measures[name], np.float32)) for name in dict.fromkeys(names)}
    columns["oversize"] = pa.array(cells.oversize, pa.bool_())
    columns["bbox"] = _bbox(polygons)
    count = np.maximum(cells.sums[:, 0], 1)
    columns |= {key: pa.array(cells.sums[:, i] // count, pa.int32()) for key, i in zip(KEYS, (2, 1), strict=True)}
    return pa.table(columns)


def cell_ids(polygons: NDArray[np.object_], fingerprint: str) -> pa.Array:
    """Return each polygon's UUID (n,) as text.

    ``uuid.uuid5(NAMESPACE, name)`` with *name* the slide's fingerprint, a colon and the hexadecimal digits of the
    vertices in 1/100 base pixels (x, y, x, y, ... as little-endian 32-bit integers).
    """
    xy, owner = shapely.get_coordinates(polygons, return_index=True)
    names = memoryview(np.rint(xy * 100).astype("<i4").tobytes().hex().encode())
    ends = np.cumsum(np.bincount(owner, minlength=len(polygons))) * 16
    start = hashlib.sha1(NAMESPACE.bytes + f"{fingerprint}:".encode(), usedforsecurity=False)
    digests = bytearray()
    begin = 0
    for end in ends.tolist():
        sha = start.copy()
        sha.update(names[begin:end])
        digests += sha.digest()[:16]
        begin = end
    return _uuid_text(np.frombuffer(digests, np.uint8).reshape(-1, 16).copy())


def sort_rows(table: pa.Table) -> pa.Table:
    """Return *table* in the order of the master file within a bin: integer centroid by y, then x, then identity."""
    order = pc.sort_indices(table, [(key, "ascending") for key in (*KEYS, "cell_id")])
    return table.take(order).combine_chunks()


def class_codes(column: pa.Array, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each cell's class among *classes*; the number of classes for those without one."""
    found = pc.fill_null(pc.index_in(column.cast(pa.string()), pa.array(classes, pa.string())), len(classes))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def _check_polygons(polygons: NDArray[np.object_], n: int) -> None:
    finite = np.isfinite(shapely.bounds(polygons)).all(axis=-1)  # empty ones have no bounds
    good = (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON.value) & finite
    if len(polygons) != n or not good.all():
        raise ValueError(f"{int(good.sum())} non-empty polygons for {n} cells; expected one for each")


def _wkb(polygons: NDArray[np.object_]) -> pa.Array:
    return pa.array(shapely.to_wkb(polygons, byte_order=1), pa.binary())


def _class_columns(cells: FoundCells, classes: Sequence[str]) -> dict[str, pa.Array]:
    """Return the class name of each cell (null for none) and, when there are classes, its probability."""
    if not classes:
        return {"class": pa.nulls(len(cells.sums), pa.string())}
    index = pa.array(cells.type, pa.int32(), mask=cells.type < 0)
    names = pa.DictionaryArray.from_arrays(index, pa.array(classes, pa.string())).cast(pa.string())
    return {"class": names, "class_probability": pa.array(cells.type_probability, pa.float32())}


def _bbox(polygons: NDArray[np.object_]) -> pa.Array:
    """Return boxes that cover the polygons, in whole base pixels (exact in 32 bits up to 16 million)."""
    bounds = shapely.bounds(polygons)
    sides = (np.floor(bounds[:, 0]), np.floor(bounds[:, 1]), np.ceil(bounds[:, 2]), np.ceil(bounds[:, 3]))
    return pa.StructArray.from_arrays([pa.array(side.astype(np.float32)) for side in sides], fields=list(BBOX))


def _uuid_text(raw: NDArray[np.uint8]) -> pa.Array:
    """Return 16-byte digests (n, 16) as version 5 UUID text."""
    raw[:, 6] = raw[:, 6] & 0x0F | 0x50
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    text = np.full((len(raw), 36), ord("-"), np.uint8)
    text[:, _uuid_places()] = digits
    offsets = np.arange(len(raw) + 1, dtype=np.int32) * 36
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(text))]
    return pa.Array.from_buffers(pa.string(), len(raw), buffers)


@functools.cache
def _uuid_places() -> NDArray[np.intp]:
    """Return where the 32 digits stand among the 36 characters of a UUID."""
    return np.array([i for i in range(36) if i not in (8, 13, 18, 23)])
