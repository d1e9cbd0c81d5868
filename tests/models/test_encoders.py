"""Foundation models by name, as encoders and as backbones; ways to adapt them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import tiny
from wsipipe.errors import MissingDependency, ModelError, ModelNotFound, NotAModel, SettingsError
from wsipipe.infer.predict import Predictor
from wsipipe.labels import Annotated, DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.conditioning import encoder_name, open_encoder, read_vit
from wsipipe.models.encoders import known, named
from wsipipe.models.heads import Head, HeadConfig
from wsipipe.models.imported import import_encoder
from wsipipe.models.vit import ViT
from wsipipe.models.vit_backbone import ViTBackbone, config_of, taken_of
from wsipipe.models.vit_names import as_timm
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train.fitting import count_trainable, fit, new_segmenter

CPU = torch.device("cpu")
PAPERS = (
    *("pathorchestra", "conch-v1_5", "conch", "prov-gigapath", "hibou-l", "h-optimus-0", "h-optimus-1", "kaiko-l14"),
    *("midnight-12k", "musk", "phikon", "phikon-v2", "uni", "uni2-h", "virchow", "virchow2"),
)
ROUNDED = {"conch": 0.06, "conch-v1_5": 0.02, "prov-gigapath": 0.04, "h-optimus-0": 0.04, "h-optimus-1": 0.04}
"""Where the paper rounds (1100 M), or counts a pooling head that wsipipe leaves out: how far from its figure."""


def weights(seed: int = 0, **layout: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = tiny.encoder_shapes(**layout)  # type: ignore[arg-type]
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def saved(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return folder


def test_the_list_holds_the_papers_sixteen_and_the_general_ones() -> None:
    entries = known()
    assert set(PAPERS) <= set(entries) and len(PAPERS) == 16
    assert sum(entry.domain == "general" for entry in entries.values()) >= 4
    for entry in entries.values():
        assert entry.licence and "/" in entry.hub and len(entry.mean) == len(entry.std) == 3


@pytest.mark.parametrize("name", [name for name, entry in known().items() if entry.layout == "vit"])
def test_sizes_are_the_papers(name: str) -> None:
    entry = known()[name]
    with torch.device("meta"):
        network = ViT(entry.shapes())
    found = sum(p.numel() for p in network.parameters()) / 1e6
    assert found == pytest.approx(entry.parameters, rel=ROUNDED.get(name, 0.035 if entry.parameters == 1100 else 0.01))
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == entry.shapes()


@pytest.mark.parametrize(
    ("width", "count"), [(768, 5_876_066), (1024, 7_055_714), (1280, 8_235_362), (1536, 9_415_010)]
)
def test_the_decoder_has_the_papers_parameters(width: int, count: int) -> None:
    with torch.device("meta"):
        head = Head(HeadConfig("decoder", (width,), (), 16))
    assert sum(p.numel() for p in head.parameters()) == count


def test_the_decoder_is_as_large_as_the_picture() -> None:
    head = Head(HeadConfig("decoder", (64,), (), 8)).eval()
    assert head([torch.randn(1, 64, 4, 6)]).shape == (1, 2, 32, 48)


def transformers_names(tensors: dict[str, torch.Tensor], dinov2: bool) -> dict[str, torch.Tensor]:
    """Return the same weights as the library transformers would name them."""
    found = {}
    for name, tensor in tensors.items():
        if ".attn.qkv." in name:
            layer, kind = name.split(".")[1], name.rpartition(".")[2]
            for part, third in zip(("query", "key", "value"), tensor.chunk(3)):
                found[f"encoder.layer.{layer}.attention.attention.{part}.{kind}"] = third
            continue
        for ours, theirs in {
            "cls_token": "embeddings.cls_token",
            "reg_token": "embeddings.register_tokens",
            "pos_embed": "embeddings.position_embeddings",
            "patch_embed.proj.": "embeddings.patch_embeddings.projection.",
            "attn.proj.": "attention.output.dense.",
            "ls1.gamma": "layer_scale1.lambda1",
            "ls2.gamma": "layer_scale2.lambda1",
            **({} if dinov2 else {"mlp.fc1.": "intermediate.dense.", "mlp.fc2.": "output.dense."}),
            **({} if dinov2 else {"norm1.": "layernorm_before.", "norm2.": "layernorm_after."}),
        }.items():
            name = name.replace(ours, theirs)
        name = name.replace("blocks.", "encoder.layer.")
        found["layernorm." + name[5:] if name.startswith("norm.") else name] = tensor
    return found


@pytest.mark.parametrize("dinov2", [False, True])
@pytest.mark.parametrize("prefix", ["", "vit.", "model."])
def test_weights_of_transformers_are_read(dinov2: bool, prefix: str) -> None:
    tensors = weights(registers=4 if dinov2 else 0)
    if not dinov2:
        tensors = {k: v for k, v in tensors.items() if ".ls" not in k}
    theirs = {f"{prefix}{k}": v for k, v in transformers_names(tensors, dinov2).items()}
    theirs |= {f"{prefix}embeddings.mask_token": torch.zeros(1, 1, 64), "pooler.dense.weight": torch.zeros(3)}
    assert set(theirs) & set(tensors) == set()
    found = as_timm(theirs)
    assert set(found) == set(tensors) and all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_old_files_and_prefixes_are_read(tmp_path: Path) -> None:
    tensors = weights()
    torch.save({f"visual.trunk.{k}": v for k, v in tensors.items()} | {"text.weight": torch.zeros(3)},
               tmp_path / "pytorch_model.bin")  # fmt: skip
    network, _ = read_vit(tmp_path)
    assert all(torch.equal(v, tensors[k]) for k, v in network.state_dict().items())
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing of the kind")
    with pytest.raises(NotAModel, match="does not hold a whole network"):
        read_vit(tmp_path)


def test_a_name_with_a_folder_has_the_lists_normalisation(tmp_path: Path) -> None:
    folder = saved(tmp_path / "w", weights())
    image = torch.from_numpy(tiny.Patches(1).pixels)
    plain, ours = open_encoder(str(folder), CPU), open_encoder(f"hibou-l={folder}", CPU)
    assert (plain.side, ours.side) == (32, 224)
    assert not np.allclose(ours.mean.flatten(), plain.mean.flatten()) and not np.allclose(ours(image), plain(image))
    assert encoder_name(f"hibou-l={folder}").startswith("hibou-l-")
    assert encoder_name("uni") == "hf-hub:MahmoodLab/UNI"
    assert named(str(folder)) is None


def test_names_that_are_not_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFound, match=r"no foundation model 'hiboo-l' in the list; did you mean hibou-l\?"):
        open_encoder(f"hiboo-l={tmp_path}", CPU)
    with pytest.raises(ModelError, match="MUSK is no plain ViT"):
        open_encoder(f"musk={tmp_path}", CPU)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match=r"--encoder uni"):
        open_encoder("uni", CPU)


def test_positions_fit_other_sides() -> None:
    network = ViT(tiny.encoder_shapes())
    network.load_state_dict(weights())
    small = network(torch.randn(1, 3, 32, 32))
    assert small.shape[1] == 17 and network(torch.randn(1, 3, 64, 48)).shape[1] == 1 + 8 * 6
    grid = network._positions(1, (8, 8)).reshape(8, 8, -1)
    assert torch.allclose(grid.mean((0, 1)), network.pos_embed[0, 1:].mean(0), atol=0.05)


def test_registers_may_have_positions_of_their_own() -> None:
    shapes = tiny.encoder_shapes(registers=4) | {"pos_embed": (1, 16 + 5, 64)}
    network = ViT(shapes)
    assert network.side == 32 and network.prefix == 5 and network(torch.randn(1, 3, 32, 32)).shape == (1, 21, 64)


@pytest.mark.parametrize("layout", [{"registers": 4, "class_position": False}, {}, {"swiglu": True}, {"registers": 4}])
def test_it_is_the_network_of_timm(timm: ModuleType, layout: dict[str, int]) -> None:
    shapes = tiny.encoder_shapes(**layout)  # type: ignore[arg-type]
    if layout == {"registers": 4}:
        shapes["pos_embed"] = (1, 16 + 5, 64)  # as Virchow2: registers have positions, too
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0, global_pool="", init_values=1.0,
        reg_tokens=layout.get("registers", 0), no_embed_class=not layout.get("class_position", True),
        dynamic_img_size=True,
        **({"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU} if layout.get("swiglu") else {}),
    ).eval()  # fmt: skip
    theirs.load_state_dict(tensors)
    ours = ViT(shapes)
    ours.load_state_dict(tensors)
    for side in (32, 64):
        x = torch.randn(2, 3, side, side)
        with torch.no_grad():
            assert torch.allclose(ours.eval()(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    ("which", "taken"), [("last", (11,)), ("mixed", (2, 5, 8, 11)), ("shallow", (0, 2, 3, 5)), ("deep", (6, 8, 9, 11))]
)
def test_blocks_are_taken_as_asked(which: str, taken: tuple[int, ...]) -> None:
    assert taken_of(12, which) == taken


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small foundation model as a backbone's file."""
    folder = saved(tmp_path / "w", weights())
    (folder / "config.json").write_text(json.dumps({"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]}))
    return import_encoder(f"uni={folder}", tmp_path / "uni.safetensors", grid=16, blocks="last")


def test_an_imported_model_gives_the_tokens_of_the_encoder(model: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(model)
    assert isinstance(network, ViTBackbone) and card.licence == "CC-BY-NC-ND-4.0" and card.backbone.grid == 16
    x = torch.rand(1, 3, 256, 256) * 2 - 1
    vit, config = read_vit(tmp_path / "w")
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    small = torch.nn.functional.interpolate(x, (128, 128), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = vit((small / 2 + 0.5 - mean) / std)[:, 1:].transpose(1, 2).reshape(1, 64, 16, 16)
        assert torch.allclose(network.features(x)[-1], expected, atol=1e-4)
    assert config_of(vit, grid=16, taken=(1,)).depth == 2


def pool() -> list[tuple[DatasetSpec, list[Annotated]]]:
    labels = tiny.disc_labels(256, (60, 60, 20), (150, 120, 25))
    noise = np.random.default_rng(1).integers(0, 30, (256, 256, 3))
    image = (np.where(labels[..., None] > 0, 60, 220) + noise).astype(np.uint8)
    return [(DatasetSpec("set"), [Annotated("a", "p", image, labels, 0.5)])]


@pytest.mark.parametrize(
    ("how", "trained"),
    [("lora", 2 * 2 * (3 * 2 * 64 + 2 * 64) * 2 // 2), ("dora", None), ("transformer", None), ("cnn", None)],
)
def test_adapting_trains_little_and_changes_what_it_should(
    how: str, trained: int | None, model: Path, tmp_path: Path
) -> None:
    settings = FitSettings(
        backbone=str(model), head="light" if how == "cnn" else "decoder", adapt=how, rank=2, batch=1, device="cpu",
        loop=LoopSettings(steps=3, warmup=1, lr=1e-2, checkpoint_every=2),
    )  # fmt: skip
    source, _ = checkpoint.load(model)
    network, card = new_segmenter(settings)
    network.eval()
    x = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        before, start = source.features(x)[-1], network.backbone.features(x)
    at = len(card.backbone.taken) - 1
    assert torch.allclose(start[at], before, atol=1e-5), "it starts at no effect"
    part = count_trainable(network.backbone)
    assert 0 < part < sum(p.numel() for p in network.backbone.parameters()) and (trained is None or part == trained)
    fitted, card = fit(pool(), settings, tmp_path)
    with torch.no_grad():
        after = fitted.backbone.features(x)
    assert how == "cnn" or not torch.allclose(after[at], before, atol=1e-4)
    ours, theirs = fitted.backbone.vit.state_dict(), source.vit.state_dict()
    untouched = [k for k in theirs if how not in ("lora", "dora") or "attn" not in k]
    assert all(torch.equal(ours[k], theirs[k]) for k in untouched)
    checkpoint.save(tmp_path / "m.safetensors", fitted, card)
    maps = Predictor(tmp_path / "m.safetensors", "cpu", "fp32", 1).maps(np.zeros((1, 256, 256, 3), np.uint8))
    assert maps.shape == (1, 1, 256, 256)


def test_low_ranks_go_with_cmd_and_other_adapters_do_not(tmp_path: Path) -> None:
    path = tmp_path / "cmd.safetensors"
    checkpoint.save(path, tiny.shake(tiny.backbone()), ModelCard("cmd", tiny.backbone().config))
    settings = FitSettings(backbone=str(path), adapt="lora", rank=2, device="cpu")
    network, _ = new_segmenter(settings)
    names = {n for n, p in network.backbone.named_parameters() if p.requires_grad}
    assert names and all("parametrizations" in n and ("expand" in n or "project" in n) for n in names)
    for change, message in (
        ({"adapt": "cnn"}, "--adapt cnn is for vision transformers"),
        ({"unfreeze": True}, "--adapt is for a pretrained backbone"),
        ({"backbone": "T"}, "--adapt is for a pretrained backbone"),
    ):
        with pytest.raises(SettingsError, match=message):
            new_segmenter(replace(settings, **change))
