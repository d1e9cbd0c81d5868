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


def put(*path: str, value: object) -> Callable[[dict], object]:
    """Return what puts *value* at a place of the card."""

    def change(entry: dict) -> object:
        entry = json.loads(json.dumps(entry))
        place = entry
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return entry

    return change


def drop(name: str) -> Callable[[dict], object]:
    return lambda entry: {key: value for key, value in entry.items() if key != name}


ABSURD: dict[str, Callable[[dict], object]] = {
    "widths without end": put("backbone", "widths", value=[10**9] * 6),
    "widths of text": put("backbone", "widths", value=["8"] * 6),
    "a width of 10^400": put("backbone", "widths", value=[8, 8, 8, 16, 16, 10**400]),
    "widths below none": put("backbone", "widths", value=[-8, 8, 8, 16, 16, 32]),
    "an odd width": put("backbone", "widths", value=[8, 8, 8, 16, 15, 32]),
    "a wide condition": put("backbone", "condition", value=10**12),
    "a condition of text": put("backbone", "condition", value="none"),
    "a condition that the weights lack": put("backbone", "condition", value=12),
    "no widths": put("backbone", value={"condition": 0}),
    "a head of numbers": put("head", value=7),
    "a head without widths": put("head", value={"kind": "cisca", "types": []}),
    "a head of another kind of name": put("head", "kind", value=["cisca"]),
    "a head for other features": put("head", "widths", value=[16, 16, 8, 8, 8, 4]),
    "a head of one map": put("head", "widths", value=[8]),
    "a head of no map": put("head", "widths", value=[]),
    "types of numbers": put("head", "types", value=[1, 2]),
    "a type twice": put("head", "types", value=["a", "a"]),
    "types that the weights lack": put("head", "types", value=["a", "b"]),
    "no head where there is one": put("head", value=None),
    "a resolution of text": put("mpp", value="0.5"),
    "no resolution": put("mpp", value=0),
    "a resolution that is no number": put("mpp", value=float("nan")),
    "a resolution that is true": put("mpp", value=True),
    "a rule of text": put("rules", "threshold", value="high"),
    "a threshold above 1": put("rules", "threshold", value=1.5),
    "a diameter without end": put("rules", "max_diameter_um", value=1e300),
    "rules as a list": put("rules", value=[]),
    "a name of numbers": put("name", value=3),
    "a licence of nothing": put("licence", value=None),
    "classes as a list": put("classes", value=["a"]),
    "a class without colour": put("classes", value={"a": None}),
    "a class of two colours": put("classes", value={"a": [1, 2]}),
    "a digest of numbers": put("digest", value=5),
    "an encoder of numbers": put("training", value={"encoder": 7}),
    "settings of training as text": put("training", value={"settings": "x"}),
    "training as text": put("training", value="long"),
    "colours of text": put("colours", value="pink"),
    "colours without spread": put("colours", value={"mean": [1, 2, 3], "spread": [0, 0, 0]}),
    "normalise as text": put("normalise", value="yes"),
    **{f"no {part}": drop(part) for part in ("format", "backbone", "name", "mpp", "rules", "classes", "training")},
}


@pytest.mark.parametrize("kind", ABSURD)
def test_an_absurd_card_is_refused_in_one_line_before_memory_is_taken(
    kind: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_header(saved, ABSURD[kind], tmp_path / "other.safetensors")

    def stop(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoint.safetensors.torch, "load_file", stop)
    with pytest.raises(NotAModel) as error:
        load(path)
    said = str(error.value)
    assert str(path) in said and "\n" not in said and len(said) < 500
    assert not any(word in said for word in ("NoneType", "unexpected keyword", "argument", "index out of range"))


@pytest.mark.parametrize("change", ["name", "shape", "kind", "lost", "more"])
def test_tensors_that_the_network_does_not_have(change: str, saved: Path, tmp_path: Path) -> None:
    tensors, entry = safetensors.torch.load_file(saved), read_card(saved).to_json()
    stem = tensors["backbone.stem.weight"]
    tensors |= {
        "name": {"backbone.stem.other": tensors.pop("backbone.stem.weight")} if change == "name" else {},
        "shape": {"backbone.stem.weight": stem[:4].clone()},
        "kind": {"backbone.stem.weight": stem.to(torch.int32)},
        "more": {"backbone.extra": stem.clone()},
        "lost": {},
    }[change]
    if change == "lost":
        del tensors["backbone.stem.weight"]
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file(tensors, path, {"wsipipe": json.dumps(entry)})
    with pytest.raises(NotAModel, match=r"weights do not fit the configuration in the header \(backbone\.(stem|extra)"):
        load(path)


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
