"""``wsipipe convert``: found cells in other formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wsipipe.cli.options import Command, collect, config_option, options_for
from wsipipe.cli.results import FILE_THERE, corrections_option
from wsipipe.formats.exports import FORMATS
from wsipipe.settings import ExportSettings, SlideSettings, SubsetSettings, ZarrSettings

NOT_OF_CONVERT = ("mpp", "strict_mpp", "force_mpp")


@click.command(cls=Command)
@click.argument("cells", metavar="CELLS", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o", "--output", "outputs", multiple=True, required=True, type=click.Path(path_type=Path), metavar="OUT",
    help="Where the cells go; the ending tells the format. May be given several times.",
)  # fmt: skip
@click.option("--to", type=click.Choice(list(FORMATS)), default=None, help="Format, where the ending does not tell.")
@click.option("--slide", default="", metavar="SLIDE", help="The slide, to put its picture into .zarr and .ome.zarr.")
@click.option(
    "--regions", type=FILE_THERE, default=None, metavar="FILE",
    help="Only cells that touch a region that was drawn in the viewer or in QuPath (.geojson), and in .geojson the "
    "regions, too: what `wsipipe fit` learns from.",
)  # fmt: skip
@corrections_option
@config_option
@options_for(SubsetSettings, ExportSettings, ZarrSettings)
@options_for(SlideSettings, exclude=NOT_OF_CONVERT)
def convert(
    cells: Path,
    outputs: tuple[Path, ...],
    to: str | None,
    slide: str,
    regions: Path | None,
    corrections: str,
    config: Any,
    **options: Any,
) -> None:
    """Write the cells in CELLS, a .parquet made by `wsipipe segment`, in another format.

    \b
      .geojson .geojson.gz   QuPath (--points, --split and --decimals make smaller files)
      .parquet               GeoParquet again: the cells that --bounds, --classes, --min-probability take
      .csv .csv.gz           measurements for spreadsheets, R, pandas
      .gpkg                  GeoPackage: QGIS, GDAL
      .json .json.gz         annotation of the Digital Slide Archive
      .zarr                  SpatialData: scverse, squidpy, napari
      .ome.zarr              OME-NGFF 0.5 label image (with --slide: the picture, and labels in it)
      .h5                    a patch around each cell, for Trident's and CLAM's feature extractors

    Memory stays flat: cells are read and written a part of the slide at a time.

    \b
    Examples:
      wsipipe convert cells.parquet -o cells.zarr
      wsipipe convert cells.parquet -o cells.csv -o cells.gpkg
      wsipipe convert cells.parquet -o tumour.geojson.gz --classes Neoplastic --min-probability 0.8
      wsipipe convert cells.parquet -o slide.ome.zarr --slide slide.svs
      wsipipe convert cells.parquet --regions cells.regions.geojson -o set/slide.geojson
    """
    from wsipipe.cli.progress import TerminalProgress
    from wsipipe.pipelines.convert import ConvertJob, run_convert

    job = ConvertJob(
        cells=cells,
        outputs=outputs,
        to=to or "",
        slide=slide,
        subset=collect(SubsetSettings, options, config),
        export=collect(ExportSettings, options, config),
        zarr=collect(ZarrSettings, options, config),
        slide_settings=collect(SlideSettings, options, config),
        corrections=corrections,
        regions=regions,
    )
    with TerminalProgress() as progress:
        done = run_convert(job, progress)
    part = "" if done.cells == done.of else f" of {done.of:,}"
    click.echo(f"{done.cells:,}{part} cells: wrote {', '.join(map(str, done.files))}")
