"""What goes on from an empty cells file says so, and writes a valid empty result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from wsipipe.analysis.classify import fit
from wsipipe.errors import SettingsError, StoreError
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.parquet import metadata
from wsipipe.pipelines.classify import ClassifyJob, run_classify
from wsipipe.pipelines.convert import ConvertJob, run_convert
from wsipipe.pipelines.report import ReportJob, run_report
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.found_before import open_pair
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.settings import SlideSettings, SubsetSettings
from wsipipe.slide import fingerprint

SAID = "holds no cells, and neither does what is made of it"
Go = Callable[[Path, Path, str, Progress], object]


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def classify(cells: Path, out: Path, slide: str, progress: Progress) -> None:
    fit(np.eye(4)[:, :1], np.array([0, 0, 1, 1]), ("area_um2",), ("no", "yes"), 1.0).save(out.with_suffix(".json"))
    run_classify(ClassifyJob((cells,), out, out.with_suffix(".json")), progress)


COMMANDS: dict[str, Go] = {
    "convert": lambda cells, out, slide, progress: run_convert(ConvertJob(cells, (out,)), progress),
    "measure": lambda cells, out, slide, progress: run_measure(MeasureJob(cells, slide, out), progress),
    "report": lambda cells, out, slide, progress: run_report(ReportJob(cells, out, slide), progress),
    "classify": classify,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_empty_cells_file_is_told(name: str, phantom: Phantom, tmp_path: Path) -> None:
    about = {"fingerprint": fingerprint(phantom.path), "size": [1536, 1024]}
    cells = write_master(tmp_path / "none.parquet", np.zeros((0, 2)), **about)
    out, heard = tmp_path / ("out.html" if name == "report" else "out.parquet"), Heard()
    COMMANDS[name](cells, out, str(phantom.path), heard)
    assert [line for line in heard.lines if SAID in line] == [f"warning: {cells} {SAID}"]
    assert out.exists() and (name == "report" or metadata(out)["cells"] == 0)


def test_a_part_without_cells_is_told(phantom: Phantom, tmp_path: Path) -> None:
    cells, heard = truth_master(tmp_path / "cells.parquet", phantom), Heard()
    run_convert(ConvertJob(cells, (tmp_path / "out.parquet",), subset=SubsetSettings(bounds=(0, 0, 1, 1))), heard)
    assert heard.lines == [
        f"warning: none of the {metadata(cells)['cells']} cells in {cells} is left by what was asked for"
    ]


@pytest.mark.parametrize("place", [(-4000.0, 100.0), (100.0, 1e6)])
def test_cells_outside_the_slide_are_not_measured(place: tuple[float, float], phantom: Phantom, tmp_path: Path) -> None:
    about = {"fingerprint": fingerprint(phantom.path), "size": [1536, 1024]}
    cells = write_master(
        tmp_path / "cells.parquet", np.array([(200.0, 200.0), place, (place[0] + 60, place[1] + 60)]), **about
    )
    with pytest.raises(
        StoreError, match=rf"2 of 3 cells lie outside the slide .* at {place[0]:.0f},{place[1]:.0f}\); .* 1536 x 1024"
    ):
        run_measure(MeasureJob(cells, str(phantom.path), tmp_path / "out.parquet"), Progress())
    assert not (tmp_path / "out.parquet").exists()


def test_outlines_drawn_elsewhere_are_not_measured(phantom: Phantom, tmp_path: Path) -> None:
    ring = [[9000, 9000], [9020, 9000], [9020, 9020], [9000, 9000]]
    drawn = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [drawn]}))
    with pytest.raises(StoreError, match=r"1 of 1 cells lie outside the slide .* at 9013,9007"):
        run_measure(MeasureJob(tmp_path / "a.geojson", str(phantom.path), tmp_path / "out.parquet"), Progress())


@pytest.mark.parametrize("name", ["convert", "measure", "classify"])
def test_a_table_that_is_no_cells_file_is_refused(name: str, phantom: Phantom, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("cell_id,x,y\n")
    with pytest.raises(StoreError, match=r"cells\.csv is not a cells file"):
        COMMANDS[name](tmp_path / "cells.csv", tmp_path / "out.parquet", str(phantom.path), Progress())
    assert not (tmp_path / "out.parquet").exists()


def test_labels_that_are_no_cells_file_are_refused(phantom: Phantom, tmp_path: Path) -> None:
    cells, labels = truth_master(tmp_path / "cells.parquet", phantom), tmp_path / "labels.csv"
    labels.write_text("cell_id,class\n")
    for job in (
        ClassifyJob((cells,), tmp_path / "o.parquet", fit=labels),
        ClassifyJob((labels,), fit=cells, save=labels),
    ):
        with pytest.raises(StoreError, match=r"labels\.csv is not a cells file"):
            run_classify(job, Progress())


@pytest.mark.parametrize("beside", [False, True])
def test_geojson_in_place_of_cells_is_told_what_to_give(phantom: Phantom, tmp_path: Path, beside: bool) -> None:
    cells = truth_master(tmp_path / ("cells.parquet" if beside else "others.parquet"), phantom)
    path = tmp_path / "cells.geojson"
    write_geojson(cells, path)
    hint = re.escape(f"give {cells}") if beside else r"give the \.parquet of the same run, or make one of it: `wsi"
    said = rf"cells\.geojson is not a cells file \(\.parquet\) but geojson; {hint}"
    for run in (
        lambda: run_report(ReportJob(path, slide=str(phantom.path)), Progress()),
        lambda: open_pair(str(phantom.path), path, SlideSettings()),
    ):
        with pytest.raises(StoreError, match=said):
            run()
    with pytest.raises(SettingsError, match=r"cells\.geojson holds cells, not a slide; give the slide"):
        open_pair(str(path), None, SlideSettings())
