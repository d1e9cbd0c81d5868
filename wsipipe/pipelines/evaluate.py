"""The story of `wsipipe evaluate`: annotated images in, honest numbers and pictures out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from wsipipe.errors import DatasetError, SettingsError
from wsipipe.evaluate.image import ImageMaps, Labels
from wsipipe.evaluate.objects import predicted
from wsipipe.evaluate.pictures import ranked, write_labels, write_pictures
from wsipipe.evaluate.scoring import write_trials
from wsipipe.evaluate.scoring_groups import read_groups
from wsipipe.evaluate.tally import Evaluation, Tally
from wsipipe.evaluate.tuning import MARKER_THRESHOLDS, THRESHOLDS, Trial, tune
from wsipipe.infer.adapted import AdaptedPredictor
from wsipipe.labels import Annotated, DatasetSpec, assumption, read_set
from wsipipe.models.checkpoint import Rules
from wsipipe.models.threads import set_threads
from wsipipe.models.zoo import DEFAULT, resolve
from wsipipe.plugins.opening import AnyPredictor, check_settings, is_plugin, open_predictor, weights_digest
from wsipipe.runs import claims, result_folder
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import network_threads
from wsipipe.segmentation.prepare import rules_of
from wsipipe.settings import CellSettings, EvaluateSettings, GridSettings, RunSettings

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
    tally = Tally(images, predictor.card.head.types if predictor.card.head else (), job.scoring)
    rules = rules_of(predictor.card.rules, job.cells)
    progress.start("images", len(images))
    found: dict[str, Labels] = {}
    with result_folder(job.out, WRITTEN) as out:
        for item, maps in predicted(images, predictor, job.grid):
            found[item.name], types = maps.labels_and_types(rules, job.cells)
            tally.add(item, found[item.name], types)
            write_labels(out / "labels", item.name, found[item.name])
            progress.advance("images")
        result = tally.result(job.dataset, job.part, groups, _about(job, predictor, rules))
        result.write(out)
        write_pictures(out / "pictures", ranked(tally.counted, job.scoring.pictures), found)
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
    if is_plugin(job.model):
        raise SettingsError(f"--tune chooses thresholds of wsipipe's own networks; {job.model} has none of these")
    predictor = _load(job)
    images = read_images(job, predictor.card.mpp)
    _warn(job, images, progress)
    progress.start("images", len(images))
    pairs = []
    for item, maps in predicted(images, predictor, job.grid):
        assert isinstance(maps, ImageMaps)
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


def _load(job: EvaluateJob) -> AnyPredictor:
    set_threads(network_threads())
    run = job.run
    if job.scoring.ttt_steps:
        if is_plugin(job.model):
            raise SettingsError(f"--ttt-steps: {job.model} is not wsipipe's own, and is taken as it is; leave it out")
        return AdaptedPredictor(resolve(job.model), run, job.scoring)
    if is_plugin(job.model):
        check_settings(job.model, job.cells, job.grid)
    return open_predictor(job.model, run.device, run.precision, run.batch, run.engine)


def _about(job: EvaluateJob, predictor: AnyPredictor, rules: Rules) -> dict[str, object]:
    """Return what found the nuclei: model, rules and arithmetic."""
    return {
        "model": predictor.card.name,
        "model_sha256": weights_digest(job.model),
        "working_mpp": job.grid.target_mpp or predictor.card.mpp,
        "rules": asdict(rules),
        "recipe": asdict(predictor.recipe),
    }
