"""The tests are the same at every run, on every machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT


def drawn() -> list[int]:
    """Return the numbers that a property is tried with."""
    found: list[int] = []

    @given(st.integers())
    def property_(n: int) -> None:
        found.append(n)

    property_()
    return found


def test_properties_are_tried_with_the_same_examples_whatever_ran_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypothesis draws from the constants of all modules that are imported."""
    if not hypothesis.settings.default.derandomize:
        pytest.skip("in search of other examples")
    before = drawn()
    (tmp_path / "peculiar.py").write_text(f"A = {list(range(7**9, 7**9 + 500))}\n")
    spec = importlib.util.spec_from_file_location("peculiar", tmp_path / "peculiar.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "peculiar", module)
    spec.loader.exec_module(module)
    assert drawn() == before and len(set(before)) > 20


def test_other_examples_are_searched_for_by_hand() -> None:
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    (slow,) = [line for line in lines if "slow or gpu" in line]
    assert "hypothesis" in slow and "--hypothesis-profile=search" in slow
    (quick,) = [line for line in lines if "not slow" in line]
    assert "--hypothesis-profile" not in quick


def test_terminal_and_environment_of_whoever_runs_the_tests_stay_out() -> None:
    assert shutil.get_terminal_size() == (80, 24)
    assert not [name for name in os.environ if "COLOR" in name and name != "COLORTERM"]
    kept = {"WSIPIPE_TEST_DATA", "WSIPIPE_TEST_CHROMIUM", "WSIPIPE_CONSUMERS"}
    assert not {name for name in os.environ if name.startswith(("WSIPIPE_", "SLURM_"))} - kept
