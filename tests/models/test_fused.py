"""One pass over memory gives what torch's own operations do, whatever the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from wsipipe.models import fused
from wsipipe.models.cmd_folded import FoldedUp
from wsipipe.models.folded import FoldedSegmenter

NEAR = {torch.float32: 4e-6, torch.bfloat16: 1 / 60}
"""How far numbers up to 8 may be from torch's: half a unit of bf16's last place, or fp32's sums in another order."""
DTYPES = list(NEAR)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def drawn(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).mul(1.5).clamp(-4, 4).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [3, 32, 40])
def test_layer_norm(dtype: torch.dtype, channels: int, threads: int) -> None:
    x = drawn(2, 37, 41, channels, dtype=dtype)
    expected = F.layer_norm(x.float(), (channels,), eps=1e-6)
    found = fused.layer_norm(x.clone())
    assert found.dtype == dtype and (found.float() - expected).abs().max() < NEAR[dtype] * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_and_the_norm_of_each_tile(dtype: torch.dtype, threads: int) -> None:
    x, bias = drawn(3, 37, 41, 24, dtype=dtype), drawn(24, dtype=dtype)
    expected = F.gelu(x.double() + bias.double())
    found = x.clone()
    norm = fused.gelu(found, bias)
    assert (found.double() - expected).abs().max() < NEAR[dtype]
    assert torch.allclose(norm.double(), torch.linalg.vector_norm(expected, dim=(1, 2))[:, None], rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums(dtype: torch.dtype, threads: int) -> None:
    y, x, bias = (drawn(*shape, 24, dtype=dtype) for shape in ((2, 37, 41), (2, 37, 41), ()))
    expected = (y.float() + x.float() + bias.float()).to(dtype)
    assert torch.equal(fused.add(y, x, bias), expected)


def test_bytes_do_not_depend_on_threads() -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        x = drawn(3, 37, 41, 24, dtype=torch.float32)
        found.append((fused.gelu(x, torch.zeros(24)), x))
    torch.set_num_threads(before)
    for norm, values in found[1:]:
        assert torch.equal(norm, found[0][0]) and torch.equal(values, found[0][1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(dtype: torch.dtype, wrong: float) -> None:
    x = drawn(1, 4, 4, 8, dtype=dtype)
    x[0, 1, 1, 1] = wrong
    assert not fused.layer_norm(x.clone())[0, 1, 1].isfinite().any()
    norm = fused.gelu(x, torch.zeros(8))
    assert (
        not x[0, 1, 1, 1].isfinite() and not norm[0, 0, 1].isfinite() and norm[0, 0, [0, *range(2, 8)]].isfinite().all()
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_computes_the_same_with_it_as_with_torch_alone(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = FoldedSegmenter(tiny.segmenter("cisca")).to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = drawn(2, 3, 64, 96, dtype=dtype).clamp(-1, 1).contiguous(memory_format=torch.channels_last)
    found = folded(x)
    monkeypatch.setattr(fused, "serves", lambda x: False)
    assert (found - folded(x)).abs().max() < {torch.float32: 1e-5, torch.bfloat16: 0.06}[dtype]


def test_it_leaves_its_input_alone_and_gradients_and_compilers_to_torch() -> None:
    folded: Any = FoldedSegmenter(tiny.segmenter()).backbone
    block = folded.encoder[0][0]
    x = drawn(1, 8, 8, block.project_bias.numel(), dtype=torch.float32).permute(0, 3, 1, 2)
    before = x.clone()
    block(x)
    assert torch.equal(x, before) and fused.serves(x)
    assert not fused.serves(x.double()) and not fused.serves(x.to("meta")) and not fused.serves(x.requires_grad_())


def test_merging_before_shuffling_is_merging_after() -> None:
    up: Any = tiny.backbone().up[-1]
    coarse, finer = up.conv.in_channels, up.merge.out_channels
    x, skip = torch.randn(2, coarse, 6, 10), torch.randn(2, finer, 12, 20)
    with torch.no_grad():
        assert torch.allclose(FoldedUp(up)(x, skip), up(x, skip), atol=1e-5)


def test_what_has_overflown_stays_no_number() -> None:
    """A pixel whose variance is beyond fp32 would else come out as 0, as if nothing were there."""
    x = torch.full((1, 1, 2, 8), 1e30)
    x[..., ::2] *= -1
    x[0, 0, 0] = torch.arange(8)
    y = fused.layer_norm(x.clone())
    assert y[0, 0, 0].isfinite().all() and y[0, 0, 1].isnan().all()
