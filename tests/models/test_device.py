"""Devices: which one is taken, what runs on it, and what happens when its memory is used up."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tests import tiny
from tests.pretended import pretended_device
from wsipipe.errors import ModelError, SettingsError
from wsipipe.infer import predict
from wsipipe.infer.embed import Embedder
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.models import checkpoint, device
from wsipipe.models.conditioning import Encoder
from wsipipe.models.device import SmallerBatch, choose_device, gpu_of, memory_watched, out_of_memory, trains_in_bf16
from wsipipe.models.folded import FoldedSegmenter
from wsipipe.models.vit import ViT
from wsipipe.settings import FitSettings, LoopSettings, PretrainSettings
from wsipipe.train import fitting as fitting
from wsipipe.train.distributed import World
from wsipipe.train.feed import Batch
from wsipipe.train.log import Log
from wsipipe.train.loop import Loop
from wsipipe.train.losses import Targets
from wsipipe.train.pretraining import Objective, Source, device_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint.save(path, tiny.segmenter(), tiny.card())
    return path


# --- which device ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["meta", "vulkan", "cuda:x", "MIG-1234"])
def test_a_device_on_which_no_network_runs_is_refused(name: str) -> None:
    """ "meta" computes nothing, and says nothing of it."""
    with pytest.raises(SettingsError, match=f"--device {name} cannot be used") as error:
        choose_device(name)
    assert "\n" not in str(error.value)
    assert ("CUDA_VISIBLE_DEVICES=MIG-1234" in str(error.value)) == name.startswith("MIG")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch may find a GPU")
def test_auto_takes_the_cpu_when_the_gpu_does_not_work(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with a driver that is too old
    assert choose_device("auto") == CPU
    assert "the cuda device does not work" in caplog.text and "the CPU is used" in caplog.text


def test_training_is_in_bf16_only_where_that_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    for capability, native in (((7, 5), False), ((8, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert trains_in_bf16("auto", gpu) is native and trains_in_bf16("bf16", gpu)
    assert not trains_in_bf16("auto", CPU) and not trains_in_bf16("fp32", gpu)


def test_the_gpus_of_processes_are_counted_among_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpu_of(name) for name in ("cuda", "cuda:0", "cuda:1", "GPU-8f")] == ["0", "0", "1", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-77")
    assert [gpu_of(name) for name in ("cuda:0", "cuda:1")] == ["5", "GPU-77"]
    with pytest.raises(SettingsError, match=r"--devices cuda:2: this process can use 2 GPUs \(CUDA_VISIBLE_DEVICES"):
        gpu_of("cuda:2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a process sees one part of a GPU
    assert [gpu_of(name) for name in ("cuda:0", "cuda:1")] == ["MIG-a", "MIG-b"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(SettingsError, match="this process can use 0 GPUs, numbered from 0"):
        gpu_of("cuda:0")


def test_processes_that_train_together_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PretrainSettings(device="cuda")
    monkeypatch.setattr("wsipipe.train.pretraining.choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_of(settings, World(5, 8, 1, 2)) == torch.device("cuda", 1)
    with pytest.raises(SettingsError, match="4 processes on this machine, which has 2 GPUs"):
        device_of(settings, World(3, 4, 3, 4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # each process sees its own alone
    assert device_of(settings, World(3, 4, 3, 4)) == torch.device("cuda", 0)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "MPS backend out of memory (MPS allocated: 18.00 GB, other allocations: 80.00 KB, max allowed: 18.13 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
    ],
)
def test_every_way_to_say_that_memory_is_used_up_is_understood(words: str) -> None:
    assert out_of_memory(RuntimeError(words))
    with pytest.raises(SmallerBatch), memory_watched(CPU, 4):
        raise RuntimeError(words)


def test_what_is_no_lack_of_memory_passes_and_a_broken_gpu_is_said_in_one_line() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory_watched(CPU, 4):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    gpu, said = torch.device("cuda", 1), "CUDA error: an illegal memory access was encountered\nCompile with ..."
    with pytest.raises(ModelError, match="an illegal memory access") as error, memory_watched(gpu, 4):
        raise RuntimeError(said)
    assert "cuda:1 failed" in str(error.value) and "\n" not in str(error.value)


class Greedy(nn.Module):
    """Holds an activation when it runs out of memory."""

    held: weakref.ref[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        activation = x.repeat(1, 2, 1, 1)
        self.held = weakref.ref(activation)
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_the_activations_of_a_failed_pass_are_let_go_of_while_the_error_is_held(path: Path) -> None:
    """The next, smaller batch is tried while whoever caught the error still has it, and with it the traceback."""
    predictor = Predictor(path, "cpu", "fp32", 2)
    predictor.forward = greedy = Greedy()
    gc.disable()
    try:
        predictor.probe()
    except SmallerBatch as error:
        assert error.batch == 1 and greedy.held() is None
    else:
        pytest.fail("no lack of memory")
    finally:
        gc.enable()


def test_a_training_step_without_memory_is_said_in_one_line(tmp_path: Path) -> None:
    network = nn.Linear(2, 1)
    loop = Loop(network, LoopSettings(steps=2, warmup=1), tmp_path, log=Log(tmp_path / "log.csv"))

    def loss_of(batch: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    with pytest.raises(ModelError, match=r"out of memory at step 0 \(CUDA out of memory.*smaller --batch") as error:
        loop.run(lambda step: None, loss_of)
    assert "\n" not in str(error.value)


# --- a batch ahead ---------------------------------------------------------------------------------------------------


def test_the_next_batch_is_begun_before_the_last_one_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, steps = Predictor(path, "cpu", "fp32", 2), list[str]()
    plain = predictor.begin

    def noted(tiles: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
        number, finish = len([s for s in steps if s.startswith("begin")]), plain(tiles)
        steps.append(f"begin {number}")
        return lambda: (steps.append(f"finish {number}"), finish())[1]  # type: ignore[func-returns-value]

    tiles = np.random.default_rng(0).integers(0, 256, (5, 256, 256, 3), np.uint8)
    expected = predictor.maps(tiles)
    monkeypatch.setattr(predictor, "begin", noted)
    assert np.array_equal(predictor.maps(tiles), expected)
    assert steps == ["begin 0", "begin 1", "finish 0", "begin 2", "finish 1", "finish 2"]


# --- nothing lies on another device ----------------------------------------------------------------------------------


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with pretended_device() as pretended:
        for module in (fitting, predict):
            monkeypatch.setattr(module, "choose_device", lambda wanted: pretended)
        yield pretended


def tiles_on(device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(2, 3, 256, 256, device=device, dtype=dtype)


def test_tensors_of_two_devices_do_not_mix(other: torch.device) -> None:
    weight = torch.ones(4, 3, 3, 3)
    with pytest.raises(RuntimeError, match="of two devices"):
        F.conv2d(tiles_on(other), weight)
    assert F.conv2d(tiles_on(other), weight.to(other)).device == other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head", ["linear", "light", "sota", "cisca"])
def test_a_segmenter_lies_on_one_device(other: torch.device, head: str, dtype: torch.dtype) -> None:
    network = FoldedSegmenter(tiny.segmenter(head, ("a", "b"))).to(other, dtype)
    maps = network(tiles_on(other, dtype))
    assert maps.device == other and maps.dtype == torch.float32


@pytest.mark.parametrize("unfreeze", [True, False])
@pytest.mark.parametrize("types", [(), ("a", "b")])
def test_fitting_lies_on_one_device(
    other: torch.device, unfreeze: bool, types: tuple[str, ...], tmp_path: Path
) -> None:
    """A frozen backbone is folded when it lies on the GPU already."""
    settings = FitSettings(unfreeze=unfreeze, loop=LoopSettings(steps=2, warmup=1))
    network = tiny.segmenter(types=types)
    network.backbone.requires_grad_(unfreeze)
    network.backbone.output.requires_grad_(False)
    weights = torch.ones(len(types)) if types else None
    fit = fitting.Fitting(network, settings, weights)
    loop = Loop(fit.trained, settings.loop, tmp_path, share=fit.share)
    plain = Targets(
        torch.zeros(2, 256, 256, dtype=torch.long), torch.zeros(2, 4, 256, 256), *torch.zeros(2, 2, 256, 256)
    )
    batch = torch.zeros(2, 3, 256, 256), plain
    with fit.arithmetic():
        features = fit.extract(batch[0]) if not unfreeze else []
    fit.loss(batch).backward()  # type: ignore[no-untyped-call]
    loop.optimiser.step()
    loop.ema.update(loop.network, 1)
    assert {p.device for p in (*loop.ema.network.parameters(), *features)} == {other}
    maps = FoldedSegmenter(fit.segmenter(loop.ema.network)).to(other)(tiles_on(other))
    assert maps.device == other


@pytest.mark.parametrize("condition", [0, 64])
def test_pretraining_lies_on_one_device(other: torch.device, condition: int) -> None:
    settings = PretrainSettings(ssim=0.2)
    network = tiny.backbone(condition).to(other)
    source = Source(tiny.Patches(1), np.arange(1), None)
    objective = Objective(network, source, settings, other)
    batch = Batch(
        torch.zeros(2, 256, 256, 3, dtype=torch.uint8),
        torch.ones(2, dtype=torch.long),
        torch.zeros(2, 32, 32, dtype=torch.bool),
        torch.zeros(2, dtype=torch.long),
    )
    objective.condition = lambda batch: torch.zeros(2, condition).to(other) if condition else None  # type: ignore
    objective(batch).backward()  # type: ignore[no-untyped-call]
    assert {p.grad.device for p in network.parameters() if p.grad is not None} == {other}


@pytest.mark.parametrize("pool", ["decoder", "bottleneck", "both"])
def test_features_lie_on_one_device(other: torch.device, pool: str) -> None:
    embedder = object.__new__(Embedder)
    embedder.pool, embedder.device, embedder.dtype = pool, other, torch.bfloat16
    embedder.margin, embedder.encoder = 0, None
    embedder.network = FoldedSegmenter(tiny.segmenter()).to(other, torch.bfloat16)
    pooled = embedder._pooled(torch.zeros(2, 256, 256, 3, dtype=torch.uint8, device=other))
    assert pooled.device == other


def test_an_encoder_lies_on_one_device(other: torch.device) -> None:
    encoder = object.__new__(Encoder)
    network = ViT(tiny.encoder_shapes(registers=2)).to(other)
    encoder.name, encoder.device, encoder.network, encoder.side = "vit", other, network, network.side
    encoder.mean = encoder.std = torch.ones(3, 1, 1, device=other)
    assert network(encoder._input(torch.zeros(2, 512, 512, 3, dtype=torch.uint8))).device == other


def test_what_a_network_can_be_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert not device.can_compile(torch.device("cuda", 0)), "no Triton"
    monkeypatch.setattr(device, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert not device.can_compile(torch.device("cuda", 0)), "no compiler"
    assert not device.can_compile(CPU)


# --- on a real GPU ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.device_count() - 1)  # not the current one where there are several


@pytest.mark.gpu
def test_batches_ahead_do_not_mix_on_a_gpu(cuda: torch.device, path: Path) -> None:
    predictor = Predictor(path, str(cuda), "fp32", 2)
    tiles = np.random.default_rng(0).integers(0, 256, (9, 256, 256, 3), np.uint8)
    together = predictor.maps(tiles)
    alone = [predictor.begin(tiles[k : k + 2])() for k in range(0, len(tiles), 2)]
    assert np.array_equal(together, np.concatenate(alone)) and together.std() > 1


@pytest.mark.gpu
def test_a_real_lack_of_memory_leads_to_a_smaller_batch(cuda: torch.device, path: Path) -> None:
    total = torch.cuda.get_device_properties(cuda).total_memory
    device.free_memory(cuda)
    limit = torch.cuda.memory_reserved(cuda) + (1 << 30)
    torch.cuda.set_per_process_memory_fraction(limit / total, cuda)
    try:
        predictor = load_predictor(path, str(cuda), "fp32", 1024)
        assert 1 <= predictor.batch < 1024
        assert predictor.maps(np.zeros((3, 256, 256, 3), np.uint8)).shape[0] == 3
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)


@pytest.mark.gpu
@pytest.mark.parametrize("unfreeze", [True, False])
def test_a_step_of_fitting_runs_on_a_gpu(cuda: torch.device, unfreeze: bool, tmp_path: Path) -> None:
    settings = FitSettings(unfreeze=unfreeze, device=str(cuda), loop=LoopSettings(steps=2, warmup=1))
    network = tiny.segmenter()
    network.backbone.requires_grad_(unfreeze)
    network.backbone.output.requires_grad_(False)
    fit = fitting.Fitting(network, settings, None)
    loop = Loop(fit.trained, settings.loop, tmp_path, log=Log(tmp_path / "log.csv"), share=fit.share)
    averaged = loop.run(lambda step: tiny.disc_batch(), fit.loss)
    assert loop.step == 2 and all(p.isfinite().all() for p in averaged.parameters())
    again = Loop(fit.trained, settings.loop, tmp_path, log=Log(tmp_path / "log.csv"), share=fit.share)
    assert again.restore() and again.step == 2
