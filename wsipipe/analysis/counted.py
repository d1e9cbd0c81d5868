"""The cells of a slide as they are counted: centres, types, grades and measurements, without outlines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe.analysis.derived import GRADES, split_class
from wsipipe.analysis.fields import field_keys
from wsipipe.errors import SettingsError
from wsipipe.formats.columns import measurement_names
from wsipipe.formats.parquet import batches, metadata
from wsipipe.formats.table import class_codes
from wsipipe.units import Pair


@dataclass(frozen=True, eq=False)
class CountedCells:
    """n cells of a slide; about 30 bytes each, and 4 more for each measurement.

    Attributes
    ----------
    xy_base : float64 (n, 2)
        Centres in base pixels.
    class_ : int64 (n,)
        Index into *classes*; their number for a cell without a class.
    classes : tuple of str
        As the file names them, derived ones too ("Tumor: Positive").
    measurements : mapping of name to float64 (n,)
    mpp : (float, float)
        Microns per base pixel.
    """

    xy_base: NDArray[np.float64]
    class_: NDArray[np.int64]
    classes: tuple[str, ...]
    measurements: dict[str, NDArray[np.float64]]
    mpp: Pair

    @cached_property
    def types(self) -> tuple[str, ...]:
        """Types of cells: classes without the grade, each once."""
        return tuple(dict.fromkeys(type_ for type_, _ in map(split_class, self.classes) if type_))

    @cached_property
    def type_(self) -> NDArray[np.int64]:
        """Index of each cell's type (n,), -1 for none."""
        table = [split_class(name)[0] for name in self.classes]
        codes = [self.types.index(type_) if type_ else -1 for type_ in table]
        return np.array([*codes, -1], np.int64)[self.class_]

    @cached_property
    def grade(self) -> NDArray[np.object_]:
        """How each cell stained (n,), "" where that is not known."""
        return np.array([*(split_class(name)[1] for name in self.classes), ""], object)[self.class_]

    @cached_property
    def grades(self) -> tuple[str, ...]:
        """How cells may have stained, of :data:`~wsipipe.analysis.derived.GRADES`; none where classes do not say."""
        named = {split_class(name)[1] for name in self.classes}
        return tuple(grade for grade in GRADES if grade in named)

    @cached_property
    def fields(self) -> NDArray[np.int64]:
        """Key of the field that holds each cell (n,)."""
        return field_keys(self.xy_base, self.mpp)

    @cached_property
    def nearest_um(self) -> dict[tuple[str, str], NDArray[np.float64]]:
        """Distance of each cell of the first type to the nearest other one of the second, anywhere on the slide.

        Of cells of another type NaN; without types, of all cells to all.
        """
        xy_um = self.xy_base * np.array(self.mpp)
        groups = {t: np.flatnonzero(self.type_ == i) for i, t in enumerate(self.types)} or {"": np.arange(len(xy_um))}
        trees = {name: cKDTree(xy_um[rows]) for name, rows in groups.items() if len(rows)}
        found = {}
        for one, rows in groups.items():
            for other in groups:
                distance = np.full(len(xy_um), np.nan)
                if other in trees and len(rows) and trees[other].n > (one == other):
                    near = np.asarray(trees[other].query(xy_um[rows], k=2 if one == other else 1)[0])
                    distance[rows] = near[:, 1] if one == other else near
                found[one, other] = distance
        return found


def read_counted(master: str | os.PathLike[str], names: Sequence[str]) -> CountedCells:
    """Return the cells of a master file with the measurements *names*.

    Raises
    ------
    StoreError
        When *master* is no cells file.
    SettingsError
        When it lacks a measurement.
    """
    about = metadata(master)
    known = measurement_names(pq.read_schema(master))
    for name in names:
        if name not in known:
            raise SettingsError(
                f"--measurement {name}: {os.fspath(master)} has no such column; expected some of {', '.join(known)}"
            )
    classes = tuple(about["classes"])
    wanted = ["x", "y", "class", *dict.fromkeys(names)]
    schema = pa.schema([pq.read_schema(master).field(name) for name in wanted])
    read = pa.Table.from_batches(list(batches(master, wanted)), schema)
    columns: dict[str, Any] = {name: read[name].to_numpy().astype(np.float64) for name in ("x", "y", *names)}
    xy = np.column_stack([columns["x"], columns["y"]])
    codes = class_codes(read["class"].combine_chunks(), classes)
    mpp = float(about["mpp"][0]), float(about["mpp"][1])
    return CountedCells(xy, codes, classes, {name: columns[name] for name in names}, mpp)


def default_measurements(master: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the measurements that are summed up where none is named: size, and the stain inside the nucleus."""
    usual = ("area_um2", "hematoxylin_od_mean", "nucleus_dab_od_mean")
    return tuple(name for name in usual if name in pq.read_schema(master).names)
