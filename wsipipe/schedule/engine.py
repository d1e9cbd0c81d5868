"""What does the tasks of a run: this process, or Dask's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from wsipipe.models.checkpoint import ModelCard
from wsipipe.plugins.opening import AnyPredictor
from wsipipe.plugins.protocol import Looks
from wsipipe.schedule.progress import SoFar
from wsipipe.schedule.task import Board, Receipt
from wsipipe.settings import RunSettings

Report = Callable[[Receipt], None]


@dataclass(frozen=True)
class Forward:
    """What a plan must know of the network where it runs.

    Attributes
    ----------
    names : tuple of str
        Maps, in order.
    recipe : dict
        See :class:`wsipipe.infer.predict.Recipe`.
    card : ModelCard
    looks : Looks or None
        How a plug-in looks at a slide; None for wsipipe's own networks.
    """

    names: tuple[str, ...]
    recipe: dict[str, Any]
    card: ModelCard
    looks: Looks | None = None

    @property
    def batch(self) -> int:
        """Tiles per forward pass."""
        return int(self.recipe["batch"])

    @classmethod
    def of(cls, predictor: AnyPredictor) -> Forward:
        """Return what there is to know of *predictor*."""
        return cls(predictor.names, asdict(predictor.recipe), predictor.card, getattr(predictor, "looks", None))


class Engine(Protocol):
    """Does the tasks of any number of slides, one slide after the other.

    Attributes
    ----------
    predictor : AnyPredictor or None
        The network, where this process has it.
    lanes : tuple of int
        Blocks that are predicted, and blocks whose cells are made, at a time.
    local : bool
        Whether the work happens on this machine.
    """

    local: bool

    @property
    def predictor(self) -> AnyPredictor | None: ...  # noqa: D102

    @property
    def lanes(self) -> tuple[int, int]: ...  # noqa: D102

    def forward(self, model: str, sha256: str, run: RunSettings, batch: int) -> Forward:
        """Return what the network is like where it runs; *batch* 0 is the device's default."""

    def run(self, folder: Path, board: Board, report: Report, so_far: SoFar) -> None:
        """Do all tasks of *board*, whose plan is in *folder*; scratch files go as soon as nobody needs them.

        *report* hears of every task that is done, *so_far* of the tiles of a block while it is under way, from any
        thread.

        Raises
        ------
        SmallerBatch
            The device ran out of memory; no task runs any more.
        ClusterError
        """
