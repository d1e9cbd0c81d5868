"""Autoencoders in diffusers' form, and backbones that work on their latents."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import tiny
from tests.models.test_backbones import SMALL, UNTOLD, source
from wsipipe.errors import ModelNotFound, NotAModel, SettingsError
from wsipipe.infer.dense import DenseBackbone
from wsipipe.infer.embed import Embedder
from wsipipe.infer.predict import Predictor
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import backbone_kinds, checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.space import InLatents, Latents, SpaceConfig
from wsipipe.models.vae import SD, VAE, VAEConfig
from wsipipe.models.vae import SMALL as SMALL_VAE
from wsipipe.models.vae_files import read_vae, write_vae
from wsipipe.settings import FitSettings, LoopSettings, PretrainSettings
from wsipipe.train.autoencoder import train_autoencoder
from wsipipe.train.fitting import count_trainable, fit
from wsipipe.train.pretraining import loop_settings, new_backbone, open_space, pretrain

TINY = VAEConfig((8, 8, 16, 16), layers=1, groups=4, scaling=0.7)
KINDS = [kind for kind in SMALL if kind not in ("toy", *UNTOLD)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    write_vae(tmp_path / "vae", VAE(TINY))
    return tmp_path / "vae"


def on_latents(kind: str, enlarge: int = 1) -> InLatents:
    torch.manual_seed(0)
    network = backbone_kinds.build(SMALL[kind].in_latents(4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return InLatents(Latents(SpaceConfig(TINY, enlarge)), network)


def card_of(network: InLatents) -> ModelCard:
    return ModelCard("b", network.config, space=network.space.config)


def test_the_autoencoder_is_stable_diffusions_by_its_size() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in VAE(SD).parameters()) == 83_653_863
        assert sum(p.numel() for p in VAE(SMALL_VAE).parameters()) == 3_884_295
    assert SD.factor == SMALL_VAE.factor == 8


def test_a_folder_comes_back(folder: Path) -> None:
    again, x = read_vae(folder), torch.rand(1, 3, 32, 48) * 2 - 1
    torch.manual_seed(0)
    assert again.config == TINY and torch.equal(again(x), VAE(TINY).eval()(x))
    assert again.encode(x).shape == (1, 4, 4, 6) and again(x).shape == x.shape
    assert torch.allclose(again.encode(x), again.moments(x)[0] * 0.7)
    assert torch.equal(read_vae(folder.parent).encode(x), again.encode(x))  # as in a pipeline's folder


def test_older_names_of_the_attention_are_read(folder: Path) -> None:
    file, x = folder / "diffusion_pytorch_model.safetensors", torch.rand(1, 3, 32, 32)
    expected, tensors = read_vae(folder)(x), safetensors.torch.load_file(file)
    old = {}
    for name, tensor in tensors.items():
        for new, was in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if new in name:
                name = name.replace(new, was)
                tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        old[name] = tensor.contiguous()
    assert set(old) != set(tensors)
    safetensors.torch.save_file(old, file)
    assert torch.equal(read_vae(folder)(x), expected)


def test_it_is_the_network_of_diffusers(folder: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs, x = diffusers.AutoencoderKL.from_pretrained(folder).eval(), torch.rand(1, 3, 64, 64) * 2 - 1
    ours = read_vae(folder)
    with torch.no_grad():
        found = theirs.encode(x).latent_dist
        mean, log_variance = ours.moments(x)
        assert torch.allclose(found.mean, mean, atol=1e-5) and torch.allclose(found.logvar, log_variance, atol=1e-5)
        assert torch.allclose(theirs.decode(found.mean).sample, ours.decode(mean * 0.7), atol=1e-5)
    assert theirs.config.scaling_factor == 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "VQModel"}, "its class is VQModel; expected AutoencoderKL"),
        ({"block_out_channels": [8, 8]}, "holds no whole autoencoder"),
        ({"norm_num_groups": 3}, "multiples of its groups, 3"),
        ({"block_out_channels": "many"}, "a list of widths"),
    ],
)
def test_other_folders_are_refused_in_one_line(folder: Path, change: dict[str, object], message: str) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | change))
    with pytest.raises(NotAModel, match=message) as caught:
        read_vae(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_needless_options_are_told(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match="no autoencoder in"):
        read_vae(folder / "other")
    for options, message in (
        ({"space": "vae"}, "--space vae needs an autoencoder; give its folder with --vae"),
        ({"vae": str(folder)}, "--vae is for --space vae or vae-512"),
        ({"space": "vae", "vae": str(folder), "ssim": 0.5}, "--ssim compares pictures"),
    ):
        with pytest.raises(SettingsError, match=message):
            open_space(PretrainSettings(**options))


@pytest.mark.parametrize(("space", "cells", "side"), [("vae", 8, 32), ("vae-512", 16, 64)])
def test_masks_are_squares_of_four_latents(folder: Path, space: str, cells: int, side: int) -> None:
    found = open_space(PretrainSettings(space=space, vae=str(folder)))
    latents = found.encode(torch.rand(1, 3, 256, 256))
    assert found.cells == cells and latents.shape == (1, 4, side, side)
    assert found.decode(latents).shape == (1, 3, 256, 256)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enlarge", [1, 2])
def test_features_of_pictures_plain_and_folded(kind: str, enlarge: int) -> None:
    network, x = on_latents(kind, enlarge).eval(), torch.rand(1, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        deepest, maps = network.both(x, None, 50)
        folded = network.fold()
        again, rest = folded.encode(x)
        for ours, theirs in zip((again, *folded.decode(again, rest)), (deepest, *maps), strict=True):
            assert torch.allclose(ours, theirs, atol=3e-5 * theirs.abs().max().item())
    assert maps[-1].shape[-1] * card_of(network).scale == 256


@pytest.mark.parametrize("kind", KINDS)
def test_it_pretrains_resumes_embeds_shows_fits_and_segments(kind: str, folder: Path, tmp_path: Path) -> None:
    sizes = {"T": lambda condition=0: dataclasses.replace(SMALL[kind], condition=condition)}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    settings = PretrainSettings(
        backbone=kind, space="vae", vae=str(folder), steps=4, batch=2, lr=1e-2, checkpoint_every=2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbone_kinds.KINDS, kind, dataclasses.replace(backbone_kinds.KINDS[kind], sizes=sizes))
        network = pretrain(source(), settings, whole)
        pretrain(source(), dataclasses.replace(settings, steps=2), parts)
        pretrain(source(), settings, parts)
        assert new_backbone(settings, 0, open_space(settings)).config == network.config == SMALL[kind].in_latents(4)
    assert (whole / "state.safetensors").read_bytes() == (parts / "state.safetensors").read_bytes()
    assert isinstance(network, InLatents) and network.reconstructs

    path, tiles = tmp_path / "b.safetensors", np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    checkpoint.save(path, network, card_of(network))
    again, read = checkpoint.load(path)
    assert read == card_of(network)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))
    width = sum(network.feature_widths) + network.config.deepest_width
    assert Embedder(path, "both", "cpu", "fp32", 1).features(tiles).shape == (1, width)
    masked, filled = DenseBackbone(path, "cpu").reconstructions(tiles, tiles, 500)
    assert masked.shape == filled.shape == tiles.shape and masked.std() > 0

    labels = tiny.disc_labels(256, (60, 60, 20), (150, 120, 25))
    noise = np.random.default_rng(1).integers(0, 30, (256, 256, 3))
    image = (np.where(labels[..., None] > 0, 60, 220) + noise).astype(np.uint8)
    pool = [(DatasetSpec("set"), [Annotated("a", "p", image, labels, 0.5)])]
    chosen = FitSettings(
        backbone=str(path), unfreeze=True, batch=1, loop=LoopSettings(steps=2, warmup=1), crop=256, device="cpu"
    )
    fitted, card = fit(pool, chosen, tmp_path)
    before, after = network.space.state_dict(), fitted.backbone.space.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the autoencoder stays as it is"
    assert count_trainable(fitted.backbone.space) == 0
    checkpoint.save(tmp_path / "m.safetensors", fitted, card)
    maps = Predictor(tmp_path / "m.safetensors", "cpu", "fp32", 1).maps(tiles)
    assert maps.shape == (1, 2, 256, 256)


def test_a_header_with_another_space_is_refused(tmp_path: Path) -> None:
    network = on_latents("cmd")
    for space, message in (({"vae": {"widths": [32]}, "enlarge": 0}, "space's enlargement"), ("x", "its space is x")):
        with pytest.raises(ValueError, match=message):
            ModelCard.from_json(card_of(network).to_json() | {"space": space})


def test_an_autoencoder_is_trained_and_resumed(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    settings = PretrainSettings(autoencoder=True, steps=6, batch=2, lr=1e-2, checkpoint_every=3, accumulate=2)
    losses: list[float] = []

    def train(steps: int, out: Path) -> VAE:
        now = dataclasses.replace(settings, steps=steps)
        return train_autoencoder(
            tiny.Patches(2), np.arange(2), now, loop_settings(now), out, torch.device("cpu"),
            lambda step, loss, net: losses.append(loss), TINY,
        )  # fmt: skip

    network = train(6, whole)
    assert min(losses[-2:]) < 0.97 * losses[0]
    train(3, parts)
    train(6, parts)
    assert (whole / "state.safetensors").read_bytes() == (parts / "state.safetensors").read_bytes()
    views = torch.from_numpy(tiny.Patches(2).pixels[:, :256, :256]).permute(0, 3, 1, 2).float() / 127.5 - 1
    assert 0.5 < network.encode(views).std() < 2 and network.config.scaling != TINY.scaling
