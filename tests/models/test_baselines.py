"""Networks of others: sizes that papers state, the functions of their libraries, heads supervised in several places."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import tiny
from wsipipe.errors import NotAModel
from wsipipe.models import backbone_kinds, checkpoint
from wsipipe.models.backbone import Backbone
from wsipipe.models.baselines import convnext, nnunet, swin, vit_adapter
from wsipipe.models.baselines.stages import TAKEN
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.heads import Head, HeadConfig
from wsipipe.models.imported import import_encoder
from wsipipe.models.supervised import Deep
from wsipipe.train.fitting import count_trainable
from wsipipe.train.losses import head_loss

ROOT = Path(__file__).resolve().parents[2]


def trained(kind: str, size: str, head: str) -> int:
    """Return how many parameters `fit` trains of a network from random weights."""
    config = backbone_kinds.sized(kind, size)
    card = ModelCard("m", config, HeadConfig(head, config.feature_widths, (), config.scale))
    with torch.device("meta"):
        network = checkpoint.build(card)
    assert isinstance(network, Segmenter)
    network.backbone.output.requires_grad_(False)
    return count_trainable(network)


@pytest.mark.parametrize(
    ("kind", "size", "head", "stated", "exact"),
    [
        ("nnunet", "S", "deep", 12.19e6, 12_191_530),
        ("transunet", "B", "linear", 105.28e6, 105_322_786),
        ("vit-adapter", "B", "uper", 133.52e6, 133_549_796),
        ("vit-adapter", "L", "uper", 364e6, 363_310_276),
    ],
)
def test_sizes_are_the_papers(kind: str, size: str, head: str, stated: float, exact: int) -> None:
    """Tables 4 and 5 of the CMD paper."""
    assert trained(kind, size, head) == exact == pytest.approx(stated, rel=0.01)


@pytest.mark.parametrize(("kind", "size"), [("convnext", "B"), ("swin", "B")])
def test_encoders_are_those_of_the_list(kind: str, size: str) -> None:
    network = backbone_kinds.on_meta(backbone_kinds.sized(kind, size))
    count = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("output."))
    assert count == pytest.approx({"convnext": 87.6e6, "swin": 86.9e6}[kind], rel=0.001)


def random(network: nn.Module) -> nn.Module:
    """Give every parameter of *network* a random value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + 1.5 * name.endswith("logit_scale"))
    return network.eval()


def stages_agree(ours: Backbone, theirs: list[Tensor], x: Tensor) -> None:
    for a, b in zip(ours.features(x)[::-1], theirs, strict=True):
        expected = F.layer_norm(b.permute(0, 2, 3, 1), b.shape[1:2], eps=1e-6).permute(0, 3, 1, 2)
        assert torch.allclose(a, expected, atol=1e-5)


HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def shapes_of(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def test_convnext_is_the_network_of_timm(timm: ModuleType) -> None:
    theirs = random(timm.models.convnext.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)))
    weights = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("head")}
    ours = convnext.ConvNeXt(convnext.read_config(shapes_of(weights), **HALF)).eval()
    assert ours.load_state_dict(weights, strict=False).missing_keys == ["output.weight", "output.bias"]
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    stages_agree(ours, theirs.forward_intermediates(x)[1], x)


@pytest.mark.parametrize(("size", "window"), [((64, 96), 4), ((64, 64), 4), ((96, 64), 12)])
def test_swin_is_the_network_of_timm(timm: ModuleType, size: tuple[int, int], window: int) -> None:
    theirs = random(
        timm.models.swin_transformer_v2.SwinTransformerV2(
            img_size=size, window_size=window, embed_dim=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8),
        )
    )  # fmt: skip
    weights = {n: t for n, t in theirs.state_dict().items() if not n.startswith(("head", "norm."))}
    ours = swin.Swin(swin.read_config(shapes_of(weights), window=window, **HALF)).eval()
    assert ours.load_state_dict(weights, strict=False).missing_keys == ["output.weight", "output.bias"]
    x = torch.rand(1, 3, *size) * 2 - 1
    stages_agree(ours, theirs.forward_intermediates(x)[1], x)


def test_nnunet_is_the_network_of_its_library() -> None:
    library = pytest.importorskip("dynamic_network_architectures.architectures.unet", exc_type=ImportError)
    widths = (8, 16, 24, 32)
    theirs = random(
        library.PlainConvUNet(
            3, 4, widths, nn.Conv2d, 3, [1, 2, 2, 2], 2, 2, 2, conv_bias=True, norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
    )  # fmt: skip
    weights, ours = theirs.state_dict(), nnunet.NNUNet(nnunet.NNUNetConfig(widths)).eval()
    where = {"stages": "encoder.stages.{}.0.{}", "decoder": "decoder.stages.{}.{}", "ups": "decoder.transpconvs.{}.{}"}
    taken = {}
    for name in ours.state_dict():
        part, number, rest = (*name.split(".", 2), "")[:3]
        if part in where:
            taken[name] = weights[where[part].format(number, rest)]
    assert ours.load_state_dict(taken, strict=False).missing_keys == ["output.weight", "output.bias"]
    head = Deep(ours.config.feature_widths, 2)
    for k, level in enumerate(head.levels, 1):
        level.load_state_dict({part: weights[f"decoder.seg_layers.{k}.{part}"] for part in ("weight", "bias")})
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected, features = theirs(x), ours.features(x)
        assert torch.allclose(head(features), expected[0], atol=1e-5)
        (weight, second), *rest = head.others(features)
    assert weight == 0.5 and not rest and torch.allclose(second, expected[1], atol=1e-5)


@pytest.mark.parametrize(("head", "others"), [("deep", 2), ("uper", 1)])
def test_every_place_that_is_supervised_learns(head: str, others: int) -> None:
    network = Head(HeadConfig(head, (16, 16, 8, 8), (), 1)).train()
    x, targets = tiny.disc_batch()
    maps = [
        F.interpolate(x, (side, side)).repeat(1, 6, 1, 1)[:, :c] for side, c in ((8, 16), (16, 16), (32, 8), (64, 8))
    ]
    found = [(1.0, network(maps)), *network.others(maps)]
    assert len(found) == 1 + others and all(logits.shape == (2, 2, 64, 64) for _, logits in found)
    assert [w for w, _ in found] == sorted((w for w, _ in found), reverse=True)
    sum(weight * head_loss(head, logits, targets) for weight, logits in found).backward()  # type: ignore[union-attr]
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_places_of_deformable_attention_are_those_of_the_pixels() -> None:
    """With no offset and one point of weight, each query finds the pixel that it lies on."""
    torch.manual_seed(0)
    attention = vit_adapter.Deformable(16, 2, 1)
    nn.init.zeros_(attention.sampling_offsets.bias)
    size = (3, 5)
    values = torch.randn(2, 15, 16)
    places = vit_adapter.centres([size], values.device)
    assert places[7].tolist() == pytest.approx([0.5, 0.5]) and places[0].tolist() == pytest.approx([0.1, 1 / 6])
    with torch.no_grad():
        found = attention(torch.randn(2, 15, 16), places, values, [size])
        assert torch.allclose(found, attention.output_proj(attention.value_proj(values)), atol=1e-5)
        assert torch.allclose(attention(values[:, :4], places[:4], values, [size]), found[:, :4], atol=1e-5)


SMALL = {"convnext": convnext.ConvNeXtConfig((8, 16, 24, 32), (1, 1, 1, 1)), "swin": swin.SwinConfig(32, (1, 1, 1, 1))}


@pytest.mark.parametrize("kind", ["convnext", "swin"])
@pytest.mark.parametrize(("blocks", "stages"), [("shallow", 2), ("deep", 2), ("mixed", 4), ("last", 1)])
def test_stages_are_imported_as_asked(kind: str, blocks: str, stages: int, tmp_path: Path) -> None:
    sizes = {
        "convnext": convnext.ConvNeXtConfig((8, 16, 24, 32), (1, 1, 1, 1)),
        "swin": swin.SwinConfig(32, (1, 1, 1, 1)),
    }
    network = random(backbone_kinds.build(sizes[kind]))
    weights = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("output.")}
    (tmp_path / "encoder").mkdir()
    safetensors.torch.save_file(weights | {"head.fc.weight": torch.zeros(2, 2)}, tmp_path / "encoder/model.safetensors")
    name = {"convnext": "convnext-b-22k", "swin": "swin2-b-22k"}[kind]
    for source in (str(tmp_path / "encoder"), f"{name}={tmp_path / 'encoder'}"):
        path = import_encoder(source, tmp_path / "out.safetensors", blocks=blocks)
        found, card = checkpoint.load(path)
        assert isinstance(found, Backbone) and len(found.feature_widths) == stages
        taken = TAKEN[blocks]
        x = torch.rand(1, 3, 64, 64) * 2 - 1
        with torch.no_grad():
            whole = network.features(x)[::-1]
            for ours, k in zip(found.features(x)[::-1], taken, strict=True):
                assert torch.allclose(ours, whole[k], atol=1e-5)
        assert card.scale == 4 * 2 ** taken[0]


@pytest.mark.parametrize("kind", ["convnext", "swin"])
def test_weights_that_lack_a_layer_are_refused(kind: str, tmp_path: Path) -> None:
    network = backbone_kinds.build(SMALL[kind])
    lacking = "stages.2.blocks.0.norm.bias" if kind == "convnext" else "layers.2.blocks.0.norm1.bias"
    weights = {n: t for n, t in network.state_dict().items() if not n.startswith("output.") and n != lacking}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(NotAModel, match=rf"does not hold a whole {kind} under timm's names .*{lacking}"):
        import_encoder(str(tmp_path), tmp_path / "out.safetensors", blocks="mixed")


LIBRARIES = "diffusers", "dynamic_network_architectures", "peft", "timm", "torchvision", "transformers"
SEGMENT = f"""
import sys
import numpy as np
import wsipipe.segmentation.run
from wsipipe.infer.predict import load_predictor
from wsipipe.models.zoo import DEFAULT, resolve
load_predictor(resolve(DEFAULT), "cpu", "fp32", 1)
sys.exit(" ".join(name for name in {LIBRARIES} if name in sys.modules) or 0)
"""


def test_segment_loads_none_of_the_libraries_of_comparisons() -> None:
    """Also where they are installed."""
    done = subprocess.run([sys.executable, "-c", SEGMENT], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
