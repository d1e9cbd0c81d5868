"""Scores of predicted cells against annotated ones: outlines in :mod:`.cells`, types in :mod:`.types`, points in
:mod:`.detection`, nuclei by their size in :mod:`.sizes`.
"""

from wsipipe.evaluate.metrics.cells import (
    METRICS,
    Counts,
    Interval,
    Metric,
    Summary,
    Values,
    boundary,
    count,
    pool,
    scores,
    stack,
    summarise,
)
from wsipipe.evaluate.metrics.detection import DetectionSummary, detections, f_detection, f_type, summarise_detections
from wsipipe.evaluate.metrics.matching import MATCH_IOU, consecutive, overlaps, scored
from wsipipe.evaluate.metrics.sizes import SizeCounts, count_sizes, size_classes
from wsipipe.evaluate.metrics.types import TypeSummary, confusion, count_types, image_means, mpq_plus, summarise_types

__all__ = [
    "MATCH_IOU",
    "METRICS",
    "Counts",
    "DetectionSummary",
    "Interval",
    "Metric",
    "SizeCounts",
    "Summary",
    "TypeSummary",
    "Values",
    "boundary",
    "confusion",
    "consecutive",
    "count",
    "count_sizes",
    "count_types",
    "detections",
    "f_detection",
    "f_type",
    "image_means",
    "mpq_plus",
    "overlaps",
    "pool",
    "scored",
    "scores",
    "size_classes",
    "stack",
    "summarise",
    "summarise_detections",
    "summarise_types",
]
