"""Scores of a network on the validation images while it is fitted, and the weights that scored best."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from wsipipe.artifacts.system import replace
from wsipipe.evaluate.image import maps_of_all
from wsipipe.evaluate.metrics import count, pool, scores
from wsipipe.infer.predict import load_predictor
from wsipipe.labels import Annotated
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.schedule.progress import Progress
from wsipipe.settings import FitSettings
from wsipipe.train.log import Log

COLUMNS = ("step", "PQ", "DQ", "SQ", "AJI", "dice", "mDice")
"""What ``validation.csv`` holds; scores are pooled over the images."""


class Validation:
    """Looks at a network every so often: see :class:`wsipipe.train.fitting.Watch`.

    It goes through the very code that segments slides, with the card's rules.

    Parameters
    ----------
    images : sequence of Annotated
    folder : Path
        Of ``validation.csv`` and ``best.safetensors``.
    settings : FitSettings
    progress : Progress
    """

    def __init__(self, images: Sequence[Annotated], folder: Path, settings: FitSettings, progress: Progress) -> None:
        self.images, self.folder, self.settings, self.progress = images, folder, settings, progress
        self.log = Log(folder / "validation.csv", COLUMNS, header=True)
        self.best, self.best_step = -math.inf, 0

    @property
    def path(self) -> Path:
        """The file of the best weights so far."""
        return self.folder / "best.safetensors"

    def rewind(self, step: int) -> None:
        """Forget the scores after *step*."""
        self.log.rewind(step)
        with self.log.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                self._note(int(row["step"]), float(row[self.settings.score]))

    def __call__(self, step: int, network: Segmenter, card: ModelCard) -> None:
        """Score *network* and keep it if it is the best so far."""
        candidate = self.folder / "candidate.safetensors"
        checkpoint.save(candidate, network, card)
        found = self._score(candidate)
        if found[self.settings.score] > self.best:
            replace(candidate, self.path)
        candidate.unlink(missing_ok=True)
        self._note(step, found[self.settings.score])
        self.log.write({"step": step, **{name: found[name] for name in COLUMNS[1:]}})
        shown = ", ".join(f"{name} {found[name]:.3f}" for name in ("PQ", "dice", "mDice"))
        self.progress.say(f"step {step}: {shown} on {len(self.images)} validation images")

    def _note(self, step: int, score: float) -> None:
        if score > self.best:
            self.best, self.best_step = score, step

    def _score(self, model: Path) -> dict[str, float]:
        predictor = load_predictor(model, self.settings.device, "auto", 0)  # what is trained takes memory, too
        counted = []
        for image in self.images:
            (maps,) = maps_of_all([(image.image, image.mpp)], predictor)
            counted.append(count(image.labels, maps.labels(predictor.card.rules), tolerance=None))
        return scores(pool(counted))
