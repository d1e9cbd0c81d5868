"""Scores of predicted cells against annotated ones; of cells in :mod:`.cells`, of their types in :mod:`.types`."""

from wsipipe.metrics.cells import Counts, Interval, Summary, Values, boundary, count, pool, scores, stack, summarise
from wsipipe.metrics.matching import MATCH_IOU, consecutive, overlaps, scored
from wsipipe.metrics.types import TypeSummary, confusion, count_types, mpq_plus, summarise_types

__all__ = [
    "MATCH_IOU",
    "Counts",
    "Interval",
    "Summary",
    "TypeSummary",
    "Values",
    "boundary",
    "confusion",
    "consecutive",
    "count",
    "count_types",
    "mpq_plus",
    "overlaps",
    "pool",
    "scored",
    "scores",
    "stack",
    "summarise",
    "summarise_types",
]
