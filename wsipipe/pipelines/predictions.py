"""Scores of what another tool found: instance maps of a set's images, by the code that scores wsipipe's own."""

from __future__ import annotations

from dataclasses import asdict
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from wsipipe.errors import DatasetError
from wsipipe.evaluate.image import Labels
from wsipipe.evaluate.metrics import Counts, SizeCounts, consecutive, count, count_sizes, summarise
from wsipipe.evaluate.scoring import Scores, write_scores, write_tables
from wsipipe.evaluate.scoring_types import TypeTally
from wsipipe.labels import Annotated, read_labels
from wsipipe.labels.hovernet import load
from wsipipe.labels.pictures import check_labels
from wsipipe.pipelines.evaluate import CLAIM, WRITTEN, EvaluateJob, Evaluation, read_images
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
    counted: list[tuple[Annotated, Counts]] = []
    sizes: list[SizeCounts] = []
    tally = TypeTally.of(images, ())
    for item in images:
        tally.add(item, found[item.name], ())
        counted.append((item, count(item.labels, found[item.name], job.scoring.tolerance_px)))
        sizes.append(count_sizes(item.labels, found[item.name], item.mpp))
        progress.advance("images")
    each, asked = [c for _, c in counted], job.scoring
    result = Scores(
        summarise(each, asked.resamples, asked.seed),
        tally.detection(asked),
        tally.image_means(each, asked),
        reduce(add, sizes),
        tally.summary(asked),
        None,
    )
    mpps = [item.mpp for item in images]
    about: dict[str, object] = {
        "dataset": job.dataset.path,
        "part": job.part if job.dataset.split else "all",
        "images": len(images),
        "patients": len({item.patient for item in images}),
        "empty_images": sum(not (c.truth or c.found) for c in each),
        "nuclei": sum(c.truth for c in each),
        "found": sum(c.found for c in each),
        "mpp": [float(min(mpps)), float(np.median(mpps)), float(max(mpps))],
        "assumed_mpp": sum(item.assumed for item in images),
        "model": folder.name,
        "predictions": str(folder),
        "scoring": asdict(job.scoring),
    }
    with result_folder(job.out, WRITTEN) as out:
        write_tables(out, counted)
        write_scores(out, about, result)
    return Evaluation(counted, result, about)


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
