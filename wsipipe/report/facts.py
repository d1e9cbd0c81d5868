"""What is known of a segmented slide besides its pixels, cleared of what a report must not tell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsipipe._version import __version__
from wsipipe.artifacts import digest
from wsipipe.formats.parquet import metadata

STAGES = {
    "prepare": "opening, tissue, model",
    "decode": "reading pixels",
    "network": "forward passes",
    "scratch": "maps to and from disk",
    "blend": "blending tiles",
    "cells": "cells from maps",
    "polygons": "outlines",
    "measure": "measurements",
    "write": "writing",
}
"""Stages of a run, in order, and what they do."""


@dataclass(frozen=True)
class Facts:
    """What the master file and the run record say.

    Attributes
    ----------
    title : str
        Heading of the report; by default the name of the slide's file without its folder.
    about : mapping
        Metadata of the master file.
    record : mapping
        The run record; empty where it is gone.
    """

    title: str
    about: Mapping[str, Any]
    record: Mapping[str, Any]

    @classmethod
    def of(cls, master: str | os.PathLike[str], record: Mapping[str, Any] | None = None, title: str = "") -> Facts:
        """Return the facts of a master file.

        Raises
        ------
        StoreError
            When *master* is not a master file of wsipipe.
        """
        about, record = metadata(master), record or {}
        if record.get("fingerprint") != about.get("run_fingerprint"):
            record = {}  # of another run that has left its record there
        name = title or os.path.basename(str(record.get("slide") or master).rstrip("/"))
        return cls(name, about, record)

    @property
    def cells(self) -> int:
        """Number of cells."""
        return int(self.about.get("cells", 0))

    @property
    def tissue_mm2(self) -> float:
        """Analysed tissue."""
        return float(self.about.get("tissue_area_um2") or 0) * 1e-6

    @property
    def density(self) -> float:
        """Cells per mm² of analysed tissue."""
        return self.cells / self.tissue_mm2 if self.tissue_mm2 else 0.0

    @property
    def wall(self) -> float | None:
        """Seconds that the run took; None where nothing recorded them."""
        found = self._seconds.get("wall")
        return float(found) if isinstance(found, int | float) else None

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage, summed over workers."""
        return {k: float(v) for k, v in self._seconds.items() if k != "wall" and isinstance(v, int | float) and v > 0}

    @property
    def bottleneck(self) -> str:
        """What took longest, as the run's closing line names it; empty where nothing recorded it."""
        return str(self.record.get("bottleneck") or "")

    @property
    def stamp(self) -> str:
        """Digest of all that a page is made of, save pixels: the same stamp, the same page."""
        return digest([self.title, self.about, self.record, __version__])

    @property
    def bad_boxes(self) -> list[tuple[int, int, int, int]]:
        """Areas that could not be read, in base pixels."""
        return [(int(a), int(b), int(c), int(d)) for a, b, c, d in self.about.get("bad_boxes") or ()]

    @property
    def warnings(self) -> list[str]:
        """What the run warned of; the slide is called by its name."""
        path = str(self.record.get("slide") or "\0")
        return [str(w).replace(path, os.path.basename(path)) for w in self.record.get("warnings") or ()]

    @property
    def settings(self) -> dict[str, list[tuple[str, Any]]]:
        """Settings that determine the result, by section; files by their names only."""
        sections = self.about.get("settings") or {}
        return {
            name: [(key.replace("_", "-"), _bare(value)) for key, value in sorted(section.items())]
            for name, section in sorted(sections.items())
            if isinstance(section, Mapping)
        }

    @property
    def _seconds(self) -> Mapping[str, Any]:
        found = self.record.get("seconds")
        return found if isinstance(found, Mapping) else {}


def _bare(value: Any) -> Any:
    """Return a value without the folders that a path would tell."""
    if value is None:
        return "default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return os.path.basename(value) if isinstance(value, str) and ("/" in value or "\\" in value) else value
