"""Reports: one HTML file that shows a slide's cells and says how they were found; opens anywhere, loads nothing."""

from wsipipe.report.batch import (
    FAILED,
    Entry,
    entries_of,
    joined,
    label,
    link,
    small_charts,
    small_picture,
    told_of,
    write_index,
)
from wsipipe.report.facts import Facts
from wsipipe.report.page import is_current, regions_mark, write_report

__all__ = [
    "FAILED",
    "Entry",
    "Facts",
    "entries_of",
    "is_current",
    "joined",
    "label",
    "link",
    "regions_mark",
    "small_charts",
    "small_picture",
    "told_of",
    "write_index",
    "write_report",
]
