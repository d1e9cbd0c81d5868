"""Evaluation runs the very code that segments slides, and reports what it finds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from wsipipe.cli.evaluate import evaluate
from wsipipe.errors import DatasetError, OutputError, SettingsError
from wsipipe.evaluate.image import instances_of, maps_of, maps_of_all, rasterise
from wsipipe.evaluate.metrics import count, pool, scores
from wsipipe.evaluate.pictures import COLOURS, picture, write_labels
from wsipipe.evaluate.tuning import tune
from wsipipe.formats.parquet import read_cells
from wsipipe.infer.predict import Predictor, Recipe
from wsipipe.labels import Annotated, DatasetSpec, read_labels
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Rules
from wsipipe.models.cmd import cmd_t
from wsipipe.models.heads import HeadConfig
from wsipipe.pipelines import evaluate as story
from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate, run_tune
from wsipipe.schedule import resources
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.run import SegmentJob, run_segment
from wsipipe.settings import (
    CellSettings,
    EvaluateSettings,
    FitSettings,
    GridSettings,
    RunSettings,
    SlideSettings,
    TissueSettings,
)
from wsipipe.train.fitting import new_segmenter

Labels = NDArray[np.int32]


class Darkness:
    """Stands for a predictor: the darker a pixel, the more it is nucleus; its core is what is darker still."""

    names = ("foreground", "marker")
    batch = 2
    card = ModelCard("darkness", cmd_t(), HeadConfig("linear", (1,)), mpp=0.5, rules=Rules(0.5, 0.9))
    recipe = Recipe("cpu", "float32", "eager", "0", 2)

    def maps(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        dark = 255 - tiles[..., 0]
        return np.stack([dark, dark], axis=1)


DARK: Any = Darkness()


def discs(seed: int, size: tuple[int, int] = (300, 260), n: int = 12) -> Annotated:
    """Dark discs of 12 px on white, well apart, and their label map."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[1], : size[0]]
    labels = np.zeros((size[1], size[0]), np.int32)
    for k in range(1, n + 1):
        cx, cy = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        if not labels[np.hypot(x - cx, y - cy) < 18].any():
            labels[np.hypot(x - cx, y - cy) < 12] = k
    image = np.repeat(np.where(labels > 0, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    return Annotated(f"{seed:02}_a", f"{seed:02}", image, labels, 0.25)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return an annotated set of five images of five patients, with a split."""
    folder = tmp_path / "discs"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for seed in range(5):
        item = discs(seed)
        Image.fromarray(item.image).save(folder / "images" / f"{item.name}.png")
        Image.fromarray(item.labels.astype(np.uint16)).save(folder / "labels" / f"{item.name}.png")
    (folder / "split.json").write_text(json.dumps({"val": ["00", "01"], "test": ["02", "03"]}))
    return folder


@pytest.fixture
def job(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvaluateJob:
    """Return a job on the test part of *dataset* with a predictor that sees darkness."""
    monkeypatch.setattr(story, "_load", lambda job: DARK)
    monkeypatch.setattr(story, "weights_digest", lambda model: "0" * 64)
    spec = DatasetSpec(str(dataset), 0.25, r"(\d+)_", str(dataset / "split.json"), default_split="")
    return EvaluateJob(spec, tmp_path / "out", scoring=EvaluateSettings(resamples=20, pictures=1))


@pytest.mark.parametrize("mpp", [0.25, 0.3, 0.5, 0.7])
def test_cells_come_back_at_the_images_own_resolution(mpp: float) -> None:
    item = discs(3)
    found = instances_of(item.image, mpp, DARK)
    assert found.dtype == np.int32 and found.shape == item.labels.shape
    s = scores(count(item.labels, found))
    assert s["DQ"] == 1 and s["SQ"] > (0.93 if mpp == 0.25 else 0.95)


def test_asked_rules_and_resolution_are_used() -> None:
    item = discs(3)
    assert maps_of(item.image, 0.25, DARK, target_mpp=0.25).grid.size == (300, 260)
    assert instances_of(item.image, 0.25, DARK, replace(DARK.card.rules, min_area_um2=1e4)).max() == 0
    assert maps_of(item.image, 0.25, DARK).labels(DARK.card.rules, CellSettings(min_area_um2=1e4)).max() == 0
    with pytest.raises(SettingsError, match="over 2x coarser"):
        maps_of(item.image, 1.2, DARK)


def test_images_that_share_a_pass_are_as_alone() -> None:
    items = [discs(1), discs(2, (600, 90), 20), discs(3, (40, 40), 1)]
    together = maps_of_all([(a.image, a.mpp) for a in items], DARK)
    for item, maps in zip(items, together, strict=True):
        alone = maps_of(item.image, item.mpp, DARK)
        assert (maps.maps == alone.maps).all() and (maps.grid, maps.size) == (alone.grid, alone.size)


def test_an_image_gives_the_cells_of_the_segment_command(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, card = new_segmenter(FitSettings(head="linear"))
    torch.nn.init.normal_(next(p for p in network.head.parameters() if p.ndim > 1), std=2.0)
    model, png = tmp_path / "m.safetensors", tmp_path / "region.png"
    checkpoint.save(model, network, card)
    image = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8), 8, 0), 8, 1)
    Image.fromarray(image).save(png)
    run = RunSettings(device="cpu", precision="fp32", batch=1, block=256)
    out = tmp_path / "cells.parquet"
    settings = {"slide": SlideSettings(mpp=0.5), "tissue": TissueSettings(tissue="none"), "run": run}
    run_segment(SegmentJob(str(png), (out,), str(model), **settings), Progress())
    cells = read_cells(out)
    found = instances_of(image, 0.5, Predictor(model, "cpu", "fp32", 1))
    expected = rasterise(cells.geometry.to_numpy(), (400, 320))
    assert len(cells) > 5
    same = count(expected, found)
    assert (same.truth, same.found, same.matched) == (found.max(), found.max(), same.matched_iou)


def test_rasterised_polygons_hold_the_pixel_centres_inside() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:60, :70] + 0.5
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(5, 30, 9)
        ring = np.stack([35 + radii * np.cos(angles), 30 + radii * np.sin(angles)], axis=1)
        polygon = shapely.Polygon(ring + rng.uniform(-25, 25, 2))
        inside = shapely.contains_xy(polygon, x, y)
        assert (rasterise(np.array([polygon]), (70, 60)) == inside).all()


def test_neighbours_share_no_pixel_and_leave_none() -> None:
    rng = np.random.default_rng(1)
    xs, ys = np.sort(rng.integers(0, 60, 6)) / 2, np.sort(rng.integers(0, 60, 6)) / 2
    corners = rng.integers(-3, 4, (6, 6, 2)) * 0.25 + np.stack(np.meshgrid(xs, ys), axis=-1)
    quads = [
        shapely.Polygon([corners[j, i], corners[j, i + 1], corners[j + 1, i + 1], corners[j + 1, i]])
        for j in range(5)
        for i in range(5)
    ]
    polygons = np.array([q for q in quads if q.is_valid and q.area > 0])
    each = np.stack([rasterise(np.array([p]), (40, 40)) for p in polygons])
    assert each.sum(0).max() == 1
    union = shapely.union_all(polygons)
    y, x = np.mgrid[:40, :40] + 0.5
    assert (each.sum(0) > 0)[shapely.contains_xy(union, x, y)].all()


def test_of_overlapping_polygons_the_smaller_wins() -> None:
    large, small = shapely.box(0, 0, 20, 20), shapely.box(5, 5, 10, 10)
    for order in ([large, small], [small, large]):
        labels = rasterise(np.array(order), (30, 30))
        assert labels[7, 7] == order.index(small) + 1 and (labels > 0).sum() == 400
    assert rasterise(np.zeros(0, object), (4, 3)).shape == (3, 4)


THIN = {"threshold": 0.4, "marker_threshold": 0.4, "min_area_um2": 1.0}
"""Rules under which a speck counts as a cell."""


def test_tuning_finds_the_rules_that_score_best() -> None:
    items = [discs(1), discs(2)]
    grey = [np.clip(a.image.astype(int) + 90, 0, 255).astype(np.uint8) for a in items]  # nuclei at 0.65
    for image in grey:
        image[10:30, 200:204] = 140  # a speck of 5 µm² at 0.45
    pairs = [(maps_of(image, 0.25, DARK), a.labels) for image, a in zip(grey, items, strict=True)]
    told: list[int] = []
    trials = tune(
        pairs, DARK.card.rules, (0.4, 0.5, 0.7), (0.4, 0.6), (1.0, 8.0), (0.0, 0.5), report=lambda: told.append(1)
    )
    assert len(trials) == 24 and len(told) == 6
    (speck,) = {t.scores["PQ"] for t in trials if vars(t.rules) == vars(DARK.card.rules) | THIN}
    (sure,) = {
        t.scores["PQ"] for t in trials if vars(t.rules) == vars(DARK.card.rules) | THIN | {"min_probability": 0.5}
    }
    assert sure > speck, "the speck is improbable"
    values = [t.scores["PQ"] for t in trials]
    assert values == sorted(values, reverse=True) and values[0] > 0.9 and values[-1] == 0
    for trial in trials:
        again = scores(pool([count(truth, maps.labels(trial.rules), None) for maps, truth in pairs]))
        assert again == trial.scores


def test_an_evaluation_leaves_tables_report_labels_and_pictures(job: EvaluateJob) -> None:
    (stale := job.out / "pictures" / "best-1-old.png").parent.mkdir(parents=True)
    stale.touch()
    result = run_evaluate(job, Progress())
    files = sorted(p.relative_to(job.out).as_posix() for p in job.out.rglob("*") if p.is_file())
    pictures = [name for name in files if name.startswith("pictures/")]
    assert [p[9:16] for p in pictures] == ["best-1-", "worst-1"] and "pictures/best-1-old.png" not in files
    names = ["images.csv", "images.parquet", "labels/02_a.png", "labels/03_a.png", "scores.json", "scores.md"]
    assert files == sorted([*names, "sizes.csv", *pictures])
    with (job.out / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        [row["image"] for row in rows]
        == ["02_a", "03_a"]
        == pq.read_table(job.out / "images.parquet")["image"].to_pylist()
    )
    for row, (item, c) in zip(rows, result.images, strict=True):
        assert float(row["PQ"]) == scores(c)["PQ"]
        assert c == count(item.labels, read_labels(job.out / "labels" / f"{item.name}.png"))
    about = json.loads((job.out / "scores.json").read_text())
    assert about["pooled"]["PQ"]["value"] == scores(pool([c for _, c in result.images]))["PQ"]
    text = (job.out / "scores.md").read_text()
    assert text == result.markdown and "2 images of 2 patients" in text and "| PQ |" in text and "(test)" in text


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_an_assumed_resolution_and_a_set_without_nuclei_are_told(job: EvaluateJob) -> None:
    heard = Heard()
    result = run_evaluate(replace(job, dataset=replace(job.dataset, mpp="auto")), heard)
    assert [line for line in heard.lines if "2 of 2 images state no resolution and are taken to be at 0.25" in line]
    assert "- 2 images state no resolution: 0.25 µm/px was assumed" in result.markdown
    assert json.loads((job.out / "scores.json").read_text())["assumed_mpp"] == 2
    heard = Heard()
    for path in (Path(job.dataset.path) / "labels").iterdir():
        Image.fromarray(np.zeros((260, 300), np.uint16)).save(path)
    result = run_evaluate(replace(job, dataset=replace(job.dataset, mpp=0.25)), heard)
    assert heard.lines == [
        f"warning: {job.dataset.path}: none of the images has an annotated nucleus; check the labels"
    ]
    assert "no resolution" not in result.markdown


def test_the_same_evaluation_has_the_same_bytes(job: EvaluateJob) -> None:
    run_evaluate(job, Progress())
    before = {p: p.read_bytes() for p in job.out.rglob("*") if p.is_file()}
    run_evaluate(replace(job, grid=GridSettings()), Progress())
    assert before == {p: p.read_bytes() for p in job.out.rglob("*") if p.is_file()}


def test_without_a_split_every_image_counts(job: EvaluateJob) -> None:
    everything = replace(job, dataset=replace(job.dataset, split=""))
    assert len(run_evaluate(everything, Progress()).images) == 5
    assert "(all)" in (job.out / "scores.md").read_text()


def test_a_picture_shows_right_and_wrong() -> None:
    item = discs(3)
    numbers = np.unique(item.labels)[1:]
    assert len(numbers) > 3
    found = np.where(item.labels == numbers[0], 0, item.labels)
    free = np.argwhere(ndimage.minimum_filter(found == 0, 21)[70:220, 80:290])[0] + (70, 80)
    found[free[0] - 5 : free[0] + 5, free[1] - 5 : free[1] + 5] = 99
    rgb = picture(item, found)
    assert rgb.shape[:2] == (4 * 260, 4 * 300)
    shown = {name: (rgb == colour).all(-1) for name, colour in COLOURS.items()}
    assert shown["false"][4 * free[0] - 20 : 4 * free[0] + 20, 4 * free[1] - 20 : 4 * free[1] + 20].sum() > 200
    assert shown["missed"].sum() > 200 and shown["found"].sum() > 500
    edge = (picture(item, item.labels) == COLOURS["found"]).all(-1)[400:900]
    assert edge.any() and (np.kron(item.labels, np.ones((4, 4), int))[400:900][edge] > 0).all()


def test_label_maps_of_any_number_of_cells(tmp_path: Path) -> None:
    many = np.arange(70_000, dtype=np.int32).reshape(250, 280)
    write_labels(tmp_path / "labels", "many", many)
    assert (read_labels(tmp_path / "labels" / "many.npy") == many).all()


def test_groups_and_sizes_have_scores_of_their_own(job: EvaluateJob, tmp_path: Path) -> None:
    table = tmp_path / "organs.csv"
    table.write_text("02,kidney\n03_a,liver\n04,lung\n")
    result = run_evaluate(replace(job, groups=table), Progress())
    alone = {name: scores(c) for name, (_, c) in zip(("kidney", "liver"), result.images, strict=True)}
    found = json.loads((job.out / "scores.json").read_text())
    assert {name: group["PQ"]["value"] for name, group in found["groups"].items()} == {
        name: score["PQ"] for name, score in alone.items()
    }
    nuclei = [c.truth for _, c in result.images]
    assert f"| kidney | 1 | {nuclei[0]} | {nuclei[0]} | " in result.markdown and "| lung |" not in result.markdown
    rows = csv.DictReader((job.out / "sizes.csv").read_text().splitlines())
    of_class = {row["diameter_um"]: int(row["annotated"]) for row in rows}
    assert of_class["5.5–7"] >= sum(nuclei) - 2 and sum(of_class.values()) == sum(nuclei)  # the picture cuts some
    assert (
        f"| 5.5–7 | {of_class['5.5–7']} | 1.000 |" in result.markdown and "| < 4 | 0 |  |  | 0 |  |" in result.markdown
    )


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("02,kidney\n", r"organs.csv has no group for 03_a \(patient 03\); add a line for either"),
        ("02,kidney\n02,liver\n", "line 2: 02 has a group already; expected each name once"),
        ("02,kidney,left\n", "line 1: '02,kidney,left'; expected an image or patient, and its group"),
        ("02,kidney\n03,\xff\n", "is not a readable table of groups"),
    ],
)
def test_tables_of_groups_that_cannot_be_used(job: EvaluateJob, tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "organs.csv").write_bytes(table.encode("latin-1"))
    with pytest.raises(DatasetError, match=message):
        run_evaluate(replace(job, groups=tmp_path / "organs.csv"), Progress())
    assert not job.out.exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda job: replace(job, part="train"), DatasetError, r"discs: part 'train' of .*split.json holds no image"),
        (
            lambda job: replace(job, out=Path(job.dataset.split)),
            OutputError,
            "cannot write .*: a part of the path is a file where a folder is expected",
        ),
        (lambda job: replace(job, dataset=DatasetSpec("/nowhere")), DatasetError, "/nowhere/images is not a folder"),
    ],
)
def test_what_cannot_be_scored(
    job: EvaluateJob, change: Callable[[EvaluateJob], EvaluateJob], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_evaluate(change(job), Progress())


def test_thresholds_are_not_chosen_on_test_images(job: EvaluateJob) -> None:
    with pytest.raises(SettingsError, match="expected --part val"):
        run_tune(job, Progress())


def test_the_command_scores_and_tunes(job: EvaluateJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        story, "tune", lambda pairs, rules, report: tune(pairs, rules, (0.5,), (0.5,), (6.0, 9.0), (0.0,))
    )
    base = [job.dataset.path, "--split", job.dataset.split, "--patient", r"(\d+)_", "-o", str(job.out)]
    done = CliRunner().invoke(evaluate, [*base, "--resamples", "5", "--tolerance-px", "1"], catch_exceptions=False)
    assert done.exit_code == 0 and "agree within 1 px" in done.output and f"wrote {job.out}/scores.md" in done.output
    done = CliRunner().invoke(evaluate, [*base, "--tune", "--part", "val"], catch_exceptions=False)
    assert (
        done.exit_code == 0
        and "best of 2: --threshold 0.5 --marker-threshold 0.5 --min-area-um2 6 --min-probability 0" in done.output
    )
    assert len((job.out / "tune.csv").read_text().splitlines()) == 3
    done = CliRunner().invoke(
        evaluate, [job.dataset.path, "-o", str(job.out), "--resamples", "5"], catch_exceptions=False
    )
    assert done.exit_code == 0 and "5 images of 5 patients" in done.output
    wrong = CliRunner().invoke(evaluate, [*base, "--mpp", "fast"])
    assert wrong.exit_code == 2 and "'fast' is no resolution; expected 0.05 to 5 µm/px, auto, or nuclei" in wrong.output


def test_no_more_threads_than_were_asked_for(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    spec = DatasetSpec("nowhere")
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(resources, "allowed_cores", lambda: 4)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        story._load(EvaluateJob(spec, Path("out"), model=str(tiny_model)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
