"""An empty cells file is a valid result of a slide without tissue; whoever goes on from one is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsipipe.schedule.progress import Progress


def warn_of_none(master: Path, about: Mapping[str, Any], progress: Progress) -> None:
    """Say that the file *master*, whose metadata is *about*, holds no cells, where that is so."""
    if not about["cells"]:
        progress.say(f"warning: {master} holds no cells, and neither does what is made of it")
