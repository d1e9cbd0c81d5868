"""A further metric: how many nuclei were found for each that is there."""

from __future__ import annotations

from wsipipe.evaluate.metrics import Counts, Values


def found_per_true(c: Counts) -> Values:
    return c.found / c.truth
