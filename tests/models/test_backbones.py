"""One suite that every backbone passes; another one is added by one file and one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests import tiny
from tests.models import toy_backbone
from wsipipe import settings
from wsipipe.errors import NotAModel, SettingsError
from wsipipe.infer.dense import DenseBackbone
from wsipipe.infer.embed import Embedder
from wsipipe.infer.predict import Predictor
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import attention_unet, backbone_kinds, checkpoint, cmd, dit, vit_backbone
from wsipipe.models.backbone import Backbone, BackboneConfig
from wsipipe.models.backbone_kinds import KINDS, Kind
from wsipipe.models.baselines import convnext, nnunet, swin, transunet, vit_adapter
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.heads import Head, HeadConfig
from wsipipe.settings import AugmentSettings, FitSettings, LoopSettings, PretrainSettings
from wsipipe.train.feed import Steps
from wsipipe.train.fitting import fit
from wsipipe.train.pretraining import Objective, Source, new_backbone, pretrain

CPU = torch.device("cpu")
TOY = Kind("Toy", toy_backbone.Toy, toy_backbone.ToyConfig, toy_backbone.SIZES)
SMALL: dict[str, BackboneConfig] = {
    "cmd": cmd.CMDConfig(tiny.WIDTHS),
    "attention-unet": attention_unet.AttentionUNetConfig((8, 8, 8, 16, 16, 24)),
    "dit": dit.DiTConfig(64, 3),
    "vit": vit_backbone.ViTConfig(64, 2, 8, 128, 16, 256, (0, 1), scaled=False),
    "convnext": convnext.ConvNeXtConfig((8, 8, 16, 16), (1, 1, 1, 1)),
    "swin": swin.SwinConfig(32, (2, 1, 1, 1), 4),
    "nnunet": nnunet.NNUNetConfig((8, 16, 16)),
    "transunet": transunet.TransUNetConfig(8, (1, 1, 1), 64, 1, (16, 16, 8, 8, 8)),
    "vit-adapter": vit_adapter.ViTAdapterConfig(64, 4, 8, 4),
    "toy": toy_backbone.ToyConfig(8),
}
"""A small one of every kind."""
UNTOLD = ("vit", "convnext", "swin", "nnunet", "transunet", "vit-adapter")
"""Kinds that are told neither the timestep nor a condition, and have no gates."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let size T be small, and know the toy."""
    monkeypatch.setitem(KINDS, "toy", TOY)
    for name, config in SMALL.items():
        sizes = {**KINDS[name].sizes, "T": lambda condition=0, c=config: dataclasses.replace(c, condition=condition)}
        monkeypatch.setitem(KINDS, name, dataclasses.replace(KINDS[name], sizes=sizes))
    field = PretrainSettings.__dataclass_fields__["backbone"]
    monkeypatch.setattr(field, "metadata", {**field.metadata, "choices": tuple(SMALL)})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=SMALL)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def told(kind: str) -> str:
    """A kind that is told the timestep and a condition, and has gates."""
    if kind in UNTOLD:
        pytest.skip("it is told neither t nor z")
    return kind


def backbone(kind: str, condition: int = 0, seed: int = 0) -> Backbone:
    """Return a backbone in which every weight matters."""
    torch.manual_seed(seed)
    network = backbone_kinds.build(dataclasses.replace(SMALL[kind], condition=condition))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


def settings_of(kind: str, **changes: object) -> PretrainSettings:
    return PretrainSettings(**{"backbone": kind, "steps": 4, "batch": 2, "lr": 3e-3, "checkpoint_every": 2, **changes})


def source(features: bool = False) -> Source:
    z = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32) if features else None
    return Source(tiny.Patches(3), np.arange(3), z)


def test_the_settings_name_every_kind() -> None:
    assert (*settings.BACKBONES, "toy") == tuple(k for k in KINDS if k != "rgb") == tuple(SMALL)


def test_bare_pixels_are_a_backbone_without_weights(tmp_path: Path) -> None:
    """It is fitted, saved and used, and refuses a condition and latents."""
    tiles = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    labels = tiny.disc_labels(256, (60, 60, 20), (150, 120, 25))
    pool = [(DatasetSpec("set"), [Annotated("a", "p", tiles[0], labels, 0.5)])]
    chosen = FitSettings(backbone="rgb", head="linear", batch=1, loop=LoopSettings(steps=2, warmup=1), device="cpu")
    fitted, card = fit(pool, chosen, tmp_path)
    checkpoint.save(tmp_path / "m.safetensors", fitted, card)
    assert Predictor(tmp_path / "m.safetensors", "cpu", "fp32", 1).maps(tiles).std() > 0
    assert sum(p.numel() for p in fitted.parameters()) == 8 and not fitted.backbone.reconstructs
    assert backbone_kinds.title_of(card.backbone) == "pixels" and chosen.frozen
    for wrong in (lambda: backbone_kinds.sized("rgb", "", 12), lambda: card.backbone.in_latents(4)):
        with pytest.raises(ValueError, match=r"expected 0: pixels take none|expected 3: red"):
            wrong()


@pytest.mark.parametrize("name", ["attention-unet", "dit"])
def test_sizes_are_the_papers_or_match_cmds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Table B2 of the CMD paper, and the sizes of CMD itself."""
    monkeypatch.undo()

    def count(kind: str, size: str, condition: int, latents: bool) -> int:
        config = backbone_kinds.sized(kind, size, condition)
        return sum(p.numel() for p in backbone_kinds.on_meta(config.in_latents(4) if latents else config).parameters())

    stated = {"attention-unet": 132.65e6, "dit": 131e6}[name]
    for latents in (False, True):
        assert count(name, "B", 1024, latents) == pytest.approx(stated, rel=0.01)
        for size in "TS":
            for condition in (0, 1024):
                assert count(name, size, condition, latents) == pytest.approx(
                    count("cmd", size, condition, False), rel=0.05
                )
    exact = {"attention-unet": (2_327_584, 8_592_392, 132_537_896), "dit": (2_357_440, 8_465_664, 131_183_040)}[name]
    assert tuple(count(name, size, 1024, False) for size in "TSB") == exact


@pytest.mark.parametrize("size", ["T", "S"])
def test_a_small_vit_has_the_size_of_cmd(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    ours, cmds = (backbone_kinds.on_meta(backbone_kinds.sized(kind, size)) for kind in ("vit", "cmd"))
    count = [sum(p.numel() for p in network.parameters()) for network in (ours, cmds)]
    assert count[0] == pytest.approx(count[1], rel=0.05)


@pytest.mark.parametrize("condition", [0, 12])
def test_gradients_reach_every_parameter(kind: str, condition: int) -> None:
    if kind in UNTOLD and condition:
        pytest.skip("it is told neither t nor z")
    network = backbone(kind, condition)
    known = source(features=bool(condition))
    batch = Steps(known.patches, known.indices, 0, 2, range(2), 0.8)[0]
    Objective(network, known, settings_of(kind), CPU)(batch).backward()
    missing = [
        name for name, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert missing == []


@pytest.mark.parametrize("init", ["xavier", "torch"])
def test_it_starts_at_zero_with_closed_gates(kind: str, init: str) -> None:
    network = new_backbone(settings_of(kind, init=init), 0)
    x, t = torch.rand(2, 3, 64, 64), torch.tensor([5, 900])
    assert not network(x, t).any() and not network.reconstructs
    assert backbone(kind).reconstructs
    closed = network.features(x)[-1]
    network.open_gates()
    assert torch.equal(network.features(x)[-1], closed) == (kind in UNTOLD)


def test_weights_begin_as_asked(kind: str) -> None:
    a, b = (new_backbone(settings_of(kind, init=init), 0) for init in ("xavier", "torch"))
    biases = [name for name, p in b.named_parameters() if name.endswith("bias") and p.any()]
    fresh = {name: p for name, p in a.named_parameters() if name.endswith("bias") and "offsets" not in name}
    assert (biases or kind == "nnunet") and not any(fresh[name].any() for name in biases if name in fresh)


def test_conditions_matter(told: str) -> None:
    network, x = backbone(told, 12), torch.rand(2, 3, 64, 64)
    t, z = torch.tensor([5, 5]), torch.randn(2, 12)
    assert not torch.allclose(network(x, t, z), network(x, t, -z))
    assert not torch.allclose(network(x, t, z), network(x, t + 500, z))


def test_features_have_the_sizes_that_the_configuration_states(kind: str) -> None:
    network, x = backbone(kind), torch.rand(2, 3, 64, 96)
    deepest, maps = network.both(x, None, 50)
    assert tuple(m.shape[1] for m in maps) == network.feature_widths == network.config.feature_widths
    assert deepest.shape[1] == network.config.deepest_width
    assert [m.shape[-1] for m in maps] == sorted(m.shape[-1] for m in maps)
    height, width = maps[-1].shape[-2:]
    assert (height * network.config.scale, width * network.config.scale) == (64, 96)
    assert network(x, torch.tensor([5, 5])).shape == x.shape


def test_folded_equals_plain(kind: str) -> None:
    network, x = backbone(kind).eval(), torch.rand(2, 3, 64, 96) * 2 - 1
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        deepest, maps = network.both(x, None, 50)
        folded = network.fold(50)
        again, rest = folded.encode(x)
        pairs = [(again, deepest), *zip(folded.decode(again, rest), maps, strict=True)]
        other = network.fold(700).features(x)
    for ours, theirs in pairs:
        assert torch.allclose(ours, theirs, atol=2e-5 * theirs.abs().max().item())
    assert torch.allclose(other[-1], maps[-1], atol=1e-4) == (kind in UNTOLD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_tile_does_not_see_what_else_is_in_the_batch(kind: str) -> None:
    folded, x = backbone(kind).eval().fold().requires_grad_(False), torch.rand(3, 3, 64, 64)
    padded = torch.zeros_like(x)
    padded[1] = x[1]
    for whole, alone in zip(folded.features(x), folded.features(padded), strict=True):
        assert torch.equal(whole[1], alone[1])


@pytest.mark.parametrize("condition", [0, 12])
def test_resumed_is_uninterrupted_to_the_last_byte(kind: str, condition: int, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, loss: float, averaged: Backbone) -> None:
        if step == 2:
            raise Stop

    if kind in UNTOLD and condition:
        with pytest.raises(SettingsError, match=rf"--backbone {kind}: .* takes none; leave --encoder and --space out"):
            new_backbone(settings_of(kind), 12)
        return
    known = source(features=bool(condition))
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    pretrain(known, settings_of(kind), tmp_path / "whole")
    with pytest.raises(Stop):
        pretrain(known, settings_of(kind), tmp_path / "parts", report=stop)
    pretrain(known, settings_of(kind), tmp_path / "parts")
    for name in ("state.safetensors", "log.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_it_overfits_a_batch(kind: str) -> None:
    network, known = new_backbone(settings_of(kind), 0), source()
    objective = Objective(network, known, settings_of(kind), CPU)
    batch = Steps(known.patches, known.indices, 0, 1, range(1), 0.8)[0]
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    first = None
    for _ in range(60 if kind == "swin" else 30):  # its norms follow its layers: small first steps
        optimiser.zero_grad()
        loss = objective(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1)
        optimiser.step()
        first = first or loss.item()
    assert loss.item() < 0.7 * first


def test_a_checkpoint_comes_back(kind: str, tmp_path: Path) -> None:
    network = backbone(kind, 0 if kind in UNTOLD else 12)
    card = ModelCard("b", network.config)
    checkpoint.save(tmp_path / "b.safetensors", network, card)
    again, read = checkpoint.load(tmp_path / "b.safetensors")
    assert read == card and type(again) is type(network)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))
    assert backbone_kinds.title_of(card.backbone) == f"{KINDS[kind].title}-T"
    changes = {"vit": {"hidden": 130}, "convnext": {"widths": (8, 8, 16, 24)}, "swin": {"width": 64}}
    changes |= {"nnunet": {"widths": (8, 16, 24)}, "transunet": {"width": 128}, "vit-adapter": {"stem": 16}}
    wider = changes.get(kind, {"condition": 13})
    wide = dataclasses.replace(card, backbone=dataclasses.replace(card.backbone, **wider))
    checkpoint.save(tmp_path / "c.safetensors", network, wide)
    with pytest.raises(NotAModel, match="weights do not fit"):
        checkpoint.load(tmp_path / "c.safetensors")


def test_it_embeds_shows_fits_and_segments(kind: str, tmp_path: Path) -> None:
    path, tiles = tmp_path / "b.safetensors", np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), np.uint8)
    network = backbone(kind)
    checkpoint.save(path, network, ModelCard("b", network.config))
    embedder = Embedder(path, "both", "cpu", "fp32", 2)
    assert embedder.features(tiles).shape == (2, sum(network.feature_widths) + network.config.deepest_width)
    dense = DenseBackbone(path, "cpu")
    assert dense.reconstructs and sum(m.shape[-1] for m in dense.maps(tiles, tiles).values()) == sum(
        network.feature_widths
    )

    labels = tiny.disc_labels(256, (60, 60, 20), (150, 120, 25))
    noise = np.random.default_rng(1).integers(0, 30, (256, 256, 3))
    image = (np.where(labels[..., None] > 0, 60, 220) + noise).astype(np.uint8)
    pool = [(DatasetSpec("set"), [Annotated("a", "p", image, labels, 0.5)])]
    loop = LoopSettings(steps=2, warmup=1)
    for unfreeze in (False, True):
        out = tmp_path / f"fit-{unfreeze}"
        out.mkdir()
        chosen = FitSettings(
            backbone=str(path), unfreeze=unfreeze, batch=1, loop=loop, crop=128 if unfreeze else 256,
            augment=AugmentSettings(), device="cpu",
        )  # fmt: skip
        fitted, card = fit(pool, chosen, out)
        checkpoint.save(out / "m.safetensors", fitted, card)
        maps = Predictor(out / "m.safetensors", "cpu", "fp32", 1).maps(tiles)
        assert maps.shape == (2, 2, 256, 256) and maps[0].std() > 0


def test_a_segmenter_is_the_same_folded(kind: str) -> None:
    network = backbone(kind)
    config = network.config
    segmenter = Segmenter(network, Head(HeadConfig("cisca", config.feature_widths, (), config.scale))).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = segmenter.head.maps(segmenter(x))
        assert expected.shape[-2:] == (64, 64)
        assert torch.allclose(FoldedSegmenter(segmenter)(x), expected, atol=1e-4)
