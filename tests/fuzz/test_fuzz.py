"""Damaged inputs are refused in one line or give what the intact ones give: never a traceback, a hang or a surprise.

A share of the seeds; ``make fuzz`` takes hundreds for each command and kind of input.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.commands import TARGETS
from tests.fuzz.outcome import FAULTS, Bench, warm

SHARE = 2
"""Seeds of each."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    warm()
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs(name: str, root: Path) -> None:
    bench = Bench(TARGETS[name], root)
    found = {seed: bench.try_seed(seed) for seed in range(SHARE)}
    assert not {seed: outcome for seed, outcome in found.items() if outcome and outcome.what in FAULTS}
