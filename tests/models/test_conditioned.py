"""A conditioned backbone that stays frozen: fitted, saved and used with its encoder inside."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from tests import tiny
from wsipipe.errors import SettingsError
from wsipipe.infer.predict import Predictor
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.conditioned import WithEncoder
from wsipipe.models.conditioning import encoder_name, open_encoder
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train.features import cache_name
from wsipipe.train.fitting import fit
from wsipipe.train.samples import Pool, images_of

CPU = torch.device("cpu")
WIDTH = 64
"""Of the features of tests.tiny's encoder."""


@pytest.fixture
def pool() -> Pool:
    labels = tiny.disc_labels(256, (60, 60, 20), (150, 120, 25))
    noise = np.random.default_rng(1).integers(0, 60, (256, 256, 3))
    image = (np.where(labels[..., None] > 0, 60, 190) + noise).astype(np.uint8)
    return [(DatasetSpec("set"), [Annotated("a", "p", image, labels, 0.5)])]


def pretrained(folder: Path, encoder: Path, token: str = "class") -> Path:
    """Write a conditioned backbone in which the condition matters, as pretraining would."""
    network = tiny.shake(tiny.backbone(WIDTH))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    training = {"settings": {"encoder": str(encoder), "token": token}, "encoder": encoder_name(str(encoder))}
    card = ModelCard("b", tiny.backbone(WIDTH).config, training=training)
    path = folder / "b.safetensors"
    checkpoint.save(path, network, card)
    return path


def settings_of(path: Path, encoder: object = "", **changes: object) -> FitSettings:
    loop = LoopSettings(steps=2, warmup=1)
    return FitSettings(
        backbone=str(path), encoder=str(encoder), head="linear", batch=1, loop=loop, device="cpu", **changes
    )


@pytest.mark.parametrize("token", ["class", "patch"])
def test_it_is_fitted_saved_and_used_with_its_encoder_inside(pool: Pool, tmp_path: Path, token: str) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    path = pretrained(tmp_path, encoder, token)
    fitted, card = fit(pool, settings_of(path, encoder), tmp_path)
    assert card.encoder and card.encoder.token == token and card.condition == 0 and card.backbone.condition == WIDTH
    out = tmp_path / "m.safetensors"
    checkpoint.save(out, fitted, card)
    again, read = checkpoint.load(out)
    assert read == card

    tile = pool[0][1][0].image
    x, known = images_of([tile]), cast(Segmenter, again)
    backbone = cast(WithEncoder, known.backbone)
    z = torch.from_numpy(open_encoder(str(encoder), CPU, token)(torch.from_numpy(tile)[None]))
    assert torch.allclose(backbone.encoder(x), z, atol=1e-4)
    with torch.no_grad():
        expected = known.head.maps(known.head(backbone.inner.features(x, z)))
        other = known.head.maps(known.head(backbone.inner.features(x, -z)))
    maps = Predictor(out, "cpu", "fp32", 1).maps(tile[None])
    assert np.abs(maps[0] / 255 - expected[0].numpy()).max() < 0.01
    assert (other - expected).abs().max() > 0.01, "the condition matters"
    pretrained_weights, _ = checkpoint.load(path)
    for name, weight in pretrained_weights.state_dict().items():
        assert torch.equal(weight, backbone.inner.state_dict()[name])


def test_a_fitted_one_is_fitted_again_without_being_told_its_encoder(pool: Pool, tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    first, card = fit(pool, settings_of(pretrained(tmp_path, encoder), encoder), tmp_path)
    checkpoint.save(tmp_path / "m.safetensors", first, card)
    for name in ("frozen", "unfrozen"):
        (tmp_path / name).mkdir()
    again, kept = fit(pool, settings_of(tmp_path / "m.safetensors"), tmp_path / "frozen")
    assert kept.encoder == card.encoder
    for name, weight in first.backbone.state_dict().items():
        assert torch.equal(weight, again.backbone.state_dict()[name])
    freed, left = fit(pool, settings_of(tmp_path / "m.safetensors", unfreeze=True), tmp_path / "unfrozen")
    assert left.encoder is None and left.backbone.condition == 0 and not isinstance(freed.backbone, WithEncoder)


def test_without_its_encoder_or_with_another_it_is_refused(pool: Pool, tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    path = pretrained(tmp_path, encoder)
    with pytest.raises(SettingsError, match=r"conditioned on an encoder: give it, --encoder .*encoder"):
        fit(pool, settings_of(path), tmp_path)
    with pytest.raises(SettingsError, match="has other weights than"):
        fit(pool, settings_of(path, tiny.save_encoder(tmp_path / "other", 1)), tmp_path)
    for wrong in (settings_of(path, encoder, unfreeze=True), settings_of(Path("cmd-t"), encoder)):
        with pytest.raises(SettingsError, match="--encoder is for a backbone that was pretrained with one and stays"):
            fit(pool, wrong, tmp_path)


def test_features_of_patch_tokens_have_a_name_of_their_own(tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8))
    of_class, of_patches = (open_encoder(str(encoder), CPU, token)(images) for token in ("class", "patch"))
    assert of_class.shape == of_patches.shape == (2, WIDTH) and not np.allclose(of_class, of_patches)
    tokens = open_encoder(str(encoder), CPU).tokens(images)
    assert np.allclose(of_patches, tokens.reshape(2, -1, WIDTH).mean(1), atol=1e-6)
    assert cache_name(str(encoder), "class") == encoder_name(str(encoder)) != cache_name(str(encoder), "patch")


def test_a_header_that_states_no_encoder_is_refused() -> None:
    card = dataclasses.replace(tiny.card(), encoder=None).to_json()
    assert "encoder" not in card
    for wrong in ({"name": "x"}, [1], {"name": "x", "vit": 3, "side": 32, "token": "class"}):
        with pytest.raises(ValueError, match="expected"):
            ModelCard.from_json(card | {"encoder": wrong})
