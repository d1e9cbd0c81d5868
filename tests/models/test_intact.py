"""Weights that cannot be those that were saved are refused when they are loaded, not found out by their cells."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from tests import tiny
from wsipipe.errors import ModelError, NotAModel
from wsipipe.models import checkpoint, zoo
from wsipipe.models.checkpoint import load, model_hash, read_card, save
from wsipipe.models.conditioning import open_encoder

CPU = torch.device("cpu")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    save(path, tiny.segmenter(), tiny.card())
    return path


def older(path: Path, **changes: torch.Tensor) -> Path:
    """Write the model at *path* as versions without digests did, with some tensors changed; return it."""
    tensors = safetensors.torch.load_file(path) | changes
    safetensors.torch.save_file(tensors, path, {"wsipipe": json.dumps(read_card(path).to_json())})
    return path


def with_byte_changed(path: Path, place: int = -1) -> Path:
    """Change one bit of the file, in the weights."""
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_weight_that_is_no_number_is_refused(saved: Path, value: float) -> None:
    name = "backbone.stem.weight"
    tensor = tiny.segmenter().state_dict()[name].clone()
    tensor[0, 1, 2, 0] = value
    with pytest.raises(NotAModel, match=rf"1 of its weights is no finite number, the first in {name}; .*copy it again"):
        load(older(saved, **{name: tensor}))


def test_weights_that_are_no_numbers_are_not_saved(saved: Path) -> None:
    before, network = saved.read_bytes(), tiny.segmenter()
    with torch.no_grad():
        network.backbone.stem.weight[0] = 1e6  # more than 16 bits hold
    with pytest.raises(ModelError, match="27 of its weights are no finite numbers"):
        save(saved, network, tiny.card(), torch.float16)
    assert saved.read_bytes() == before


def test_changed_weights_are_refused(saved: Path) -> None:
    load(saved)
    with pytest.raises(NotAModel, match=r"its weights are not those that were saved .*copy it again"):
        load(with_byte_changed(saved))


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_the_digest_is_that_of_the_tensors_in_the_file(
    saved: Path, tmp_path: Path, dtype: torch.dtype | None, caplog: pytest.LogCaptureFixture
) -> None:
    network, card = load(saved)
    save(tmp_path / "again.safetensors", network, card, dtype)
    load(tmp_path / "again.safetensors")
    assert not caplog.records


def test_a_file_without_a_digest_loads_with_a_note_once(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    older(saved)
    caplog.set_level(logging.WARNING)
    for _ in range(3):
        load(saved)
    (record,) = caplog.records
    assert "carries no digest of its weights" in record.message and str(saved) in record.message
    assert "wsipipe models export" in record.message


def test_the_digests_in_the_code_are_those_of_the_shipped_models() -> None:
    found = {name: model_hash(zoo.weights_folder() / f"{name}.safetensors") for name in zoo.shipped()}
    lines = "\n".join(f'    "{name}": "{digest}",' for name, digest in found.items())
    assert found == zoo.SHA256, f"the shipped weights are others; in wsipipe/models/zoo.py, SHA256 becomes\n{lines}"


def test_a_shipped_model_whose_bytes_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = zoo.resolve(zoo.DEFAULT)
    monkeypatch.setattr(zoo, "weights_folder", lambda: tmp_path)
    copy = Path(shutil.copy(source, tmp_path))
    load(zoo.resolve(zoo.DEFAULT))
    assert not caplog.records
    with_byte_changed(copy, -1000)
    with pytest.raises(NotAModel, match=rf"{zoo.DEFAULT}.*not the model that wsipipe ships.*install wsipipe again"):
        load(zoo.resolve(zoo.DEFAULT))


def test_an_encoder_of_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    file = tiny.save_encoder(tmp_path / "vit") / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["norm.bias"][3] = torch.nan
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(NotAModel, match=r"1 of its weights is no finite number, the first in norm\.bias"):
        open_encoder(str(tmp_path / "vit"), CPU)


def test_every_kind_of_network_is_checked(tmp_path: Path) -> None:
    network: nn.Module = tiny.backbone(condition=12)
    card = checkpoint.ModelCard("b", tiny.backbone(condition=12).config)
    path = tmp_path / "b.safetensors"
    save(path, network, card)
    load(path)
    with pytest.raises(NotAModel, match="not those that were saved"):
        load(with_byte_changed(path))
