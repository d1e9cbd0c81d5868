"""The memory that a run needs, and whether there is so much."""

from __future__ import annotations

from wsipipe.errors import SettingsError
from wsipipe.schedule.resources import allowed_cores, free_memory
from wsipipe.schedule.task import Board
from wsipipe.segmentation.prepare import Prepared

BYTES_PER_PIXEL = 40
"""Working memory of cell extraction per pixel of a block's window: maps, labels, pixels and what is made of them."""


def memory_bytes(prepared: Prepared, at_once: int = 0) -> int:
    """Return the working memory of a run besides the model: that of one block's window for each process or thread."""
    plan = prepared.plan
    at_once = at_once or (plan.run.workers if plan.run.workers > 1 else allowed_cores())
    windows = [plan.window(b) for b in Board(plan).all_cells]
    largest = max(((w[2] - w[0]) * (w[3] - w[1]) for w in windows), default=0)
    return largest * BYTES_PER_PIXEL * at_once


def check_memory(prepared: Prepared, at_once: int = 0) -> None:
    """Refuse a run that cannot fit.

    Parameters
    ----------
    at_once : int
        Blocks whose cells are made at a time; by default as the settings say.

    Raises
    ------
    SettingsError
    """
    needed, free = memory_bytes(prepared, at_once), free_memory()
    if needed > free:
        raise SettingsError(
            f"blocks of {prepared.plan.run.block} px need about {needed / 2**30:.1f} GiB; {free / 2**30:.1f} GiB are "
            "free; give a smaller --block or fewer --workers"
        )
