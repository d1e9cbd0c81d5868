"""Damaged inputs are refused in one line or give what the intact ones give: never a traceback, a hang or a surprise.

``make test`` takes a share of the seeds; ``make fuzz`` (``WSIPIPE_FUZZ=1400``) that many for each command.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.commands import TARGETS, make_seeds
from tests.fuzz.outcome import outcome

COUNT = int(os.environ.get("WSIPIPE_FUZZ", "6"))
FAULTS = ("traceback", "hang", "silent")
COMPARED = "cells.parquet"
"""Whose results may not differ in silence; another label, setting or picture is another question."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs(name: str, seeds: Path) -> None:
    target = TARGETS[name]
    raw = (seeds / target.file).read_bytes()
    assert outcome(target, seeds, raw, None) == "same", "the intact input is taken"
    found = {}
    for seed in range(COUNT):
        damaged = target.damaged(seeds, seed)
        if damaged != raw:
            found[seed] = outcome(target, seeds, damaged, {} if target.file == COMPARED else None)
    print(name, dict(Counter(said.partition(":")[0] for said in found.values())))
    assert not {seed: said for seed, said in found.items() if said.startswith(FAULTS)}
