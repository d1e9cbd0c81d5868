"""The story of `wsipipe build-corpus --dry-run`: slides in, what a corpus of them would hold; nothing is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wsipipe.corpus.candidates import refuse
from wsipipe.corpus.collect import Rules, ahead, candidates_of
from wsipipe.corpus.sources import find_sources
from wsipipe.pipelines.corpus import CorpusJob
from wsipipe.schedule.progress import Progress
from wsipipe.schedule.resources import allowed_cores

RATIOS = {"webp": 0.45, "zstd": 0.8, "none": 1.0}
"""Bytes of a stored patch per byte of its pixels, as measured on stained tissue (docs/decisions/corpus-codec.md)."""


@dataclass(frozen=True)
class Forecast:
    """What a run would do: patches at most, before the filters, and how many bytes they would take."""

    slides: int
    patients: int
    patches: int
    outside: int
    failures: Mapping[str, str]
    raw_bytes: int
    stored_bytes: int
    free_bytes: int


def forecast(job: CorpusJob, progress: Progress) -> Forecast:
    """Return what :func:`run_build_corpus` would do; opens every slide, and writes nothing."""
    refuse(job.settings)
    sources = find_sources(job.inputs, job.root, job.naming)
    rules, threads = Rules(job.settings, job.slide, job.tissue, job.image_mpp), job.settings.threads or allowed_cores()
    patches, outside, failures = 0, 0, {}
    progress.start("slides", len(sources))
    with ThreadPoolExecutor(threads) as pool:
        for source, found in ahead(pool, lambda source: candidates_of(source, rules), sources, 2 * threads):
            progress.advance("slides")
            if isinstance(found, str):
                failures[source.name] = found
                continue
            patches += min(len(found.corners), job.settings.cap or len(found.corners))
            outside += found.outside
            found.raster.close()
    raw = patches * job.settings.patch**2 * 3
    there = next(folder for folder in Path(os.path.realpath(job.output)).parents if folder.exists())
    free = shutil.disk_usage(there).free
    people = len({source.patient for source in sources})
    return Forecast(
        len(sources), people, patches, outside, failures, raw, round(raw * RATIOS[job.settings.codec]), free
    )
