"""Tiles to maps: the only inference code."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import ModelError, SettingsError
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import TILE
from wsipipe.models.folded import FoldedSegmenter

log = logging.getLogger(__name__)

BATCH = {"cpu": 4, "cuda": 64, "mps": 16}
"""Tiles per forward pass where none is asked for. Fixed per device type: it is part of the recipe."""


class SmallerBatch(ModelError):
    """The device ran out of memory; the slide must restart with the smaller batch that this carries."""

    def __init__(self, batch: int) -> None:
        super().__init__(f"out of device memory with {batch} tiles per forward pass; trying {batch // 2}")
        self.batch = batch // 2
        self.failed = batch

    def __reduce__(self) -> tuple[type[SmallerBatch], tuple[int]]:
        return type(self), (self.failed,)


@dataclass(frozen=True)
class Recipe:
    """Everything numerical that the bytes of a map depend on besides slide and model; part of every fingerprint."""

    device: str
    dtype: str
    engine: str
    version: str
    batch: int


def choose_device(wanted: str) -> torch.device:
    """Return the device that *wanted* names; ``auto`` takes a GPU when there is one.

    Raises
    ------
    SettingsError
    """
    if wanted == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason, expected = str(error).splitlines()[0], "expected auto, cpu, cuda, cuda:N or mps"
        raise SettingsError(f"--device {wanted} cannot be used ({reason}); {expected}") from error
    return device


def native_bf16(device: torch.device) -> bool:
    """Whether *device* computes in bf16 natively (elsewhere it is emulated, and slower than fp32)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and torch.cpu._is_avx512_bf16_supported()
    return False


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic of *precision* (auto, fp32, bf16) on *device*."""
    if precision == "auto":
        return torch.bfloat16 if native_bf16(device) else torch.float32
    if precision == "bf16" and not native_bf16(device):
        log.warning("bf16 is not native on this %s: it is emulated, and slower than fp32", device.type)
    return torch.bfloat16 if precision == "bf16" else torch.float32


class Predictor:
    """A segmenter on a device, with one fixed batch shape.

    Parameters
    ----------
    path : Path
        Checkpoint of a segmenter.
    device, precision : str
        As in :class:`wsipipe.settings.RunSettings`.
    batch : int
        Tiles per forward pass; 0 takes the device's default.

    Attributes
    ----------
    names : tuple of str
        Names of the maps, in order.
    recipe : Recipe
    """

    def __init__(self, path: Path, device: str = "auto", precision: str = "auto", batch: int = 0) -> None:
        network, self.card = checkpoint.load(path)
        if not isinstance(network, Segmenter):
            raise ModelError(f"{path} is a backbone without a head; fit one with `wsipipe fit`, or name a segmenter")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.batch = batch or BATCH[self.device.type]
        self.names = network.head.map_names
        folded = FoldedSegmenter(network)
        self.network = folded.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtype = str(self.dtype).removeprefix("torch.")
        self.recipe = Recipe(self.device.type, dtype, "eager", torch.__version__.partition("+")[0], self.batch)

    def maps(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps of *tiles*, as probability * 255.

        Parameters
        ----------
        tiles : uint8 (n, 256, 256, 3)
            RGB.

        Returns
        -------
        uint8 (n, K, 256, 256)
            In the order of :attr:`names`.

        Raises
        ------
        SmallerBatch
            Out of device memory.
        """
        out = np.empty((len(tiles), len(self.names), TILE, TILE), np.uint8)
        for start in range(0, len(tiles), self.batch):
            part = tiles[start : start + self.batch]
            out[start : start + self.batch] = self._forward(part)[: len(part)]
        return out

    @torch.inference_mode()
    def _forward(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps of one batch, padded with zeros to the fixed shape."""
        fixed = np.zeros((self.batch, TILE, TILE, 3), np.uint8)
        fixed[: len(part)] = part
        with memory_watched(self.device, self.batch):
            x = torch.from_numpy(fixed).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            with denormals_flushed():
                maps: Tensor = self.network((x.to(torch.float32) / 127.5 - 1).to(self.dtype))
            check_numbers(maps, self.card)
            return (maps * 255).round().to(torch.uint8).cpu().numpy()

    def probe(self) -> None:
        """Run one forward pass, so that lack of memory shows before any work is done.

        Raises
        ------
        SmallerBatch
        """
        self.maps(np.zeros((1, TILE, TILE, 3), np.uint8))


def check_numbers(found: Tensor, card: ModelCard) -> None:
    """Refuse what a network found when it is NaN or infinite, which would pass for nothing found.

    Raises
    ------
    ModelError
    """
    if not torch.isfinite(found).all():
        raise ModelError(f"the network of {card.name} gives no numbers (NaN or infinity); its training has diverged")


def out_of_memory(error: RuntimeError) -> bool:
    """Whether *error* says that memory is used up: a GPU's own error, or the CPU allocator's plain one."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def memory_watched(device: torch.device, batch: int) -> Iterator[None]:
    """Say how to go on when the block, a forward pass of *batch* tiles, runs out of memory.

    Raises
    ------
    SmallerBatch
    ModelError
        When not even one tile fits.
    """
    try:
        yield
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        if batch == 1:
            raise ModelError(f"not enough memory on {device} for a single tile; use --device cpu") from error
        raise SmallerBatch(batch) from error


def load_predictor(path: Path, device: str, precision: str, batch: int) -> Predictor:
    """Return a predictor with the largest batch, *batch* or smaller, that fits the device's memory."""
    while True:
        predictor = Predictor(path, device, precision, batch)
        try:
            if batch or predictor.device.type != "cpu":  # a CPU's default batch is small
                predictor.probe()
            return predictor
        except SmallerBatch as error:
            log.warning("%s", error)
            batch = error.batch


def card_of(path: Path) -> ModelCard:
    """Return what the checkpoint at *path* says of itself."""
    return checkpoint.read_card(path)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush numbers too small for full precision (the tail of GELU) to zero: on a CPU they take 100 times as long.

    Only inside the block, as the mode belongs to the thread and would change everybody else's arithmetic.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
KEPT_BYTES = 1 << 30
"""Freed memory that glibc keeps for the next activation (64-100 MB each) in place of zeroing fresh pages."""


def set_threads(threads: int) -> None:
    """Let the network use this many CPU threads in this process, and make it quick on a CPU.

    Its helper threads flush denormals for good (see :func:`denormals_flushed`), and freed memory is kept for reuse.
    """
    torch.set_num_threads(threads)
    with denormals_flushed():
        torch.ones(1 << 20).exp_()  # starts the helper threads, which inherit the mode
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):  # glibc has it, musl does not
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def describe(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Return device name and arithmetic in words, for reports."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "dtype": str(dtype).removeprefix("torch.")}
