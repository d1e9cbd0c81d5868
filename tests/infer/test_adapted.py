"""Test-time training: each image by itself, the head as it was, the model's own weights afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny
from tests.compare.test_plan import make_set
from wsipipe.errors import ModelError, SettingsError
from wsipipe.infer.adapted import AdaptedPredictor
from wsipipe.infer.predict import Predictor
from wsipipe.labels import DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate
from wsipipe.schedule.progress import Progress
from wsipipe.settings import EvaluateSettings, RunSettings

RUN = RunSettings(device="cpu", precision="fp32")
ASKED = EvaluateSettings(ttt_steps=3, ttt_lr=3e-3, ttt_batch=2, resamples=10, pictures=0)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, tiny.segmenter(), tiny.card())
    return path


@pytest.fixture
def tiles() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)


@pytest.mark.parametrize("part", ["backbone", "norms", "lora"])
def test_only_the_part_that_is_asked_for_changes(model: Path, tiles: np.ndarray, part: str) -> None:
    predictor = AdaptedPredictor(model, RUN, dataclasses.replace(ASKED, ttt_part=part))
    before = {name: tensor.clone() for name, tensor in predictor.segmenter.state_dict().items()}
    after = predictor.trained_on(tiles).state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("backbone.") for name in changed), "the head stays"
    if part == "norms":
        assert all("modulation" in name or ".grn." in name for name in changed)
    if part == "lora":
        assert all(name.endswith(("expand.weight", "project.weight")) for name in changed)
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.segmenter.state_dict().items())


def test_it_learns_to_fill_in_the_image(model: Path) -> None:
    smooth = np.full((2, 256, 256, 3), 200, np.uint8)
    predictor = AdaptedPredictor(model, RUN, dataclasses.replace(ASKED, ttt_steps=25, ttt_lr=1e-2))

    def loss(network: checkpoint.Segmenter) -> float:
        with torch.no_grad():
            return predictor._loss(network.backbone, smooth, np.random.default_rng(1)).item()

    assert loss(predictor.trained_on(smooth)) < 0.7 * loss(predictor.segmenter)


def test_an_image_is_predicted_as_if_there_were_no_other(model: Path, tiles: np.ndarray) -> None:
    plain, adapted = Predictor(model, "cpu", "fp32"), AdaptedPredictor(model, RUN, ASKED)
    first = adapted.maps(tiles)
    assert not np.array_equal(first, plain.maps(tiles))
    adapted.maps(255 - tiles)
    assert np.array_equal(adapted.maps(tiles), first)
    adapted.settings = dataclasses.replace(ASKED, ttt_steps=0)
    assert np.array_equal(adapted.maps(tiles), plain.maps(tiles)), "the weights are the model's own again"


def test_evaluate_scores_what_it_finds(model: Path, tmp_path: Path) -> None:
    root = make_set(tmp_path, patients=2, images=1)
    job = EvaluateJob(DatasetSpec(str(root / "set"), 0.5), tmp_path / "a", model=str(model), run=RUN, scoring=ASKED)
    found = run_evaluate(job, Progress())
    again = run_evaluate(dataclasses.replace(job, out=tmp_path / "b"), Progress())
    assert found.markdown == again.markdown
    assert '"ttt_steps": 3' in (tmp_path / "a" / "scores.json").read_text().replace('":3', '": 3')


def test_what_cannot_be_trained_is_refused(tmp_path: Path, model: Path) -> None:
    network = tiny.segmenter()
    torch.nn.init.zeros_(network.backbone.output.rgb.weight)
    checkpoint.save(tmp_path / "b.safetensors", network, tiny.card())
    with pytest.raises(ModelError, match="--ttt-steps: the backbone of tiny never learned to fill in pictures"):
        AdaptedPredictor(tmp_path / "b.safetensors", RUN, ASKED)
    with pytest.raises(SettingsError, match="--ttt-steps trains in fp32 with torch"):
        AdaptedPredictor(model, dataclasses.replace(RUN, precision="bf16"), ASKED)
