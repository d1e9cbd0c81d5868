"""Which engine a run gets: this process, or Dask's workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from wsipipe.schedule.engine import Engine
from wsipipe.schedule.pool import PoolEngine
from wsipipe.settings import ClusterSettings, RunSettings


def open_engine(
    run: RunSettings, cluster: ClusterSettings, say: Callable[[str], None]
) -> AbstractContextManager[Engine]:
    """Return the engine that the settings ask for, to be used in ``with``.

    Parameters
    ----------
    say : callable
        Hears lines for the user, such as the link to the dashboard.
    """
    if run.workers > 1 or cluster.devices or cluster.scheduler:
        from wsipipe.schedule.dask import DaskEngine

        return DaskEngine(run, cluster, say)
    return PoolEngine()
