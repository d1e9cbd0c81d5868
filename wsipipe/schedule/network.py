"""The network of a worker process: loaded once, and checked against the recipe of the run."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from functools import lru_cache

from wsipipe.errors import ClusterError
from wsipipe.models.device import SmallerBatch
from wsipipe.plugins.opening import AnyPredictor, open_predictor, weights_digest
from wsipipe.schedule.task import Plan

DEVICE = "WSIPIPE_DEVICE"
"""Environment variable of a worker process: the device that it forwards tiles on, in place of the run's."""


@lru_cache(maxsize=1)
def loaded(model: str, sha256: str, device: str, precision: str, batch: int, engine: str) -> AnyPredictor:
    """Return a predictor, loaded once per worker process for any number of slides.

    Raises
    ------
    ClusterError
        When the checkpoint here is another one.
    """
    if weights_digest(model) != sha256:
        raise ClusterError(f"the model {model} on {socket.gethostname()} is another file than where the run started")
    return open_predictor(model, os.environ.get(DEVICE, device), precision, batch, engine)


def checked_predictor(plan: Plan) -> AnyPredictor:
    """Return this worker process's predictor for *plan*.

    Raises
    ------
    ClusterError
        When it would compute in another way than the run's recipe says.
    SmallerBatch
        When its device has less memory left than the one that the recipe was made on.
    """
    run = plan.run
    predictor = loaded(plan.model, plan.model_sha256, run.device, run.precision, run.batch, run.engine)
    if plan.recipe and (mine := asdict(predictor.recipe)) != plan.recipe:
        if mine["batch"] < plan.recipe["batch"] and mine | {"batch": plan.recipe["batch"]} == plan.recipe:
            raise SmallerBatch(2 * mine["batch"])
        differ = ", ".join(f"{k} {mine[k]} instead of {v}" for k, v in plan.recipe.items() if mine.get(k) != v)
        raise ClusterError(
            f"a worker on {socket.gethostname()} would compute differently ({differ}); give all forwarding workers the "
            "same kind of device and the same versions"
        )
    return predictor
