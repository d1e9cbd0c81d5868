"""The story of ``wsipipe convert``: found cells in, the same cells in other formats out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from wsipipe.analysis.regions import read_regions
from wsipipe.artifacts import check_writable
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.annotations import Annotation, features_of
from wsipipe.formats.colours import NO_CLASS, class_colours
from wsipipe.formats.conditions import read_conditions
from wsipipe.formats.exports import Format, Style, format_of
from wsipipe.formats.ngff import label_grid
from wsipipe.formats.parquet import metadata
from wsipipe.formats.subset import class_names, write_subset
from wsipipe.raster import SlideRaster, slide_grid
from wsipipe.runs import claims, scratch_folder
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.corrected import AUTO, corrected
from wsipipe.segmentation.found_before import plane_of_run
from wsipipe.segmentation.no_cells import warn_of_none
from wsipipe.settings import ExportSettings, SlideSettings, SubsetSettings, ZarrSettings
from wsipipe.slide import fingerprint, open_slide

if TYPE_CHECKING:
    import geopandas


@dataclass(frozen=True)
class ConvertJob:
    """What to convert, and into what.

    Attributes
    ----------
    cells : Path
        A master file (``.parquet``).
    outputs : tuple of Path
    to : str
        Name of the format of all outputs; "" tells by their endings.
    slide : str
        The slide, to add its picture to Zarr outputs; "" for none.
    corrections : str
        See :mod:`wsipipe.segmentation.corrected`.
    regions : Path, optional
        Annotations: only cells that touch one of them are taken, and ``.geojson`` holds the annotations, too.
    """

    cells: Path
    outputs: tuple[Path, ...]
    to: str = ""
    slide: str = ""
    subset: SubsetSettings = field(default_factory=SubsetSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    zarr: ZarrSettings = field(default_factory=ZarrSettings)
    slide_settings: SlideSettings = field(default_factory=SlideSettings)
    corrections: str = AUTO
    regions: Path | None = None


@dataclass(frozen=True)
class Converted:
    """How many cells were written, of how many, and where."""

    cells: int
    of: int
    files: tuple[Path, ...]


@claims(lambda job: job.outputs)
def run_convert(job: ConvertJob, progress: Progress) -> Converted:
    """Write the cells of a master file in other formats; each output appears whole or not at all.

    Raises
    ------
    StoreError
        When the input is not a cells file of wsipipe.
    SettingsError, OutputError, SlideError
    """
    with corrected(job.cells, job.corrections, job.outputs[0], progress.say) as cells:
        return _convert(job, cells, progress)


def _convert(job: ConvertJob, source: Path, progress: Progress) -> Converted:
    """Write the cells of *source*, those of the job as they were corrected."""
    about = metadata(source)
    warn_of_none(job.cells, about, progress)
    wanted = [(path, format_of(path, job.to)) for path in job.outputs]
    _check(job, source, about, wanted)
    progress.start("writing", len(wanted))
    files: list[Path] = []
    regions = None if job.regions is None else read_regions(job.regions, about, progress.say)
    with _master(job, source, regions) as master, _picture(job, about) as raster:
        cells, style = metadata(master)["cells"], Style(job.export, job.zarr, raster, _annotations(regions, about))
        if about["cells"] and not cells:
            progress.say(f"warning: none of the {about['cells']:,} cells in {job.cells} is left by what was asked for")
        for path, kind in wanted:
            files += kind.write(master, path, style)
            progress.advance("writing")
        return Converted(cells, about["cells"], tuple(files))


def _check(job: ConvertJob, source: Path, about: dict[str, Any], wanted: list[tuple[Path, Format]]) -> None:
    """Refuse, before any work, outputs that cannot be written and options that mean nothing for them."""
    class_names(job.subset.classes, about)
    read_conditions(job.subset.where, pq.read_schema(source))
    if job.slide and not any(kind.folder for _, kind in wanted):
        raise SettingsError("--slide adds the slide's picture to .zarr and .ome.zarr; none of the outputs is one")
    for path, kind in wanted:
        if path.exists() and path.samefile(job.cells):
            raise OutputError(f"{path} is the input itself; give another name")
        if not kind.folder:
            check_writable(path)


@contextlib.contextmanager
def _master(job: ConvertJob, source: Path, regions: geopandas.GeoDataFrame | None) -> Iterator[Path]:
    """Yield the master file of the wanted cells: *source*, or a part of it in a temporary file."""
    if job.subset.everything and regions is None:
        yield source
        return
    with scratch_folder(job.outputs[0]) as folder:
        part = folder / "cells.parquet"
        write_subset(source, part, job.subset, () if regions is None else regions.geometry.tolist())
        yield part


def _annotations(regions: geopandas.GeoDataFrame | None, about: Mapping[str, Any]) -> list[bytes]:
    """Return *regions* as features in QuPath's pixels."""
    if regions is None:
        return []
    stated = {row.classification: row.colour for row in regions.itertuples() if row.classification}
    colours = class_colours(stated) | {"": NO_CLASS}
    rows = regions.itertuples(index=False)
    areas = [Annotation(r.name, r.classification, colours[r.classification], r.geometry) for r in rows]
    return features_of(areas, about)


@contextlib.contextmanager
def _picture(job: ConvertJob, about: dict[str, object]) -> Iterator[SlideRaster | None]:
    """Yield the slide on the grid of the label images, if its picture is wanted."""
    if not job.slide:
        yield None
        return
    found = fingerprint(job.slide)
    if found != about["fingerprint"]:
        raise SettingsError(f"--slide {job.slide}: not the slide that these cells were found on (fingerprints differ)")
    settings = replace(job.slide_settings, plane=plane_of_run(job.slide_settings, about))
    with open_slide(job.slide, settings) as slide:
        grid = label_grid(about, job.zarr)
        base = grid.mpp[0] / grid.scale[0], grid.mpp[1] / grid.scale[1]
        working = slide_grid(slide.info, base, grid.mpp[0], allow_upsample=True)
        yield SlideRaster(slide, working, found)
