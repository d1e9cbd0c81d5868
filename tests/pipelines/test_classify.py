"""`wsipipe classify`: labels meet their cells, and what is learnt from some is found in the others."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shapely
from scipy.optimize import check_grad

from wsipipe.analysis.classify import (
    Classifier,
    Examples,
    cross_validate,
    doubt,
    first_questions,
    fit,
    learn,
    model,
    questions,
    regions,
)
from wsipipe.analysis.classify.candidates import candidates_of
from wsipipe.cells.measure import MEASURES
from wsipipe.errors import ModelNotFound, NotAModel, OutputError, SettingsError, StoreError
from wsipipe.formats.geojson import write_geojson
from wsipipe.formats.labelled import read_labels
from wsipipe.formats.parquet import merge_parts, metadata, read_cells, row_groups, write_part
from wsipipe.formats.table import BlankCells, cells_table
from wsipipe.pipelines.classify import ClassifyJob, run_classify
from wsipipe.schedule.progress import Progress
from wsipipe.settings import ClassifySettings

COUNT = 600
CLASSES = ("Lymphocyte", "Stroma", "Tumour")


def _master(path: Path, seed: int, bounds: Any = None) -> list[str]:
    """Write cells of three kinds that differ in area and shape; return the kind of each, in the file's order."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, COUNT)
    xy = rng.uniform(20, 4000, (COUNT, 2))
    area, ratio = rng.normal(np.array([30, 40, 80])[kind], 8), rng.normal(np.array([0.3, 0.9, 0.5])[kind], 0.1)
    found = BlankCells(COUNT)
    found.sums = np.column_stack([np.ones(COUNT), xy]).astype(np.int64)
    found.probability = np.ones(COUNT, np.float32)
    measures = {name: rng.random(COUNT) for name in MEASURES}
    measures |= {"x": xy[:, 0], "y": xy[:, 1], "area_um2": area, "eccentricity": ratio}
    measures["solidity"][:20] = np.nan
    polygons = shapely.transform(shapely.buffer(shapely.points(xy), 5), lambda c: np.round(c, 2))
    about = {"fingerprint": f"{seed}", "size": [5000, 5000], "bounds": bounds, "mpp": [0.5, 0.5], "mpp_source": "x"}
    table = cells_table(found, polygons, measures, fingerprint=f"{seed}")
    write_part(table, path.with_suffix(".arrow"), 1024)
    merge_parts([path.with_suffix(".arrow")], path, about, 1024)
    known = dict(zip(table["cell_id"].to_pylist(), kind.tolist(), strict=True))
    return [CLASSES[known[id_]] for id_ in read_cells(path)["cell_id"]]


def _label(path: Path, out: Path, kinds: list[str], step: int = 6) -> set[str]:
    """Write GeoJSON in which every *step*-th cell has its kind; return their identities."""
    write_geojson(path, out)
    content = json.loads(out.read_text())
    for feature, kind in zip(content["features"][::step], kinds[::step], strict=True):
        feature["properties"]["classification"] = {"name": kind, "color": [1, 2, CLASSES.index(kind)]}
    out.write_text(json.dumps(content))
    return {feature["id"] for feature in content["features"][::step]}


def test_types_every_cell_after_some(tmp_path: Path) -> None:
    kinds = _master(tmp_path / "a.parquet", 0)
    labelled = _label(tmp_path / "a.parquet", tmp_path / "a.geojson", kinds)
    pair = (tmp_path / "a.parquet", tmp_path / "a.geojson")
    job = ClassifyJob((pair[0],), tmp_path / "b.parquet", fit=pair[1], save=tmp_path / "types.json")
    done = run_classify(job, Progress())
    before, after = read_cells(tmp_path / "a.parquet"), read_cells(tmp_path / "b.parquet")
    assert sum(done.labelled.values()) == len(labelled) == 100 and sum(done.cells.values()) == COUNT
    right = after["class"] == kinds
    assert right.mean() > 0.93 and right[after["cell_id"].isin(labelled)].all()
    assert done.scores is not None
    assert done.scores.balanced_accuracy == pytest.approx(right.mean(), abs=0.06)
    assert after["class_probability"].between(0, 1).all()
    for name in ("cell_id", "x", "area_um2", "oversize"):
        assert after[name].tolist() == before[name].tolist()
    about = metadata(tmp_path / "b.parquet")
    assert about["classes"] == {name: [1, 2, i] for i, name in enumerate(CLASSES)}
    assert about["classifier"]["labelled"] == done.labelled and about["cells_by_class"] == done.cells
    assert len(list(row_groups(tmp_path / "b.parquet"))) == len(list(row_groups(tmp_path / "a.parquet")))
    again = ClassifyJob((tmp_path / "b.parquet",), tmp_path / "c.parquet", model=tmp_path / "types.json")
    other = run_classify(again, Progress())
    assert other.scores is None and not other.labelled
    assert (read_cells(tmp_path / "c.parquet")["class"] == after["class"])[~after["cell_id"].isin(labelled)].all()


def test_several_slides_are_left_out_whole(tmp_path: Path) -> None:
    pairs = []
    for seed in (1, 2, 3):
        path = tmp_path / f"{seed}.parquet"
        _label(path, path.with_suffix(".geojson"), _master(path, seed))
        pairs.append((path, path.with_suffix(".geojson")))
    done = run_classify(ClassifyJob((pairs[0][0],), save=tmp_path / "t.json", also=tuple(pairs)), Progress())
    assert done.scores is not None and not done.cells
    assert (done.scores.folds, done.scores.regions, done.scores.kind) == (3, 3, "slides")
    assert done.scores.balanced_accuracy > 0.85


def test_annotations_and_points_label_the_cells_under_them(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _master(path, 4, bounds=[10, 20, 4000, 4000])
    cells = read_cells(path)

    def feature(shape: shapely.Geometry, name: str | None, kind: str = "annotation", **more: Any) -> dict[str, Any]:
        moved = json.loads(shapely.to_geojson(shapely.transform(shape, lambda xy: xy - (10, 20))))  # QuPath's frame
        properties = {"objectType": kind} | ({"classification": {"name": name, "color": [9, 9, 9]}} if name else {})
        return {"type": "Feature", "geometry": moved, "properties": properties, **more}

    first, second = cells.geometry[0], cells.geometry[1]
    area = shapely.box(500, 500, 1500, 1500)
    features = [
        feature(first.centroid, "Stroma"),
        feature(second, "Tumour", "detection", id=cells["cell_id"][1]),
        feature(area, "Lymphocyte"),
        feature(shapely.box(0, 0, 5000, 5000), "Region*"),
        feature(shapely.box(0, 0, 5000, 5000), "Tissue"),
        feature(shapely.box(0, 0, 5000, 5000), None),
    ]
    (tmp_path / "l.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    labels = read_labels(tmp_path / "l.geojson", path)
    found = [kind for table in row_groups(path) for kind in labels.of(table)]
    expected = np.where(shapely.contains_xy(area, cells["x"], cells["y"]), "Lymphocyte", "")
    touched = [i for i, shape in enumerate(cells.geometry) if shape.contains(first.centroid)]
    expected[touched], expected[1] = "Stroma", "Tumour"
    assert found == expected.tolist()


def test_a_cell_labelled_twice_is_not_labelled(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _master(path, 5)
    table = next(iter(row_groups(path)))
    box = shapely.box(0, 0, 5000, 5000)
    both = [(box, "Stroma"), (box, "Tumour")]
    labels = type(read_labels(path, path))(areas=both)
    assert set(labels.of(table)) == {""}


def test_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = np.hstack([rng.normal(size=(40, 3)), np.ones((40, 1))]), rng.integers(0, 3, 40)
    caught: list[Any] = []
    monkeypatch.setattr(model, "minimize", lambda loss, start, **_: caught.append(loss) or SimpleNamespace(x=start))
    model.fitted(x, y, 3, 0.7)
    (loss,) = caught
    for seed in range(3):
        at = np.random.default_rng(seed).normal(size=12)
        assert check_grad(lambda w: loss(w)[0], lambda w: loss(w)[1], at) < 1e-5


def test_rare_classes_weigh_as_much() -> None:
    rng = np.random.default_rng(0)
    y = (np.arange(1000) % 50 == 0).astype(np.int64)
    x = rng.normal(y * 1.5, 1, 1000)[:, None]
    found = fit(x, y, ("a",), ("no", "yes"), 1.0)
    found = found.probabilities(x).argmax(axis=1)
    assert found[y == 1].mean() > 0.6


def test_scores_are_of_left_out_groups() -> None:
    """Labels that hold within a group only look learnable when its cells are split; honest scores are at chance."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 30)
    y = rng.integers(0, 2, 20)[groups]
    x = rng.normal(size=(20, 19))[groups] + rng.normal(0, 0.01, (600, 19))
    honest = cross_validate(x, y, groups, ("a", "b"), 0.1, 5, "slides")
    split = cross_validate(x, y, np.arange(600), ("a", "b"), 0.1, 5, "cells")
    assert honest is not None and split is not None
    assert split.balanced_accuracy > 0.95 and honest.balanced_accuracy < 0.75
    assert np.array(honest.confusion).sum() == 600
    assert cross_validate(x, y, np.zeros(600, np.int64), ("a", "b"), 1.0, 5, "slides") is None


def test_regions() -> None:
    xy = np.array([[0, 0], [100, 0], [1000, 0], [1100, 0]], float)
    labels, kind = regions(xy, 250)
    assert labels.tolist() == [0, 0, 1, 1] and kind == "regions"
    labels, kind = regions(np.column_stack([np.arange(0, 1000, 100.0), np.zeros(10)]), 250)
    assert len(set(labels)) == 4 and kind == "squares"


def test_saved_and_loaded(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)
    made = fit(x, y, ("a", "b"), ("no", "yes"), 1.0)
    made.save(tmp_path / "m.json")
    found = Classifier.load(tmp_path / "m.json")
    np.testing.assert_array_equal(found.probabilities(x), made.probabilities(x))
    with pytest.raises(ModelNotFound, match="no classifier at"):
        Classifier.load(tmp_path / "n.json")
    for text in ("{}", "[]", '{"wsipipe_classifier": 2}', "x"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(NotAModel, match="is not a classifier"):
            Classifier.load(tmp_path / "m.json")


def test_a_classifier_whose_numbers_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    fit(np.eye(4), np.array([0, 0, 1, 1]), tuple("abcd"), ("no", "yes"), 1.0).save(path)
    saved = json.loads(path.read_text())
    for change, said in (
        ({"centre": [0.25, 0.5, 0.25, 0.25]}, "its weights are not those that were saved"),
        ({"spread": [1.0, 1.0, 1.0, float("nan")]}, "NaN is no number in JSON"),
        ({"spread": [1.0, 1.0, 1.0, 1e999]}, "Infinity is no number in JSON"),
    ):
        path.write_text(json.dumps(saved | change))
        with pytest.raises(NotAModel, match=said):
            Classifier.load(path)
    del saved["digest"]
    path.write_text(json.dumps(saved))
    assert Classifier.load(path).columns == tuple("abcd")


def test_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    kinds = _master(path, 6)
    with pytest.raises(SettingsError, match="either --fit LABELS"):
        run_classify(ClassifyJob((path,), tmp_path / "b.parquet"), Progress())
    _label(path, tmp_path / "a.geojson", kinds)
    job = ClassifyJob((path,), fit=tmp_path / "a.geojson")
    with pytest.raises(SettingsError, match="nothing to write"):
        run_classify(job, Progress())
    settings = ClassifySettings(columns="area_um2,volume")
    wanted = ClassifyJob((path,), tmp_path / "b.parquet", fit=job.fit, classify=settings)
    with pytest.raises(SettingsError, match="not all cells have 'volume'"):
        run_classify(wanted, Progress())
    _label(path, tmp_path / "one.geojson", ["Tumour"] * COUNT)
    with pytest.raises(SettingsError, match="labelled cells: Tumour: 100; expected at least two classes"):
        run_classify(ClassifyJob((path,), tmp_path / "b.parquet", fit=tmp_path / "one.geojson"), Progress())
    write_geojson(path, tmp_path / "none.geojson")
    with pytest.raises(StoreError, match="no object has a class"):
        run_classify(ClassifyJob((path,), tmp_path / "b.parquet", fit=tmp_path / "none.geojson"), Progress())
    fit(np.eye(4), np.array([0, 0, 1, 1]), tuple("abcd"), ("no", "yes"), 1.0).save(tmp_path / "m.json")
    with pytest.raises(SettingsError, match="lacks a, b, c, d"):
        run_classify(ClassifyJob((path,), tmp_path / "b.parquet", model=tmp_path / "m.json"), Progress())
    assert not (tmp_path / "b.parquet").exists()


# --- the loop: which cells to ask for, of several slides --------------------------------------------------------------


def test_doubt_is_greatest_where_two_classes_are_as_likely() -> None:
    found = doubt(np.array([[0.5, 0.5, 0.0], [0.4, 0.35, 0.25], [1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(found, [1.0, 0.95, 0.0])


def test_questions_are_doubtful_and_unlike_each_other() -> None:
    doubts = np.concatenate([np.full(50, 0.9), np.full(3, 0.8), np.zeros(500)])
    x = np.concatenate([np.zeros((50, 2)), [[5, 0], [0, 5], [5, 5]], np.random.default_rng(0).normal(size=(500, 2))])
    found = questions(doubts, x, 6)
    assert found[0] == 0 and {50, 51, 52} <= set(found.tolist()), "of fifty alike, one is enough"
    assert (np.diff(doubts[found]) <= 0).all()
    assert questions(doubts[:4], x[:4], 6).tolist() == [0, 1, 2, 3]
    clusters = np.repeat([[0, 0], [9, 0], [0, 9]], (300, 100, 50), axis=0) + x[53:503] * 0.1
    first = first_questions(clusters, 3)
    assert sorted(np.searchsorted([300, 400], first, side="right").tolist()) == [0, 1, 2]


@pytest.mark.filterwarnings("error")
def test_cells_alike_are_asked_for_once() -> None:
    """Without a word of warning: columns that are constant, or known of no cell, and fewer kinds than questions."""
    rng = np.random.default_rng(0)
    assert first_questions(np.ones((100, 3)), 10).tolist() == [0]
    kinds = np.repeat([[0.0, 1.0], [2.0, 1.0]], (20, 80), axis=0)
    assert first_questions(kinds, 10).tolist() == [20, 0], "the most frequent first"
    for constant in (7.0, np.nan):
        found = first_questions(np.column_stack([np.full(100, constant), rng.normal(size=100)]), 10)
        assert 1 < len(set(found.tolist())) == len(found) <= 10


def _examples(path: Path, kinds: list[str], rows: slice) -> Examples:
    names = ("area_um2", "eccentricity", "solidity")
    cells = read_cells(path)[rows]
    ids, xy = tuple(cells["cell_id"]), cells[["x", "y"]].to_numpy() * 0.5
    slides = (str(metadata(path)["fingerprint"]),) * len(cells)
    return Examples(names, cells[list(names)].to_numpy(float), tuple(kinds[rows]), slides, ids, xy)


def test_one_file_holds_what_was_labelled(tmp_path: Path) -> None:
    """The same cells in another order, kept and read again, give the same classifier."""
    kinds = _master(tmp_path / "a.parquet", 0)
    examples = _examples(tmp_path / "a.parquet", kinds, slice(0, None, 5))
    assert np.isnan(examples.x).any()
    made, _ = learn(examples, ClassifySettings(), {"Stroma": (1, 2, 3)})
    made.save(tmp_path / "t.json")
    kept = Classifier.load(tmp_path / "t.json")
    again = Examples.of_dict(kept.columns, kept.examples)
    assert again.counts == examples.counts == made.about["labelled"] and made.colours == {"Stroma": (1, 2, 3)}
    assert learn(again, ClassifySettings(), {})[0].digest == made.digest
    assert learn(examples.taken(range(119, -1, -1)), ClassifySettings(), {})[0].digest == made.digest
    changed = Examples(again.columns, again.x[:1], ("Tumour",), again.slides[:1], again.cells[:1], again.xy_um[:1])
    assert len(again.joined(changed)) == 120 and again.joined(changed).kinds[-1] == "Tumour"


def test_a_folder_of_slides(tmp_path: Path) -> None:
    """Labels of two of three slides type all three; questions come from all, and answers are read in again."""
    folder, labels = tmp_path / "out", tmp_path / "labels"
    folder.mkdir()
    labels.mkdir()
    kinds = {name: _master(folder / f"{name}.parquet", seed) for seed, name in enumerate("abc", 11)}
    for name in "ab":
        _label(folder / f"{name}.parquet", labels / f"{name}.geojson", kinds[name], 20)
    asked, settings = tmp_path / "next", ClassifySettings(ask=30)
    job = ClassifyJob((folder,), tmp_path / "typed", None, labels, (), tmp_path / "t.json", asked, settings)
    done = run_classify(job, Progress())
    assert done.scores is not None and (done.scores.kind, done.scores.regions) == ("slides", 2)
    for name in "abc":
        typed = read_cells(tmp_path / "typed" / f"{name}.parquet")
        assert (typed["class"] == kinds[name]).mean() > 0.85
    assert sum(done.cells.values()) == 3 * COUNT and sum(done.questions.values()) == 30
    assert set(done.questions) == {"a", "b", "c"}

    known = {row[1] for row in Classifier.load(tmp_path / "t.json").examples["cells"]}
    for name in done.questions:
        content = json.loads((asked / f"{name}.geojson").read_text())
        cells = dict(zip(read_cells(folder / f"{name}.parquet")["cell_id"], kinds[name]))
        for feature in content["features"]:
            assert "classification" not in feature["properties"] and feature["properties"]["name"].endswith("?")
            assert 0 <= feature["properties"]["measurements"]["doubt"] <= 1
            feature["properties"]["classification"] = {"name": "Tumour", "color": [1, 2, 3]}
        (labels / f"{name}.geojson").write_text(json.dumps(content))
        found = read_labels(labels / f"{name}.geojson", folder / f"{name}.parquet")
        rows = [(t["cell_id"].to_pylist(), found.of(t)) for t in row_groups(folder / f"{name}.parquet")]
        hit = [id_ for ids, kinds_ in rows for id_, kind in zip(ids, kinds_) if kind]
        assert len(hit) >= done.questions[name] and not known & set(hit) and set(hit) <= set(cells)


def test_candidates_are_a_sample_of_every_slide(tmp_path: Path) -> None:
    masters = {}
    for seed, name in enumerate("ab", 21):
        _master(tmp_path / f"{name}.parquet", seed)
        masters[name] = tmp_path / f"{name}.parquet"
    found = candidates_of(masters, ("area_um2",), most=400)
    assert np.bincount(found.slide).tolist() == [200, 200] and found.total == 2 * COUNT
    for k in (0, 199, 399):
        row = found.table(k)
        assert row["cell_id"][0].as_py() == found.ids[k] and row["area_um2"][0].as_py() == pytest.approx(found.x[k, 0])
        assert found.example(k, "Stroma").cells == (found.ids[k],)


def test_folder_errors(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    kinds = _master(folder / "a.parquet", 31)
    _master(folder / "b.parquet", 32)
    _label(folder / "a.parquet", tmp_path / "a.geojson", kinds)
    with pytest.raises(SettingsError, match="for several slides give a folder with NAME"):
        run_classify(ClassifyJob((folder,), tmp_path / "t", fit=tmp_path / "a.geojson"), Progress())
    (tmp_path / "labels").mkdir()
    with pytest.raises(SettingsError, match="holds labels of none of the 2 slides; expected"):
        run_classify(ClassifyJob((folder,), tmp_path / "t", fit=tmp_path / "labels"), Progress())
    one = ClassifyJob((folder / "a.parquet",), fit=tmp_path / "a.geojson", save=tmp_path / "t.json")
    run_classify(one, Progress())
    with pytest.raises(OutputError, match="typed cells of several slides need one folder"):
        run_classify(ClassifyJob((folder,), tmp_path / "t.parquet", tmp_path / "t.json"), Progress())
    with pytest.raises(OutputError, match="is the input itself"):
        run_classify(ClassifyJob((folder,), folder, tmp_path / "t.json"), Progress())
    with pytest.raises(OutputError, match="there are several slides; give a folder"):
        run_classify(ClassifyJob((folder,), None, tmp_path / "t.json", questions=tmp_path / "q.geojson"), Progress())
    with pytest.raises(OutputError, match=r"annotations for QuPath are a \.geojson"):
        run_classify(
            ClassifyJob((folder / "a.parquet",), None, tmp_path / "t.json", questions=tmp_path / "q"), Progress()
        )
