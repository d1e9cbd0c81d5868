"""How folders are searched for slides."""

from __future__ import annotations

import os
from pathlib import Path


def goes_round(path: Path, top: Path) -> bool:
    """Whether *path*, below *top*, leads through a link back to a folder that it has passed."""
    passed = [os.path.realpath(p) for p in (path, *path.parents) if p == top or top in p.parents]
    return len(set(passed)) < len(passed)
