"""Frozen encoders: weights from disk without timm, features per image, clear errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from tests import tiny
from wsipipe.errors import MissingDependency, ModelError, ModelNotFound, NotAModel
from wsipipe.models.conditioning import MEAN, STD, encoder_name, open_encoder
from wsipipe.models.vit import ViT
from wsipipe.train.distributed import ALONE
from wsipipe.train.features import features_of

CPU = torch.device("cpu")


def images(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(tiny.Patches(count).pixels)


def test_the_feature_is_the_class_token_of_the_resized_normalised_image(tmp_path: Path) -> None:
    path = tiny.save_encoder(tmp_path / "encoder")
    encoder = open_encoder(str(path), CPU)
    found = encoder(images())
    assert found.shape == (3, 64) and found.dtype == np.float32 and encoder.side == 32
    flat = torch.full((1, 512, 512, 3), 200, dtype=torch.uint8)  # resized, it stays what it is
    x = ((200 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert torch.allclose(torch.from_numpy(encoder(flat)), encoder.network(x)[:, 0], atol=1e-5)
    assert not np.allclose(found[0], found[1]) and not any(p.requires_grad for p in encoder.network.parameters())


@pytest.mark.parametrize("registers", [0, 4])
def test_tokens_are_those_of_the_patches_in_their_places(tmp_path: Path, registers: int) -> None:
    shapes = tiny.encoder_shapes(registers=registers)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    encoder = open_encoder(str(tmp_path), CPU)
    picture = torch.full((1, 64, 64, 3), 120, dtype=torch.uint8)
    picture[:, 16:32, 48:] = 250  # the patch in row 1, column 3, after halving
    plain, found = encoder.tokens(torch.full_like(picture, 120)), encoder.tokens(picture)
    assert found.shape == (1, 4, 4, 64) and found.dtype == np.float32
    moved = np.abs(found - plain)[0].mean(axis=-1)
    assert np.unravel_index(moved.argmax(), moved.shape) == (1, 3)


def test_the_configuration_beside_the_weights_counts(tmp_path: Path) -> None:
    path = tiny.save_encoder(tmp_path / "encoder")
    before = open_encoder(str(path), CPU)(images())
    config = {"architecture": "vit", "pretrained_cfg": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}}
    (path / "config.json").write_text(json.dumps(config))
    assert not np.allclose(open_encoder(str(path), CPU)(images()), before)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("class_position", [False, True])
def test_the_layout_follows_from_the_weights(swiglu: bool, registers: int, class_position: bool) -> None:
    shapes = tiny.encoder_shapes(swiglu, registers, class_position)
    network = ViT(shapes)
    assert {name: tuple(p.shape) for name, p in network.state_dict().items()} == shapes
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 1 + registers + 16, 64)


def test_the_sizes_of_uni_and_h0_mini() -> None:
    uni = tiny.encoder_shapes(width=1024, patch=16, depth=24, side=224)
    h0 = tiny.encoder_shapes(True, 4, class_position=False, width=768, patch=14, depth=12, side=224, hidden=4096)
    with torch.device("meta"):
        counts = [sum(p.numel() for p in ViT(shapes).parameters()) for shapes in (uni, h0)]
    assert counts[0] == 303_350_784  # ViT-L/16
    assert round(counts[1] / 1e6) == 86  # the paper's figure


def test_attention_looks_from_every_token_at_every_other() -> None:
    network = ViT(tiny.encoder_shapes())
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 32, 32)
    y = x.clone()
    y[..., -8:, -8:] += 1  # the last patch
    assert ((network(x) - network(y)).abs().amax(2) > 1e-6).all()


def test_names_of_local_weights_hold_their_digest(tmp_path: Path) -> None:
    a, b = (tiny.save_encoder(tmp_path / name / "enc", seed) for name, seed in (("a", 0), ("b", 1)))
    assert encoder_name(str(a)).startswith("enc-") and encoder_name(str(a)) != encoder_name(str(b))
    assert encoder_name("hf-hub:bioptimus/H0-mini") == "hf-hub:bioptimus/H0-mini"


def test_features_are_computed_once_and_kept(tmp_path: Path) -> None:
    path, corpus = tiny.save_encoder(tmp_path / "encoder"), tiny.Patches(37)
    heard: list[int] = []
    found = features_of(corpus, str(path), CPU, ALONE, report=heard.append)
    assert found.shape == (37, 64) and sum(heard) == 37 and list(corpus.kept) == [encoder_name(str(path))]
    alone = open_encoder(str(path), CPU)(torch.from_numpy(corpus.read(36))[None])
    assert np.allclose(found[36], alone[0], atol=1e-5)
    assert features_of(corpus, str(path), CPU, ALONE, report=heard.append) is found and sum(heard) == 37


def test_a_download_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tiny.save_encoder(tmp_path / "encoder") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(NotAModel, match=r"model\.safetensors does not hold a whole .* fetch it again$") as caught:
        open_encoder(str(path), CPU)
    assert "\n" not in str(caught.value)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"stem.weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(NotAModel, match="patch_embed"):
        open_encoder(str(tmp_path), CPU)
    with pytest.raises(ModelNotFound, match=r"no encoder at .*nowhere"):
        open_encoder(str(tmp_path / "nowhere"), CPU)


def test_without_timm_the_hub_needs_an_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match=r"pip install '.\[pfm\]'"):
        open_encoder("hf-hub:MahmoodLab/UNI", CPU)


LIBRARY = """
import torch
class Network(torch.nn.Module):
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    def forward(self, x):
        return x.mean((2, 3))
def create_model(name, pretrained, num_classes, **arguments):
    assert pretrained and num_classes == 0
    if "none" in name:
        raise OSError("Connection broken: IncompleteRead(512 bytes read,\\n 1024 more expected)")
    assert arguments == ({"init_values": 1e-5, "dynamic_img_size": True} if "UNI" in name else {})
    return Network()
"""


def test_the_hub_goes_through_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm cannot be imported beside every torch; here a library of its name answers in its place."""
    (tmp_path / "timm.py").write_text(LIBRARY)
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    encoder = open_encoder("hf-hub:MahmoodLab/UNI", CPU)
    flat = torch.full((2, 512, 512, 3), 51, dtype=torch.uint8)
    assert encoder(flat) == pytest.approx(np.full((2, 3), (0.2 - 0.5) / 0.25), abs=1e-5)
    with pytest.raises(ModelError, match="has no patch tokens to compare; expected a vision transformer"):
        encoder.tokens(flat)
    with pytest.raises(ModelError, match=r"hf-hub:a/none cannot be had \(OSError: Connection broken.*tries again") as e:
        open_encoder("hf-hub:a/none", CPU)
    assert "\n" not in str(e.value)
    del sys.modules["timm"]  # by hand: monkeypatch would bring it back
