"""The cells of a plan: who is trained on and who is scored in each fold of a set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsipipe.errors import SettingsError
from wsipipe.evaluate.compare.plan import Cell, Compared, Plan
from wsipipe.labels import list_set, patient


def cells_of(plan: Plan, root: Path) -> Iterator[Cell]:
    """Yield the cells of *plan*, the arms of a fold one after the other.

    Raises
    ------
    DatasetError
    SettingsError
        A set has fewer patients than folds.
    """
    for one in plan.sets:
        for fold, (train, test) in enumerate(_folds(one, root)):
            for shots in plan.shots:
                for seed in plan.seeds:
                    yield from (Cell(arm, one, fold, shots, seed, test, train) for arm in plan.arms)


def _folds(one: Compared, root: Path) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return patients to train on and to score of every fold; nobody where the set's split says."""
    if not one.folds:
        return [((), ())]
    everyone = sorted({patient(one.spec, item.name) for item in list_set(one.spec, root)})
    count = len(everyone) if one.folds == -1 else one.folds
    if len(everyone) < max(2, count):
        raise SettingsError(
            f"{one.name}: {len(everyone)} patients; expected at least {max(2, count)}, one for each fold"
        )
    groups = [tuple(str(p) for p in group) for group in np.array_split(np.array(everyone), count)]
    return [(tuple(p for p in everyone if p not in group), group) for group in groups]
