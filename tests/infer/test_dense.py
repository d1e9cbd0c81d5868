"""Dense features: those of the network itself, in batches; conditions; reconstructions; tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from wsipipe.errors import ModelError, NotAModel, SettingsError
from wsipipe.infer.dense import DenseBackbone
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.cmd import CMDConfig
from wsipipe.train.diffusion import normalise


def pixels(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(side).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save_encoder(tmp_path_factory.mktemp("encoder") / "vit"))


def saved(path: Path, condition: int = 0, shaken: bool = True) -> Path:
    """Write a tiny backbone, which was trained with an encoder where it has a condition."""
    network = tiny.backbone(condition)
    training = {"settings": {"encoder": "hf-hub:some/encoder"}} if condition else {}
    card = ModelCard("tiny", CMDConfig(tiny.WIDTHS, condition), training=training)
    checkpoint.save(path, tiny.shake(network) if shaken else network, card)
    return path


def test_maps_are_the_networks_own_joined_by_their_side(tmp_path: Path) -> None:
    backbone = DenseBackbone(saved(tmp_path / "b.safetensors"), "cpu")
    tiles = pixels(5, 256)  # more than one batch
    found = backbone.maps(tiles, pixels(5, 512), timestep=70)
    with torch.inference_mode():
        levels = backbone.network.features(normalise(torch.from_numpy(tiles[4:])), timestep=70)
    assert {side: maps.shape for side, maps in found.items()} == {
        16: (5, 16, 16, 16), 32: (5, 32, 32, 16), 64: (5, 64, 64, 16), 128: (5, 128, 128, 8), 256: (5, 256, 256, 8),
    }  # fmt: skip
    assert found[64][4, 3, 5] == pytest.approx(torch.cat(levels[2:4], 1)[0, :, 3, 5].numpy(), abs=1e-4)
    assert found[256][4, 30, 50] == pytest.approx(levels[5][0, :, 30, 50].numpy(), abs=1e-4)
    assert found[64].dtype == np.float32


def test_out_of_memory_leads_to_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, tried = DenseBackbone(saved(tmp_path / "b.safetensors"), "cpu"), list[int]()
    tiles, plain = pixels(5, 256), backbone.network.features
    expected = backbone.maps(tiles, pixels(5, 512))

    def small(x: torch.Tensor, *more: object) -> list[torch.Tensor]:
        tried.append(len(x))
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(x, *more)

    monkeypatch.setattr(backbone.network, "features", small)
    found = backbone.maps(tiles, pixels(5, 512))
    assert tried == [4, 2, *[1] * 5] and found.keys() == expected.keys()
    assert all(np.allclose(found[side], expected[side], atol=1e-4) for side in found)
    monkeypatch.setattr(backbone.network, "features", lambda x, *more: small(torch.cat([x, x]), *more))
    with pytest.raises(ModelError, match="not enough memory on cpu for a single tile"):
        backbone.maps(tiles, pixels(5, 512))


def test_a_segmenter_gives_the_maps_of_its_backbone(tiny_model: Path) -> None:
    backbone = DenseBackbone(tiny_model, "cpu")
    assert backbone.card.kind == "segmenter" and set(backbone.maps(pixels(1, 256), pixels(1, 512))) >= {32, 256}


def test_only_a_trained_output_layer_reconstructs(tmp_path: Path) -> None:
    assert not DenseBackbone(saved(tmp_path / "fresh.safetensors", shaken=False), "cpu").reconstructs
    backbone = DenseBackbone(saved(tmp_path / "trained.safetensors"), "cpu")
    assert backbone.reconstructs
    tiles = pixels(2, 256)
    masked, result = backbone.reconstructions(tiles, pixels(2, 512), 500)
    same, again = backbone.reconstructions(tiles, pixels(2, 512), 500)
    assert masked.shape == result.shape == (2, 256, 256, 3) and masked.dtype == np.uint8
    assert (masked == same).all() and (result == again).all()
    assert (masked == 128).all(axis=-1).mean() == pytest.approx(0.5, abs=0.01)


def test_a_condition_comes_from_the_surroundings(tmp_path: Path, encoder: str) -> None:
    backbone = DenseBackbone(saved(tmp_path / "b.safetensors", condition=64), "cpu", encoder)
    tiles, windows = pixels(2, 256), pixels(2, 512)
    found = backbone.maps(tiles, windows)
    other = backbone.maps(tiles, windows[::-1].copy())
    assert not np.allclose(found[16], other[16]), "other surroundings, other features"
    results = [backbone.reconstructions(tiles, w, 500)[1] for w in (windows, windows[::-1].copy())]
    assert (results[0] != results[1]).any()


def test_an_encoder_changes_nothing_of_a_backbone_without_condition(tmp_path: Path, encoder: str) -> None:
    path = saved(tmp_path / "b.safetensors")
    plain, beside = DenseBackbone(path, "cpu"), DenseBackbone(path, "cpu", encoder)
    tiles, windows = pixels(1, 256), pixels(1, 512)
    assert (plain.maps(tiles, windows)[16] == beside.maps(tiles, windows)[16]).all()
    assert beside.tokens(windows).shape == (1, 4, 4, 64)


def test_a_conditioned_backbone_asks_for_its_encoder(tmp_path: Path, encoder: str) -> None:
    with pytest.raises(SettingsError, match=r"tiny is conditioned .* --encoder hf-hub:some/encoder$"):
        DenseBackbone(saved(tmp_path / "b.safetensors", condition=64), "cpu")
    with pytest.raises(SettingsError, match=r"gives features 64 wide; .* hf-hub:some/encoder, 96 wide"):
        DenseBackbone(saved(tmp_path / "b.safetensors", condition=96), "cpu", encoder)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(NotAModel):
        DenseBackbone(tmp_path / "x.safetensors", "cpu")
