"""The story of ``wsipipe summarise``: cells and regions in, a table with one row for each slide and region out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from wsipipe.analysis.counted import default_measurements, read_counted
from wsipipe.analysis.found_regions import core_regions, hot_spot_regions, without_doubtful_shares
from wsipipe.analysis.regions import TISSUE, WHOLE, read_regions, regions_frame
from wsipipe.analysis.summary import Row, summarise
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.parquet import metadata
from wsipipe.formats.summary import write_summary
from wsipipe.runs import claims
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair, record_of, slide_of, tissue_again
from wsipipe.segmentation.no_cells import warn_of_none
from wsipipe.segmentation.results import check_tables, each_slide, file_for, list_results
from wsipipe.segmentation.sheet import Sheet, columns_of, read_sheet
from wsipipe.settings import HotSpotSettings, SlideSettings, SummariseSettings

if TYPE_CHECKING:
    import geopandas

Tell = Callable[[str], None]


@dataclass(frozen=True)
class SummariseJob:
    """What to sum up.

    Attributes
    ----------
    cells : tuple of Path
        Master files, or folders of them.
    outputs : tuple of Path
        .parquet, .csv, .xlsx, .geojson.
    regions : Path, optional
        GeoJSON of one slide's annotations, or a folder with ``NAME.geojson`` for each slide.
    sheet : Path, optional
        Table that named the slides, whose columns go into every row.
    slide : str
        The slide, where it is not where the run record says.
    measurements : tuple of str
        Columns to sum up; by default size and stain.
    tma : bool
        Find the cores of a microarray.
    names : Path, optional
        What names the cores, or corrects them.
    hot_spots : HotSpotSettings
    """

    cells: tuple[Path, ...]
    outputs: tuple[Path, ...]
    regions: Path | None = None
    sheet: Path | None = None
    slide: str = ""
    measurements: tuple[str, ...] = ()
    tma: bool = False
    names: Path | None = None
    hot_spots: HotSpotSettings = field(default_factory=HotSpotSettings)
    settings: SummariseSettings = field(default_factory=SummariseSettings)
    slide_settings: SlideSettings = field(default_factory=SlideSettings)


@dataclass(frozen=True)
class Summarised:
    """Rows as they were written, how many slides they are of, and what failed: name and reason."""

    rows: tuple[Mapping[str, Any], ...]
    slides: int
    failed: tuple[tuple[str, str], ...] = ()


@claims(lambda job: job.outputs)
def run_summarise(job: SummariseJob, progress: Progress) -> Summarised:
    """Write the numbers of every region of every slide; rows are sorted by slide, regions come as they were drawn.

    In a folder, what fails of one slide does not stop the others.

    Raises
    ------
    SettingsError, StoreError, SlideError, OutputError, MissingDependency
    """
    masters = list_results(job.cells)
    _check(job, masters)
    sheet = read_sheet(job.sheet, progress.say) if job.sheet else None

    made, failed = each_slide(masters, progress, lambda name, path: rows_of_slide(job, name, path, progress, sheet))
    rows = [row for own in made.values() for row in own]
    write_tables(job.outputs, rows, masters, sheet, progress.say)
    return Summarised(tuple(rows), len(made), failed)


def write_tables(
    tables: Sequence[Path], rows: Sequence[Row], masters: Mapping[str, Path], sheet: Sheet | None, tell: Tell
) -> None:
    """Write the rows of all slides as each of *tables*; *tell* hears which slides of the sheet have no results."""
    if sheet:
        unused = [name for name in sheet.unused if name not in masters]
        if unused:
            tell(f"warning: {len(unused)} slides of the sheet have no results here, the first: {unused[0]}")
    about = metadata(next(iter(masters.values()))) if len(masters) == 1 else {}
    for path in tables:
        write_summary(path, rows, {key: about[key] for key in ("size", "bounds", "fingerprint") if key in about})


def regions_of_slide(job: SummariseJob, name: str, master: Path, about: Mapping[str, Any], tell: Tell) -> Any:
    """Return the regions of a slide, as :mod:`wsipipe.analysis.regions` says: all tissue, those drawn, its cores."""
    parts = [_tissue(job, master, about, tell)]
    path = file_for(job.regions, name)
    if path is not None:
        parts.append(read_regions(path, about, tell))
    elif job.regions is not None:
        tell(f"warning: {name}: no {name}.geojson in {job.regions}; only all of its tissue is summed up")
    if job.tma:
        parts.append(_cores(job, master, about, tell))
    return _joined(parts)


def _joined(parts: Sequence[geopandas.GeoDataFrame]) -> geopandas.GeoDataFrame:
    filled = [part for part in parts if len(part)]
    frame: geopandas.GeoDataFrame = pd.concat(filled, ignore_index=True) if len(filled) > 1 else filled[0]
    return frame


def rows_of_slide(
    job: SummariseJob, name: str, master: Path, progress: Progress, sheet: Sheet | None = None
) -> list[Row]:
    """Return the rows of one slide, each with the shape of its region, and with what the *sheet* says of the slide."""
    told = columns_of(sheet, name, str(record_of(master).get("slide") or "")) if sheet else {}
    about = metadata(master)
    warn_of_none(master, about, progress)
    regions = regions_of_slide(job, name, master, about, progress.say)
    cells = read_counted(master, job.measurements or default_measurements(master))
    if job.hot_spots.hot_spots:
        regions = _joined([regions, hot_spot_regions(cells, about, job.hot_spots, progress.say)])
    um2 = about.get("tissue_area_um2")
    rows = summarise(cells, regions, job.settings, um2 * 1e-6 if um2 else None)
    rows = [without_doubtful_shares(row) for row in rows]
    beside = regions.drop(columns=["name", "classification", "kind", "parent"])
    more = [{str(k): v for k, v in extra.items() if v is not None and v == v} for extra in beside.to_dict("records")]
    first = {"geometry": None, "slide": name} | told
    return [first | row | extra for row, extra in zip(rows, more)]


def _cores(job: SummariseJob, master: Path, about: Mapping[str, Any], tell: Tell) -> geopandas.GeoDataFrame:
    """Return the cores of the microarray as regions."""
    path = job.slide or slide_of(master, record_of(master))
    if not path:
        raise SettingsError(f"{master}: --tma looks for cores on the slide, which is not where it was; give --slide")
    slide, _ = open_pair(path, master, job.slide_settings)
    with slide:
        return core_regions(slide, (about["mpp"][0], about["mpp"][1]), job.names, tell)


def _tissue(job: SummariseJob, master: Path, about: Mapping[str, Any], tell: Tell) -> geopandas.GeoDataFrame:
    """Return all of the analysed tissue as a region; without a shape where the slide is not at hand."""
    path = job.slide or slide_of(master, record_of(master))
    shape = None
    if path:
        slide, warnings = open_pair(path, master, job.slide_settings)
        with slide:
            for warning in warnings:
                tell(f"warning: {warning}")
            tissue = tissue_again(slide, path, master, about) if about.get("tissue_area_um2") else None
            shape = tissue.shape if tissue is not None and not tissue.is_empty else None
    if shape is None and about.get("tissue_area_um2"):
        why = "cannot be found again on its slide" if path else "is not known without its slide (--slide)"
        tell(f"{master}: the outline of its tissue {why}: no interval of the density of all cells")
    return regions_frame([{"name": WHOLE, "kind": TISSUE, "geometry": shape}])


def _check(job: SummariseJob, masters: Mapping[str, Path]) -> None:
    """Refuse, before any work, what cannot be written or means nothing."""
    if not job.outputs:
        raise OutputError("nothing to write: give -o OUT.csv, .parquet, .xlsx or .geojson")
    check_tables(job.outputs, masters, job.regions, job.slide)
    if job.names is not None and not job.tma:
        raise SettingsError(f"--names {job.names} names the cores of a microarray; give --tma too")
    if job.names is not None and len(masters) > 1:
        raise SettingsError(f"--names {job.names} goes with one slide, and there are {len(masters)}")
