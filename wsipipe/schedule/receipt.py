"""One unit of work, and what it reports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

PREDICT, CELLS = "predict", "cells"


class Task(NamedTuple):
    """One unit of work: what, and for which block."""

    kind: str
    block: int


@dataclass(frozen=True)
class Receipt:
    """What a task reports; small, never pixels.

    Attributes
    ----------
    count : int
        Tiles forwarded, or cells found.
    seconds : mapping of stage to seconds
    bad : int
        Unreadable areas met; their boxes are in the scratch folder.
    """

    task: Task
    count: int
    seconds: dict[str, float] = field(default_factory=dict)
    bad: int = 0
