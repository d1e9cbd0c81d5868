"""Engines: each computes the same network, is chosen by name alone, and stands in the recipe."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from wsipipe.errors import MissingDependency, SettingsError
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.models import checkpoint, engines
from wsipipe.models.engines import ENGINES, Engine, engine_for
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.threads import set_threads
from wsipipe.models.unfolded import written_as_convolutions
from wsipipe.settings import ENGINE_NAMES, RunSettings

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint.save(path, tiny.segmenter(), tiny.card())
    return path


@pytest.fixture(scope="module")
def tiles() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8).repeat(8, 1).repeat(8, 2)


def test_the_names_are_those_of_the_settings_and_torch_is_the_default() -> None:
    assert tuple(ENGINES) == ENGINE_NAMES and RunSettings().engine == "torch"
    assert ENGINES["torch"].recipe == "eager", "results made before there were engines stay up to date"


def test_an_engine_says_where_it_runs() -> None:
    with pytest.raises(SettingsError, match="--engine openvino runs on cpu, not on cuda:0; leave it out"):
        engine_for("openvino", GPU, torch.float32)
    with pytest.raises(SettingsError, match="--engine openvino computes in fp32; give --precision fp32"):
        engine_for("openvino", CPU, torch.bfloat16)
    assert engine_for("compile", GPU, torch.bfloat16).name_on(GPU) == "compiled blocks"


def test_another_engine_is_another_recipe(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """So a run is not resumed under another engine, and its results are not up to date."""
    monkeypatch.setitem(ENGINES, "other", Engine("other", engines.as_it_is, threaded=True))
    threads = torch.get_num_threads()
    torch_, other = (Predictor(path, "cpu", "fp32", 2, name).recipe for name in ("torch", "other"))
    assert (torch_.engine, other.engine) == ("eager", f"other, {threads} threads")
    assert torch_ != other


def test_a_missing_package_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setitem(ENGINES, "other", Engine("other", engines.as_it_is, package="no-such-engine"))
    with pytest.raises(MissingDependency, match="--engine no-such-engine needs the package no-such-engine"):
        Predictor(path, "cpu", "fp32", 2, "other")


def test_the_second_spelling_is_the_same_network_and_is_taken_back() -> None:
    network, x = FoldedSegmenter(tiny.segmenter()), torch.randn(1, 3, 256, 256).clamp(-1, 1)
    with torch.no_grad():
        plain = network(x)
        with written_as_convolutions(network):
            spelled = network(x)
            assert not torch.equal(spelled, plain), "another spelling"
        again = network(x)
    assert torch.equal(again, plain) and (spelled - plain).abs().max() < 1e-4


def test_openvino_gives_nearly_the_maps_of_torch_whatever_the_threads_and_the_batch(
    path: Path, tiles: NDArray[np.uint8]
) -> None:
    pytest.importorskip("openvino")
    expected = Predictor(path, "cpu", "fp32", 2).maps(tiles).astype(int)
    before = torch.get_num_threads()
    found = []
    for threads, batch in ((1, 2), (2, 3)):
        set_threads(threads)
        found.append(load_predictor(path, "cpu", "fp32", batch, "openvino").maps(tiles))
    torch.set_num_threads(before)
    assert np.array_equal(*found)
    assert np.abs(found[0] - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_blocks_give_nearly_the_maps_of_torch(path: Path, tiles: NDArray[np.uint8]) -> None:
    plain = Predictor(path, "cpu", "fp32", 3).maps(tiles).astype(int)
    compiled = load_predictor(path, "cpu", "fp32", 3, "compile")
    assert np.abs(compiled.maps(tiles) - plain).max() <= 1
