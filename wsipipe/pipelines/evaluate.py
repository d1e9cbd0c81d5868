"""The story of `wsipipe evaluate`: annotated images in, honest numbers and pictures out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from wsipipe.errors import DatasetError, SettingsError
from wsipipe.evaluate.image import ImageMaps, Labels, instances_of, maps_of, maps_of_all
from wsipipe.evaluate.metrics import Counts, SizeCounts, Summary, TypeSummary, count, count_sizes, scores, summarise
from wsipipe.evaluate.scoring import (
    Scores,
    markdown,
    write_labels,
    write_pictures,
    write_scores,
    write_tables,
    write_trials,
)
from wsipipe.evaluate.scoring_groups import Groups, read_groups
from wsipipe.evaluate.scoring_types import TypeTally
from wsipipe.evaluate.tuning import MARKER_THRESHOLDS, THRESHOLDS, Trial, tune
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.labels import Annotated, DatasetSpec, assumption, read_set
from wsipipe.models.checkpoint import Rules, model_hash
from wsipipe.models.threads import set_threads
from wsipipe.models.zoo import DEFAULT, resolve
from wsipipe.runs import claims, result_folder
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import network_threads
from wsipipe.segmentation.prepare import rules_of
from wsipipe.settings import CellSettings, EvaluateSettings, GridSettings, RunSettings

__all__ = ["EvaluateJob", "Evaluation", "instances_of", "maps_of", "maps_of_all", "run_evaluate", "run_tune", "tune"]

IMAGES_AT_ONCE = 16
"""At most so many images share a pass through the network."""
CLAIM = "scores.md"
WRITTEN = (CLAIM, "scores.json", "images.*", "types.csv", "sizes.csv", "labels", "pictures")
"""What lies in the folder of an evaluation."""


@dataclass(frozen=True)
class EvaluateJob:
    """What to score, against what, and where the results go.

    Attributes
    ----------
    dataset : DatasetSpec
    part : {'train', 'val', 'test'}
        Which part of a split set; without a split, all images are taken.
    model : str
        Name of a shipped model, or a checkpoint.
    out : Path
        Folder.
    groups : Path, optional
        CSV file of images or patients and their groups, which are scored each for itself.
    """

    dataset: DatasetSpec
    out: Path
    part: str = "test"
    model: str = DEFAULT
    grid: GridSettings = field(default_factory=GridSettings)
    cells: CellSettings = field(default_factory=CellSettings)
    run: RunSettings = field(default_factory=RunSettings)
    scoring: EvaluateSettings = field(default_factory=EvaluateSettings)
    groups: Path | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model on an annotated set.

    Attributes
    ----------
    images : list of (Annotated, Counts)
    scores : Scores
    about : dict
        What was scored, how, and with what: for reports.
    """

    images: list[tuple[Annotated, Counts]]
    scores: Scores
    about: dict[str, object]

    @property
    def summary(self) -> Summary:
        """Scores of the outlines."""
        return self.scores.outlines

    @property
    def types(self) -> TypeSummary | None:
        """Scores of cell types, where labels and model share some."""
        return self.scores.types

    @property
    def markdown(self) -> str:
        """The report as Markdown."""
        return markdown(self.about, self.scores)


@claims(lambda job: (job.out / CLAIM,))
def run_evaluate(job: EvaluateJob, progress: Progress) -> Evaluation:
    """Score a model on an annotated set; write tables, label maps, pictures and the report to ``job.out``.

    Raises
    ------
    WsipipeError
    """
    predictor = _load(job)
    images = read_images(job, predictor.card.mpp)
    _warn(job, images, progress)
    groups = read_groups(job.groups, images) if job.groups else []
    tally = TypeTally.of(images, predictor.card.head.types if predictor.card.head else ())
    rules = rules_of(predictor.card.rules, job.cells)
    progress.start("images", len(images))
    counted: list[tuple[Annotated, Counts]] = []
    sizes: list[SizeCounts] = []
    found: dict[str, Labels] = {}
    with result_folder(job.out, WRITTEN) as out:
        for item, maps in predicted(images, predictor, job.grid):
            found[item.name], types = maps.labels_and_types(rules, job.cells)
            tally.add(item, found[item.name], types)
            counted.append((item, count(item.labels, found[item.name], job.scoring.tolerance_px)))
            sizes.append(count_sizes(item.labels, found[item.name], item.mpp))
            write_labels(out / "labels", item.name, found[item.name])
            progress.advance("images")
        each, asked = [c for _, c in counted], job.scoring
        outlines = summarise(each, asked.resamples, asked.seed)
        found_scores = Scores(
            outlines,
            tally.detection(asked),
            tally.image_means(each, asked),
            reduce(add, sizes),
            tally.summary(asked),
            Groups.of(groups, each, asked) if groups else None,
        )
        result = Evaluation(counted, found_scores, _about(job, counted, predictor, rules))
        write_tables(out, counted)
        write_scores(out, result.about, found_scores)
        write_pictures(out / "pictures", _ranked(counted, job.scoring.pictures), found)
    return result


@claims(lambda job: (job.out / CLAIM,))
def run_tune(job: EvaluateJob, progress: Progress) -> list[Trial]:
    """Return all choices of thresholds with their scores, the best first, and write them to ``tune.csv``.

    Raises
    ------
    SettingsError
        On the test part of a split set: scores on images that chose the thresholds are worth nothing.
    """
    if job.dataset.split and job.part == "test":
        raise SettingsError("thresholds are not to be chosen on test images; expected --part val (or train)")
    predictor = _load(job)
    images = read_images(job, predictor.card.mpp)
    _warn(job, images, progress)
    progress.start("images", len(images))
    pairs = []
    for item, maps in predicted(images, predictor, job.grid):
        pairs.append((maps, item.labels))
        progress.advance("images")
    progress.start("rules", len(THRESHOLDS) * len(MARKER_THRESHOLDS))
    trials = tune(pairs, predictor.card.rules, report=lambda: progress.advance("rules"))
    write_trials(job.out / "tune.csv", trials)
    return trials


def read_images(job: EvaluateJob, working_mpp: float | None = None) -> list[Annotated]:
    """Return the images to score; regions of a slide are read at *working_mpp* where the set names no resolution.

    Raises
    ------
    DatasetError
        When there are none, or the set cannot be used.
    """
    spec = job.dataset if job.dataset.split else replace(job.dataset, default_split=job.part)
    images = read_set(spec, job.part, working_mpp=working_mpp)
    if not images:
        where = f"part {job.part!r} of {spec.split}" if spec.split else "images/"
        raise DatasetError(f"{spec.path}: {where} holds no image; expected at least one")
    return images


def _warn(job: EvaluateJob, images: list[Annotated], progress: Progress) -> None:
    """Say what is doubtful about the images."""
    if line := assumption(job.dataset, images):
        progress.say(f"warning: {line}")
    if not any(a.labels.max(initial=0) > 0 for a in images):
        progress.say(f"warning: {job.dataset.path}: none of the images has an annotated nucleus; check the labels")


def predicted(
    images: list[Annotated], predictor: Predictor, settings: GridSettings
) -> Iterator[tuple[Annotated, ImageMaps]]:
    """Yield every image with its maps; a few images at a time share the network's batches."""
    step = max(1, min(IMAGES_AT_ONCE, predictor.batch))
    for start in range(0, len(images), step):
        group = images[start : start + step]
        yield from zip(group, maps_of_all([(a.image, a.mpp) for a in group], predictor, settings), strict=True)


def _load(job: EvaluateJob) -> Predictor:
    set_threads(network_threads())
    run = job.run
    return load_predictor(resolve(job.model), run.device, run.precision, run.batch, run.engine)


def _about(
    job: EvaluateJob, counted: list[tuple[Annotated, Counts]], predictor: Predictor, rules: Rules
) -> dict[str, object]:
    mpps = [item.mpp for item, _ in counted]
    return {
        "dataset": job.dataset.path,
        "part": job.part if job.dataset.split else "all",
        "images": len(counted),
        "patients": len({item.patient for item, _ in counted}),
        "empty_images": sum(not (c.truth or c.found) for _, c in counted),
        "nuclei": sum(c.truth for _, c in counted),
        "found": sum(c.found for _, c in counted),
        "mpp": [float(min(mpps)), float(np.median(mpps)), float(max(mpps))],
        "assumed_mpp": sum(item.assumed for item, _ in counted),
        "model": predictor.card.name,
        "model_sha256": model_hash(resolve(job.model)),
        "working_mpp": job.grid.target_mpp or predictor.card.mpp,
        "rules": asdict(rules),
        "recipe": asdict(predictor.recipe),
        "scoring": asdict(job.scoring),
    }


def _ranked(counted: list[tuple[Annotated, Counts]], pictures: int) -> dict[str, Annotated]:
    """Return the best and worst images by PQ, by the name of their picture; those without nuclei are left out."""
    order = sorted((pair for pair in counted if pair[1].truth), key=lambda pair: -scores(pair[1])["PQ"])
    best = order[: min(pictures, (len(order) + 1) // 2)]
    worst = order[::-1][: min(pictures, len(order) // 2)]
    named = {f"best-{i}-{item.name}": item for i, (item, _) in enumerate(best, 1)}
    return named | {f"worst-{i}-{item.name}": item for i, (item, _) in enumerate(worst, 1)}
