"""Cells typed after a few labelled ones: convert, classify, and the same cells as a table for other tools.

The slide is drawn here, and its cells are labelled by their size in place of by a person.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas

from wsipipe.cli.main import main
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.phantom.slide import PhantomSettings, write_phantom


def run(*args: object) -> None:
    """Run a command as a shell would."""
    code = main([str(arg) for arg in args])
    assert code == 0, args


with tempfile.TemporaryDirectory() as folder:
    slide, cells = Path(folder) / "slide.tiff", Path(folder) / "cells.parquet"
    labelled, typed, table = (
        cells.with_name("labelled.geojson"),
        cells.with_name("typed.parquet"),
        Path(folder) / "t.csv",
    )
    write_phantom(slide, PhantomSettings(width=640, height=512, mpp=0.5, seed=3))
    run("segment", slide, "-o", cells, "--device", "cpu")
    run("convert", cells, "-o", labelled)

    content = json.loads(labelled.read_text())  # in QuPath: click on cells and set their class
    middle = read_cells(cells)["area_um2"].median().item()
    for feature in content["features"][::4]:
        large = feature["properties"]["measurements"]["area_um2"] > middle
        feature["properties"]["classification"] = {"name": "large" if large else "small", "color": [200, 80 * large, 0]}
    labelled.write_text(json.dumps(content))

    run("classify", cells, "--fit", labelled, "-o", typed, "--region-um", 50)
    run("convert", typed, "-o", table)
    print(metadata(typed)["cells_by_class"], "cells by class;", len(pandas.read_csv(table)), "rows for other tools")
