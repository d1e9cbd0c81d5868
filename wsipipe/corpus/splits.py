"""Which patients train, validate and test. The draw is seeded, and no patient is in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from wsipipe.errors import SettingsError


def draw_splits(patients: Iterable[str], val: float, test: float, seed: int) -> dict[str, str]:
    """Return the split (train, val or test) of every patient.

    The shares *val* and *test* are met to the nearest whole patient; a share above 0 gets at least one patient as long
    as one is left to train.

    Raises
    ------
    SettingsError
        When the shares add up to more than 1.
    """
    if val + test > 1:
        raise SettingsError(f"val and test are {val:g} and {test:g}; expected shares that add up to at most 1")
    drawn = sorted(set(patients), key=lambda patient: rank(seed, patient))
    tests = _count(len(drawn), test, len(drawn) - 1)
    vals = _count(len(drawn), val, len(drawn) - 1 - tests)
    names = ["test"] * tests + ["val"] * vals + ["train"] * (len(drawn) - tests - vals)
    return dict(zip(drawn, names, strict=True))


def rank(seed: int, *what: object) -> str:
    """Return where something stands in the seeded draw, as text that sorts: the same on every machine."""
    return hashlib.sha256("\0".join([str(seed), *map(str, what)]).encode()).hexdigest()


def _count(patients: int, share: float, left: int) -> int:
    if share >= 1:
        return patients
    return max(0, min(left, max(round(patients * share), int(share > 0))))
