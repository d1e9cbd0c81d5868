"""Types of cells by a classifier in the run that finds them: as `wsipipe measure` and `wsipipe classify` give them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from wsipipe.analysis.classify import Classifier
from wsipipe.analysis.classify.reading import how_measured
from wsipipe.cells.measure import MEASURES, stain_names
from wsipipe.errors import SettingsError
from wsipipe.formats.table import PER_CLASS
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.task import Plan
from wsipipe.segmentation.job import QUALITY, SegmentJob
from wsipipe.segmentation.measurer import measured_names
from wsipipe.segmentation.measuring import MeasureJob, run_measure
from wsipipe.segmentation.typed_table import write_typed
from wsipipe.settings import MeasureSettings
from wsipipe.slide.protocol import SlideInfo
from wsipipe.units import Pair


def check_types(job: SegmentJob, plan: Plan, info: SlideInfo) -> None:
    """Refuse, before any work, a classifier of cells that cannot be given the measurements it goes by.

    Raises
    ------
    ModelNotFound, NotAModel, SettingsError
    """
    classifier = Classifier.load(job.types.types)
    anew = _measured(classifier)
    names = [*MEASURES, *stain_names(plan.vectors), *(PER_CLASS + name for name in plan.classes)]
    names += measured_names(anew, plan.vectors) if anew else []
    lacking = [name for name in classifier.columns if name not in names]
    if lacking:
        stains = " and ".join(name for name, _ in plan.vectors.stains)
        raise SettingsError(
            f"--types {job.types.types} goes by {', '.join(lacking)}, which this run does not measure (stains "
            f"{stains}, model {plan.model}); expected a classifier fitted on cells like these: give other "
            "--stain-vectors or another --model, or fit it anew"
        )
    if anew and not os.path.exists(info.path):
        raise SettingsError(
            f"--types {job.types.types} goes by measurements made on the slide itself, and {info.path}, from which "
            f"{job.source} was made, is gone"
        )


def give_types(job: SegmentJob, master: Path, out: Path, slide: str, base_mpp: Pair, progress: Progress) -> None:
    """Write the cells of *master*, as they were found on *slide*, with their types to *out*.

    Where the classifier was fitted on cells that were measured anew, these are, too, with the same settings.
    """
    classifier = Classifier.load(job.types.types)
    anew = _measured(classifier)
    if anew:
        measured = master.with_name("measured.parquet")
        settings = replace(job.slide, mpp=base_mpp[0])
        run_measure(MeasureJob(master, slide, measured, anew, settings, quality=master.with_name(QUALITY)), progress)
        master = measured
    write_typed(master, out, classifier, progress)


def _measured(classifier: Classifier) -> MeasureSettings | None:
    """Return how the cells that a classifier was fitted on were measured anew, None where they were not."""
    told = how_measured(classifier.about)
    return None if told is None else MeasureSettings(**told)
