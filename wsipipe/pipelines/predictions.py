"""The story of `wsipipe evaluate --predictions`: what another tool found, scored by the code that scores wsipipe's."""

from __future__ import annotations

from pathlib import Path

from wsipipe.errors import DatasetError
from wsipipe.evaluate.image import Labels
from wsipipe.evaluate.metrics import consecutive
from wsipipe.evaluate.tally import Evaluation, Tally
from wsipipe.labels import Annotated, read_labels
from wsipipe.labels.hovernet import load
from wsipipe.labels.pictures import check_labels
from wsipipe.pipelines.evaluate import CLAIM, WRITTEN, EvaluateJob, read_images
from wsipipe.runs import claims, result_folder
from wsipipe.schedule.progress import Progress

SUFFIXES = ".png", ".tif", ".tiff", ".npy", ".mat"
"""Forms of an instance map; .mat as HoVer-Net writes it, with ``inst_map``."""


@claims(lambda job: (job.out / CLAIM,))
def score_predictions(job: EvaluateJob, folder: Path, progress: Progress) -> Evaluation:
    """Score the instance maps in *folder*, each named as its image, and write what ``evaluate`` writes.

    Raises
    ------
    DatasetError
        An image has no map, or one of another size.
    """
    images = read_images(job)
    found = {item.name: _read(folder, item) for item in images}  # all of them, before anything is written
    progress.start("images", len(images))
    tally = Tally(images, (), job.scoring)
    for item in images:
        tally.add(item, found[item.name])
        progress.advance("images")
    result = tally.result(job.dataset, job.part, (), {"model": folder.name, "predictions": str(folder)})
    with result_folder(job.out, WRITTEN) as out:
        result.write(out)
    return result


def _read(folder: Path, item: Annotated) -> Labels:
    """Return the instance map of *item*, numbered 1..n."""
    path = next((p for s in SUFFIXES if (p := folder / f"{item.name}{s}").is_file()), None)
    if path is None:
        forms = ", ".join(f"{item.name}{suffix}" for suffix in SUFFIXES)
        raise DatasetError(f"{folder}: no instance map of {item.name}; expected one of {forms}")
    if path.suffix == ".mat":
        labels = consecutive(check_labels(load(path)["inst_map"], str(path)))
    else:
        labels = read_labels(path)
    if labels.shape != item.labels.shape:
        raise DatasetError(f"{path}: {labels.shape}; its image is {item.labels.shape}, and sizes must agree")
    return labels
