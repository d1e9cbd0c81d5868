"""A checkpoint comes back as it was; anything else is refused in one line."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests import tiny
from wsipipe.errors import ModelNotFound, NotAModel
from wsipipe.models import checkpoint, zoo
from wsipipe.models.checkpoint import ModelCard, Rules, Segmenter, load, model_hash, read_card, save
from wsipipe.models.cmd import CMD, CMDConfig, cmd_l
from wsipipe.models.heads import HeadConfig


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save(path, tiny.segmenter(), tiny.card())
    return path


def with_header(path: Path, change: Callable[[dict], object], target: Path) -> Path:
    """Write *path* to *target* with another entry in its header."""
    entry = read_card(path).to_json()
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, target, {"wsipipe": json.dumps(change(entry))})
    return target


def test_a_segmenter_comes_back_bit_by_bit(saved: Path) -> None:
    original, (network, card) = tiny.segmenter(), load(saved)
    assert isinstance(network, Segmenter) and not network.training and card == tiny.card()
    state = network.state_dict()
    assert state.keys() == original.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in original.state_dict().items())


def test_a_backbone_comes_back_and_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    network, card = tiny.backbone(condition=12), ModelCard("b", CMDConfig(tiny.WIDTHS, 12))
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save(first, network, card)
    again, read = load(first)
    assert isinstance(again, CMD) and read == card and read.kind == "backbone"
    save(second, again.to(memory_format=torch.channels_last), read)
    assert first.read_bytes() == second.read_bytes() and model_hash(first) == model_hash(second)


def test_half_precision_weights_load_as_fp32_and_keep_running_statistics(tmp_path: Path) -> None:
    network = tiny.segmenter()
    save(tmp_path / "half.safetensors", network, tiny.card(), torch.bfloat16)
    again, _ = load(tmp_path / "half.safetensors")
    state = again.state_dict()
    for name, tensor in network.state_dict().items():
        expected = tensor if "running_" in name or not tensor.is_floating_point() else tensor.bfloat16().float()
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], expected)


def test_a_card_comes_back_with_everything_it_says() -> None:
    card = ModelCard(
        "n",
        cmd_l(),
        HeadConfig("sota", (1, 2, 3), ("tumour", "other")),
        0.25,
        Rules(0.4, 0.6, 1.0, 20.0, 3.0),
        "MIT",
        {"tumour": (1, 2, 3)},
        {"sets": ["a"], "steps": 3},
    )
    assert ModelCard.from_json(json.loads(json.dumps(card.to_json()))) == card
    bare = ModelCard("n", cmd_l())
    assert ModelCard.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_models_are_found_by_name_and_by_path(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "weights_folder", lambda: saved.parent)
    assert zoo.shipped() == ("tiny",) and zoo.resolve("tiny") == saved
    assert zoo.resolve(str(saved)) == saved
    assert zoo.card_text("tiny") is None
    saved.with_suffix(".md").write_text("# tiny")
    assert zoo.card_text("tiny") == "# tiny"
    with pytest.raises(ModelNotFound, match=r"no model 'tinny'.*did you mean tiny"):
        zoo.resolve("tinny")
    with pytest.raises(ModelNotFound, match="shipped models: tiny"):
        zoo.resolve("/nowhere/else.pt")


def not_safetensors(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def foreign(path: Path) -> Path:
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"format": "pt"})
    return path


NOT_MODELS: dict[str, Callable[[Path, Path], Path]] = {
    "text": lambda path, saved: not_safetensors(path, b"weights go here, later on\n"),
    "empty": lambda path, saved: not_safetensors(path, b""),
    "pickle": lambda path, saved: not_safetensors(path, pickle.dumps({"weight": [1.0] * 40})),
    "truncated": lambda path, saved: not_safetensors(path, saved.read_bytes()[:-100]),
    "cut header": lambda path, saved: not_safetensors(path, saved.read_bytes()[:60]),
    "foreign": lambda path, saved: foreign(path),
    "entry is a list": lambda path, saved: with_header(saved, lambda entry: [entry], path),
    "no backbone": lambda path, saved: with_header(saved, lambda entry: {**entry, "backbone": None}, path),
    "unknown head": lambda path, saved: with_header(saved, lambda entry: {**entry, "head": _head("hovernet")}, path),
    "unknown rule": lambda path, saved: with_header(saved, lambda entry: {**entry, "rules": {"luck": 1}}, path),
    "another head": lambda path, saved: with_header(saved, lambda entry: {**entry, "head": _head("linear")}, path),
    "missing widths": lambda path, saved: with_header(saved, lambda entry: {**entry, "backbone": _narrow()}, path),
    "newer format": lambda path, saved: with_header(saved, lambda entry: {**entry, "format": 99}, path),
}


def _head(kind: str) -> dict[str, object]:
    return {"kind": kind, "widths": tiny.FEATURES, "types": []}


def _narrow() -> dict[str, object]:
    return {"widths": [8, 8, 8, 16], "condition": 0}


@pytest.mark.parametrize("kind", NOT_MODELS)
def test_what_is_not_a_model_is_refused_in_one_line(kind: str, saved: Path, tmp_path: Path) -> None:
    path = NOT_MODELS[kind](tmp_path / "other.safetensors", saved)
    with pytest.raises(NotAModel) as error:
        load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_weights_of_another_size_do_not_fit(saved: Path, tmp_path: Path) -> None:
    wide = {"widths": [16, 16, 16, 32, 32, 64], "condition": 0}
    path = with_header(saved, lambda entry: {**entry, "backbone": wide}, tmp_path / "wide.safetensors")
    with pytest.raises(NotAModel, match="weights do not fit the configuration in the header"):
        load(path)


@pytest.mark.parametrize("name", ["missing.safetensors", "."])
def test_a_missing_file_or_a_folder_is_no_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"expected a \.safetensors file"):
        load(tmp_path / name)


def test_a_failed_save_leaves_the_old_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(checkpoint.safetensors.torch, "save", fail)
    with pytest.raises(MemoryError):
        save(saved, tiny.segmenter(seed=1), tiny.card())
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]
