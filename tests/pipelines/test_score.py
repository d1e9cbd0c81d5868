"""`measure --add stains` and `wsipipe score` on a drawn H-DAB slide whose brown nuclei are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from scipy import ndimage

from tests.conftest import ROOT
from tests.masters import write_master
from wsipipe.analysis.scores import grades_of
from wsipipe.cells.compartments import compartment_stains
from wsipipe.cli.main import main
from wsipipe.formats.parquet import metadata, read_cells
from wsipipe.phantom.demo import draw_demo
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation import measurer as remeasure
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.settings import MeasureSettings, PhantomSettings, StainSettings
from wsipipe.stain.unmix import HDAB, angle, vectors_of


def run(*args: object) -> int:
    return main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a slide, its nuclei, and these measured by stain."""
    folder = tmp_path_factory.mktemp("hdab")
    settings = PhantomSettings(width=1536, height=1024, tissue=1.0, mpp=0.5, staining="hdab", positive=0.3)
    draw_demo(folder / "slide.tiff", settings, folder / "nuclei.geojson")
    told = Told()
    run_measure(_job(folder, "measured.parquet"), told)
    assert any(line.startswith("stains: taken for Hematoxylin and DAB") for line in told.lines)
    return folder


class Told(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def _job(folder: Path, out: str, vectors: str = "auto") -> MeasureJob:
    return MeasureJob(
        folder / "nuclei.geojson", str(folder / "slide.tiff"), folder / out, MeasureSettings(add="stains"),
        stain=StainSettings(vectors),
    )  # fmt: skip


def truth(folder: Path) -> pd.Series[str]:
    features = json.loads((folder / "nuclei.geojson").read_text())["features"]
    return pd.Series({f["id"]: f["properties"]["classification"]["name"] for f in features})


def test_statistics_are_numpys() -> None:
    rng = np.random.default_rng(0)
    nuclei, cytoplasm = np.zeros((2, 30, 40), np.int32)
    nuclei[2:9, 3:11], nuclei[20:21, 5:6] = 1, 2
    cytoplasm[9:14, 3:11] = 1
    stains = rng.normal(0.5, 0.3, (30, 40, 2)).astype(np.float32)
    found = compartment_stains(nuclei, cytoplasm, stains, 3).reshape(3, 3, 2, 11)
    for c, mask in enumerate((nuclei == 1, cytoplasm == 1, (nuclei == 1) | (cytoplasm == 1))):
        for k in range(2):
            values = stains[..., k][mask].astype(np.float64)
            wanted = [values.mean(), values.max(), *np.percentile(values, range(10, 100, 10))]
            np.testing.assert_allclose(found[0, c, k], wanted, rtol=1e-9)
    assert np.isnan(found[1, 1]).all() and np.isfinite(found[1, 0]).all() and np.isnan(found[2]).all()


def test_the_share_is_that_of_the_drawing(drawn: Path, tmp_path: Path, capfd: Any) -> None:
    """Within a point, cell by cell nearly without exception; nothing brown is read as haematoxylin."""
    outputs = ("-o", tmp_path / "a.parquet", "--table", tmp_path / "a.csv", "--page", tmp_path / "a.html")
    assert run("score", drawn / "measured.parquet", *outputs, "--slide", drawn / "slide.tiff") == 0
    cells, true = read_cells(tmp_path / "a.parquet").set_index("cell_id"), truth(drawn)
    same = cells["class"] == true[cells.index]
    assert len(cells) > 300 and same.mean() > 0.985
    share = (true == "Positive").mean()
    assert pd.read_csv(tmp_path / "a.csv")["positive_share"][0] == pytest.approx(share, abs=0.01)
    brown = cells["class"] == "Positive"
    assert cells["hematoxylin_od_mean"][brown].median() < cells["hematoxylin_od_mean"][~brown].median()
    assert cells["eosin_od_mean"].isna().all() and cells["dab_od_mean"].min() > -0.02
    page = (tmp_path / "a.html").read_text()
    assert (
        page.count("data:image/jpeg") == 16
        and "Nucleus: DAB OD mean" in page
        and "http:" not in page
        and "https:" not in page
    )
    assert "suggested by the histogram: 0." in capfd.readouterr().out


def test_steps_add_up(drawn: Path, tmp_path: Path) -> None:
    args = ("--marker", "er", "--intensity-thresholds", "0.2,0.5,0.8")
    assert (
        run("score", drawn / "measured.parquet", *args, "-o", tmp_path / "a.parquet", "--table", tmp_path / "a.csv")
        == 0
    )
    row = pd.read_csv(tmp_path / "a.csv").iloc[0]
    counts = [row[f"{name}_cells"] for name in ("negative", "1+", "2+", "3+")]
    assert sum(counts) == row["cells"] and all(counts)
    assert row["h_score"] == pytest.approx(100 * np.dot(counts, range(4)) / sum(counts), abs=1e-5)
    assert row["allred"] == row["allred_proportion"] + row["allred_intensity"] and row["allred_proportion"] == 3
    again = metadata(tmp_path / "a.parquet")
    assert again["classes"]["2+"] == [225, 150, 50] and again["score"]["thresholds"] == [0.2, 0.5, 0.8]


def test_a_folder_of_slides_is_one_table(drawn: Path, tmp_path: Path, capfd: Any) -> None:
    """The same thresholds for all; a slide that was not measured by stain stops no other, and is told."""
    for name in ("a", "b"):
        run_measure(_job(drawn, "again.parquet", "hdab"), Progress())
        (tmp_path / "in").mkdir(exist_ok=True)
        for end in ("parquet", "run.json"):
            (tmp_path / "in" / f"{name}.{end}").write_bytes((drawn / f"again.{end}").read_bytes())
    plain = MeasureJob(drawn / "nuclei.geojson", str(drawn / "slide.tiff"), tmp_path / "in" / "c.parquet")
    run_measure(plain, Progress())
    lines = ("path,name,arm", f"{drawn / 'slide.tiff'},a,drug", "/gone.svs,b,placebo", "/no.svs,c,x")
    (tmp_path / "cohort.csv").write_text("\n".join(lines))
    outputs = ("-o", tmp_path / "out", "--table", tmp_path / "all.csv", "--page", tmp_path / "pages")
    more = ("--sheet", tmp_path / "cohort.csv", "--intensity-thresholds", "suggested")
    assert run("score", tmp_path / "in", *outputs, *more) == 9
    said = capfd.readouterr()
    assert "suggested by the histogram of all cells: 0." in said.out and "a: Tissue" in said.out
    assert "failed: c: " in said.err and "has no column nucleus_dab_od_mean" in said.err
    table = pd.read_csv(tmp_path / "all.csv")
    told = table[["slide", "arm", "region"]].to_numpy().tolist()
    assert told == [["a", "drug", "Tissue"], ["b", "placebo", "Tissue"]]
    assert table["positive_share"].nunique() == 1 and table["positive_share"][0] > 0
    for name in ("a", "b"):
        again = metadata(tmp_path / "out" / f"{name}.parquet")["score"]["thresholds"]
        assert again == metadata(tmp_path / "out" / "a.parquet")["score"]["thresholds"]
        assert "data:image/jpeg" in (tmp_path / "pages" / f"{name}.html").read_text(), "its slide was found"
    assert not (tmp_path / "out" / "c.parquet").exists()
    for wrong, said_ in (
        (("-o", tmp_path / "one.parquet"), "scored cells of several slides need one folder"),
        (("-o", tmp_path / "o", "--page", tmp_path / "p.html"), "there are several slides; give a folder"),
        (("-o", tmp_path / "o", "--table", tmp_path / "t.geojson"), "annotations lie on one slide"),
        (("-o", tmp_path / "o", "--slide", drawn / "slide.tiff"), "goes with one cells file"),
    ):
        assert run("score", tmp_path / "in", *wrong) != 0
        assert said_ in capfd.readouterr().err and not (tmp_path / "o").exists()


def test_scoring_again_replaces_the_grade(drawn: Path, tmp_path: Path) -> None:
    """Types stay, grades do not pile up, and colours reach every format."""
    cells = drawn / "measured.parquet"
    assert run("score", cells, "-o", tmp_path / "a.parquet") == 0
    assert run("score", tmp_path / "a.parquet", "--intensity-thresholds", "5", "-o", tmp_path / "b.parquet") == 0
    assert set(read_cells(tmp_path / "b.parquet")["class"]) == {"Negative"}
    assert run("convert", tmp_path / "a.parquet", "-o", tmp_path / "a.geojson") == 0
    first = json.loads((tmp_path / "a.geojson").read_text())["features"][0]["properties"]
    colour = {"Negative": [90, 90, 180], "Positive": [200, 50, 50]}[first["classification"]["name"]]
    assert first["classification"]["color"] == colour
    assert {"Nucleus: DAB OD mean", "Cytoplasm: Hematoxylin OD p90", "Cell: DAB OD max"} <= set(first["measurements"])


def test_cells_without_a_cytoplasm_are_not_scored(drawn: Path, tmp_path: Path, capfd: Any) -> None:
    """A nucleus walled in by others has no ring."""
    features = json.loads((drawn / "nuclei.geojson").read_text())["features"][:3]
    walls = [shapely.box(100, 100, 112, 112), shapely.box(100, 100, 112, 112).buffer(8)]
    walls[1] = shapely.difference(walls[1], shapely.box(100, 100, 106, 130))  # never painted over the first
    for feature, shape in zip(features, [walls[0], shapely.box(100, 112, 112, 124), shapely.box(300, 300, 312, 312)]):
        feature["geometry"] = json.loads(shapely.to_geojson(shape))
    around = [shapely.box(*b) for b in ((88, 88, 124, 100), (88, 100, 100, 124), (112, 100, 124, 124))]
    extra = [{**features[0], "id": "", "geometry": json.loads(shapely.to_geojson(shape))} for shape in around]
    path = tmp_path / "n.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [*features, *extra]}))
    args = ("--slide", drawn / "slide.tiff", "--add", "stains", "--stain-vectors", "hdab", "-o", tmp_path / "m.parquet")
    assert run("measure", path, *args) == 0
    assert run("score", tmp_path / "m.parquet", "--compartment", "cytoplasm", "-o", tmp_path / "a.parquet") == 0
    assert "1 cells lack the compartment, and are not scored" in capfd.readouterr().out
    scored = read_cells(tmp_path / "a.parquet").set_index("cell_id")["class"]
    assert scored.isna().sum() == 1


def test_compartments_do_not_depend_on_squares(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nuclei overlap and rings meet, which others of other squares have a part in."""
    monkeypatch.setattr(remeasure, "SIDE", 300)
    run_measure(_job(drawn, "again.parquet"), Progress())
    one, other = (read_cells(drawn / f"{name}.parquet").set_index("cell_id") for name in ("measured", "again"))
    names = [name for name in one.columns if name.startswith(("nucleus_", "cytoplasm_", "cell_"))]
    assert len(names) == 66
    pd.testing.assert_frame_equal(one[names], other[names])


def test_the_report_shows_the_thresholds(drawn: Path, tmp_path: Path) -> None:
    """Those used and those suggested, with pictures of cells on both sides of each; of cells that are scored."""
    scored, slide = tmp_path / "a.parquet", ("--slide", drawn / "slide.tiff")
    assert run("report", drawn / "measured.parquet", *slide, "-o", tmp_path / "plain.html") == 0
    assert "<h2>Thresholds</h2>" not in (tmp_path / "plain.html").read_text()
    more = ("--marker", "er", "--intensity-thresholds", "0.2,0.5,0.8")
    assert run("score", drawn / "measured.parquet", *more, "-o", scored, *slide, "--page", tmp_path / "s.html") == 0
    assert run("report", scored, *slide, "-o", tmp_path / "told.html") == 0
    page, own = ((tmp_path / name).read_text() for name in ("told.html", "s.html"))
    panel = page.partition("<h2>Thresholds</h2>")[2].partition("</section>")[0]
    assert "er: Nucleus: DAB OD mean" in panel and panel.count("data:image/jpeg") == 3 * 16
    suggested = "those that the cells themselves suggest (0."
    assert suggested in panel and suggested in own, "the page of the score says the same"
    for cut in ("0.2", "0.5", "0.8"):
        assert f"just below {cut}" in panel and f"just above {cut}" in panel
    values = read_cells(scored)["nucleus_dab_od_mean"]
    for value in values[values >= 0.5].nsmallest(8):
        assert f"<figcaption>{value:.3f}</figcaption>" in panel, "the nearest cells"


def test_bytes_do_not_depend_on_the_order_of_cells(tmp_path: Path) -> None:
    """Scores of other rows and row groups: the same table, byte for byte, and the same grade of each cell."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(20, 7900, (4000, 2)).round(1)
    dab, order = rng.gamma(1.2, 0.2, len(xy)), rng.permutation(len(xy))
    tables = []
    for name, rows, bin_px in (("one", slice(None), 512), ("two", order, 2000)):
        (tmp_path / name).mkdir()
        master = write_master(
            tmp_path / name / "a.parquet", xy[rows], -1, measures={"nucleus_dab_od_mean": dab[rows]}, bin_px=bin_px,
            size=[8000, 8000], tissue_area_um2=16e6,
        )  # fmt: skip
        out = tmp_path / name / "out.parquet"
        more = ("--marker", "er", "--intensity-thresholds", "suggested", "--table", tmp_path / f"{name}.csv")
        assert run("score", master, "-o", out, *more, "--page", tmp_path / f"{name}.html") == 0
        found = read_cells(out)
        tables.append(found.sort_values(["x", "y"])[["x", "y", "class"]].reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables)
    for ending in ("csv", "html"):
        assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_a_slide_that_is_not_the_stain_that_was_said(drawn: Path, capfd: Any, tmp_path: Path) -> None:
    """One clear line, from measure and from segment."""
    told = Told()
    run_measure(_job(drawn, "wrong.parquet", "he"), told)
    (line,) = [line for line in told.lines if line.startswith("warning: --stain-vectors he")]
    assert "stains are said to be Hematoxylin and Eosin, but it looks like H-DAB: " in line
    args = ("--stain-vectors", "he", "--dry-run", "--device", "cpu")
    assert run("segment", drawn / "slide.tiff", "-o", tmp_path / "a.parquet", *args) == 0
    assert "--stain-vectors he: stains are said to be Hematoxylin and Eosin" in capfd.readouterr().out
    assert run("segment", drawn / "slide.tiff", "-o", tmp_path / "a.parquet", "--stain-vectors", "hdap") == 2
    assert "hdap: neither he, hdab, estimate or auto, nor a file that is there" in capfd.readouterr().err


def test_vectors_are_recorded_and_taken_again(drawn: Path, tmp_path: Path) -> None:
    assert metadata(drawn / "measured.parquet")["stain_vectors"] == HDAB.as_dict()
    job = _job(drawn, "again.parquet")
    told = Told()
    again = MeasureJob(drawn / "measured.parquet", job.slide, tmp_path / "again.parquet", job.measure)
    run_measure(again, told)
    assert not told.lines, "nothing was guessed"
    run_measure(_job(drawn, "estimated.parquet", "estimate"), told)
    found = re.findall(r"(\w+) ([\d.]+)° from the default", told.lines[0])
    assert [name for name, _ in found] == ["Hematoxylin", "DAB"], told.lines
    estimated = vectors_of(metadata(drawn / "estimated.parquet")["stain_vectors"])
    for (_, degrees), (_, vector), (_, default) in zip(found, estimated.stains, HDAB.stains):
        assert float(degrees) == pytest.approx(angle(vector, default), abs=0.11)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--marker", "her2"), 2, "--marker her2: not one of ki67, er, pr, p53; say where it lies"),
        (("--stain", "red"), 2, "has no column nucleus_red_od_mean: its cells were measured for Hematoxylin and DAB"),
        (("--intensity-thresholds", "0.4,0.2,0.6"), 2, "expected one number or three that rise"),
        (("--table", "a.txt"), 6, "a summary is a"),
    ],
)
def test_bad_input_is_one_line(
    drawn: Path, tmp_path: Path, args: tuple[str, ...], code: int, said: str, capfd: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run("score", drawn / "measured.parquet", "-o", "a.parquet", *args) == code
    told = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(told) == 1 and said in told[0] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not GeoJSON as QuPath writes it"),
        (json.dumps({"type": "Feature", "geometry": json.loads(shapely.to_geojson(shapely.box(9e4, 0, 9.1e4, 9e3)))}),
         "outside the slide"),
    ],
)  # fmt: skip
def test_regions_are_looked_at_before_anything_is_written(
    drawn: Path, tmp_path: Path, content: str, said: str, capfd: Any
) -> None:
    (tmp_path / "regions.geojson").write_text(content)
    out = tmp_path / "a.parquet"
    assert run("score", drawn / "measured.parquet", "-o", out, "--regions", tmp_path / "regions.geojson") != 0
    assert said in capfd.readouterr().err and not out.exists()
    (tmp_path / "slide.tiff").write_text("no slide")
    assert run("score", drawn / "measured.parquet", "-o", out, "--slide", tmp_path / "slide.tiff") == 3
    assert not out.exists()


DEEPLIIF = ROOT.parent / "shared" / "data" / "ihc-deepliif2"


@pytest.mark.skipif(not DEEPLIIF.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize(("name", "wrong"), [("22_2", 0), ("799_2", 1)])
def test_nuclei_that_were_labelled_by_hand(name: str, wrong: int) -> None:
    """At 0.2, nuclei of real pictures are called as their labels say, by their own outlines."""
    rgb = np.asarray(Image.open(DEEPLIIF / "images" / f"{name}.png").convert("RGB"))
    labels = np.asarray(Image.open(DEEPLIIF / "labels" / f"{name}.png"))
    types = pd.read_csv(DEEPLIIF / "types" / f"{name}.csv").set_index("id")["class"]
    dab = ndimage.mean(HDAB.amounts(rgb)[..., 1], labels, types.index)
    called = np.where(grades_of(np.asarray(dab), (0.2,)) == "Positive", "positive", "negative")
    assert len(types) > 60 and (types == "positive").any()
    assert (called != types).sum() <= wrong
