"""Every format that cells are written in: its name, the endings of its files, and who writes it.

A further format is a file and a line in :data:`FORMATS`. Who writes is named by text, and loaded when it is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from wsipipe.artifacts import atomic_path
from wsipipe.errors import OutputError
from wsipipe.settings import ExportSettings, ZarrSettings, named

if TYPE_CHECKING:
    from wsipipe.raster import Raster


@dataclass(frozen=True)
class Style:
    """How exports are written.

    Attributes
    ----------
    raster : Raster, optional
        The slide, for formats that hold its picture too.
    areas : sequence of bytes
        Annotations, as GeoJSON features, for the format that holds those too.
    """

    export: ExportSettings = field(default_factory=ExportSettings)
    zarr: ZarrSettings = field(default_factory=ZarrSettings)
    raster: Raster | None = None
    areas: Sequence[bytes] = ()


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    suffixes : tuple of str
        Endings of file names, the longest first.
    writer : str
        ``module:function``, which takes a master file, the path to write and parts of the style, and returns the files.
    parts : tuple of str
        Those parts of the :class:`Style`.
    folder : bool
        A folder rather than a file.
    """

    name: str
    suffixes: tuple[str, ...]
    writer: str
    parts: tuple[str, ...] = ()
    folder: bool = False

    def write(self, master: Path, out: Path, style: Style) -> list[Path]:
        """Write a master file as this format; return the files.

        Raises
        ------
        StoreError, SettingsError, OutputError
        """
        writer = cast(Callable[..., list[Path]], named(self.writer))
        return writer(master, out, *(getattr(style, part) for part in self.parts))


def copy_cells(master: Path, out: Path) -> list[Path]:
    """Copy a master file, unless it is *out* itself."""
    if out.exists() and os.path.samefile(master, out):
        return [out]
    with atomic_path(out) as temporary:
        shutil.copyfile(master, temporary)
    return [out]


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("parquet", (".parquet",), "wsipipe.formats.exports:copy_cells"),
        Format("geojson", (".geojson.gz", ".geojson"), "wsipipe.formats.geojson:write_geojson", ("export", "areas")),
        Format("csv", (".csv.gz", ".csv"), "wsipipe.formats.delimited:write_csv"),
        Format("geopackage", (".gpkg",), "wsipipe.formats.geopackage:write_geopackage"),
        Format("dsa", (".json.gz", ".json"), "wsipipe.formats.dsa:write_dsa", ("export",)),
        Format("trident", (".h5",), "wsipipe.formats.trident:write_cell_patches", ("zarr",)),
        Format("ngff", (".ome.zarr",), "wsipipe.formats.ngff:write_ngff", ("zarr", "raster"), folder=True),
        Format("spatialdata", (".zarr",), "wsipipe.formats.spatialdata:write_spatialdata", ("zarr", "raster"), True),
    )
}
"""Formats by name; an ending belongs to the first that has it."""


def file_endings() -> tuple[str, ...]:
    """Return the endings of the formats that are single files, an ending before those that it ends with."""
    return tuple(suffix for found in FORMATS.values() if not found.folder for suffix in found.suffixes)


def format_of(path: Path, name: str = "") -> Format:
    """Return the format *name*, or else the one that the ending of *path* means.

    Raises
    ------
    OutputError
    """
    if name:
        return FORMATS[name]
    for found in FORMATS.values():
        if path.name.endswith(found.suffixes):
            return found
    endings = ", ".join(suffix for found in FORMATS.values() for suffix in found.suffixes)
    raise OutputError(f"{path}: unknown kind of output; expected a name ending in {endings} (or --to FORMAT)")
