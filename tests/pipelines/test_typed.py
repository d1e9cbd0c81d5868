"""`segment --types`: the cells that `segment`, `measure` and `classify` give one after the other."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.pipelines.test_segment import job_of
from wsipipe.analysis.classify import Classifier
from wsipipe.cli.main import main
from wsipipe.errors import NotAModel, SettingsError
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.pipelines.classify import ClassifyJob, run_classify
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import MeasureSettings, TypeSettings

QUIET = Progress()
LARGE = 40.0


def _fitted(cells: Path, out: Path) -> Path:
    """Save a classifier that tells large cells from small ones, after labels of all."""
    labels = out.with_suffix(".geojson")
    write_geojson(cells, labels)
    content = json.loads(labels.read_text())
    for feature in content["features"]:
        kind = "Large" if feature["properties"]["measurements"]["area_um2"] > LARGE else "Small"
        feature["properties"]["classification"] = {"name": kind, "color": [1, 2, 3]}
    labels.write_text(json.dumps(content))
    run_classify(ClassifyJob((cells,), save=out, fit=labels), QUIET)
    return out


@pytest.fixture(scope="module")
def steps(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the cells of a slide as found, measured, and both typed by a classifier fitted on them."""
    folder = tmp_path_factory.mktemp("steps")
    found, measured = folder / "found.parquet", folder / "measured.parquet"
    run_segment(job_of(small_slide, found, model=str(tiny_model)), QUIET)
    more = MeasureSettings(add="neighbours,ring", neighbours_um=30, ring_um=2)
    run_measure(MeasureJob(found, str(small_slide), measured, more), QUIET)
    paths = {"found": found, "measured": measured}
    for name in ("found", "measured"):
        paths[f"{name}.json"] = _fitted(paths[name], folder / f"{name}.json")
        paths[f"{name}-typed"] = folder / f"{name}-typed.parquet"
        run_classify(ClassifyJob((paths[name],), paths[f"{name}-typed"], paths[f"{name}.json"]), QUIET)
    return paths


@pytest.mark.parametrize("way", ["found", "measured"])
@pytest.mark.parametrize("block", [256, 1024])
def test_one_pass_gives_what_the_steps_give(
    small_slide: Path, tiny_model: Path, steps: dict[str, Path], tmp_path: Path, way: str, block: int
) -> None:
    out = tmp_path / "typed.parquet"
    types = TypeSettings(types=str(steps[f"{way}.json"]))
    job = job_of(small_slide, out, block, model=str(tiny_model), types=types)
    result = run_segment(job, QUIET)
    one, other = pq.read_table(out), pq.read_table(steps[f"{way}-typed"])
    assert one.schema.remove_metadata() == other.schema.remove_metadata() and one.num_rows > 100
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas(), check_exact=True)  # NaN is NaN there
    assert ("nearest_um" in one.column_names) == (way == "measured")
    assert set(read_cells(out)["class"]) == {"Large", "Small"}
    kept, made = metadata(out), metadata(steps[f"{way}-typed"])
    for key in ("classes", "classifier", "cells_by_class", "measured", "stain_vectors"):
        assert kept.get(key) == made.get(key), key
    assert result.cells == one.num_rows and run_segment(job, QUIET).fresh is False
    assert not job.work.exists()


def test_a_batch_gives_them_too(small_slide: Path, tiny_model: Path, steps: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "one.tiff").write_bytes(small_slide.read_bytes())
    options = ("--model", tiny_model, "--types", steps["measured.json"], "--device", "cpu", "--precision", "fp32")
    assert main(["segment", *map(str, (tmp_path / "slides", "-o", f"{tmp_path / 'out'}/", *options))]) == 0
    one, other = pq.read_table(tmp_path / "out" / "one.parquet"), pq.read_table(steps["measured-typed"])
    pd.testing.assert_frame_equal(one.to_pandas(), other.to_pandas(), check_exact=True)


def test_another_classifier_is_another_result(
    small_slide: Path, tiny_model: Path, steps: dict[str, Path], tmp_path: Path
) -> None:
    """What the file holds counts, not its name."""
    types = tmp_path / "types.json"
    types.write_bytes(steps["found.json"].read_bytes())
    job = job_of(small_slide, tmp_path / "a.parquet", model=str(tiny_model), types=TypeSettings(types=str(types)))
    assert run_segment(job, QUIET).fresh
    classifier = Classifier.load(types)
    dataclasses.replace(classifier, weights=np.zeros_like(classifier.weights)).save(types)
    assert run_segment(job, QUIET).fresh
    assert set(read_cells(job.outputs[0])["class"]) == {"Large"}, "all as likely: the first"


def test_what_cannot_be_measured_is_refused_before_any_work(
    small_slide: Path, tiny_model: Path, steps: dict[str, Path], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    classifier = Classifier.load(steps["found.json"])
    dataclasses.replace(classifier, columns=("dab_od_mean", *classifier.columns[1:])).save(wrong)
    job = job_of(small_slide, tmp_path / "a.parquet", model=str(tiny_model), types=TypeSettings(types=str(wrong)))
    with pytest.raises(SettingsError, match="goes by dab_od_mean, which this run does not measure"):
        run_segment(job, QUIET)
    wrong.write_text("{}")
    with pytest.raises(NotAModel, match="is not a classifier"):
        run_segment(job, QUIET)
    assert not job.outputs[0].exists()


def test_exports_name_measurements_as_qupath_does(
    small_slide: Path, tiny_model: Path, tmp_path: Path, steps: dict[str, Path]
) -> None:
    """Those by compartment too, from the run that finds, measures and types the cells, and converted afterwards."""
    measured = tmp_path / "measured.parquet"
    run_measure(MeasureJob(steps["found"], str(small_slide), measured, MeasureSettings(add="stains")), QUIET)
    types, out = _fitted(measured, tmp_path / "types.json"), tmp_path / "cells.geojson"
    options = ("--types", types, "--device", "cpu", "--precision", "fp32", "-o", tmp_path / "cells.parquet", "-o", out)
    assert main(["segment", *map(str, (small_slide, "--model", tiny_model, *options))]) == 0
    first = json.loads(out.read_text())["features"][0]["properties"]["measurements"]
    wanted = {f"{part}: {stain} OD {what}" for part in ("Nucleus", "Cytoplasm", "Cell")
              for stain in ("Hematoxylin", "Eosin") for what in ("mean", "max", "p10", "p90")}  # fmt: skip
    assert wanted <= set(first)
    row = read_cells(tmp_path / "cells.parquet").set_index("cell_id")
    again = tmp_path / "again.geojson"
    assert main(["convert", str(tmp_path / "cells.parquet"), "-o", str(again)]) == 0
    for feature in json.loads(again.read_text())["features"]:
        value = feature["properties"]["measurements"]["Nucleus: Hematoxylin OD mean"]
        assert value == pytest.approx(row.loc[feature["id"], "nucleus_hematoxylin_od_mean"], rel=1e-3, abs=1e-4)
