"""Tiles to maps: the only inference code."""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsipipe.errors import ModelError
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard, Segmenter
from wsipipe.models.cmd import TILE
from wsipipe.models.device import BATCH, SmallerBatch, choose_device, choose_dtype, fetched, memory_watched, sent
from wsipipe.models.engines import engine_for
from wsipipe.models.folded import FoldedSegmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything numerical that the bytes of a map depend on besides slide and model; part of every fingerprint."""

    device: str
    dtype: str
    engine: str
    version: str
    batch: int


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
    engine : str
        What computes the network, by its name in :data:`wsipipe.models.engines.ENGINES`.

    Attributes
    ----------
    names : tuple of str
        Names of the maps, in order.
    recipe : Recipe
    """

    def __init__(
        self, path: Path, device: str = "auto", precision: str = "auto", batch: int = 0, engine: str = "torch"
    ) -> None:
        network, self.card = checkpoint.load(path)
        if not isinstance(network, Segmenter):
            raise ModelError(f"{path} is a backbone without a head; fit one with `wsipipe fit`, or name a segmenter")
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.batch = batch or BATCH[self.device.type]
        self.names = network.head.map_names
        folded = FoldedSegmenter(network)
        self.network = folded.to(self.device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        chosen, dtype = engine_for(engine, self.device, self.dtype), str(self.dtype).removeprefix("torch.")
        self.recipe = Recipe(self.device.type, dtype, chosen.name_on(self.device), chosen.version(), self.batch)
        example = torch.zeros(self.batch, 3, TILE, TILE, device=self.device, dtype=self.dtype)
        self.forward = chosen.make(self.network, example.to(memory_format=torch.channels_last))

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
        before: Callable[[], NDArray[np.uint8]] | None = None
        for start in range(0, len(tiles), self.batch):
            begun = self.begin(tiles[start : start + self.batch])
            if before:
                out[start - self.batch : start] = before()
            before = begun
        if before:
            out[start:] = before()
        return out

    @torch.inference_mode()
    def begin(self, tiles: NDArray[np.uint8]) -> Callable[[], NDArray[np.uint8]]:
        """Begin the forward pass of one batch, padded with zeros to the fixed shape; return what gives its maps.

        A GPU forwards it while the next one is begun; a CPU is done when this returns.

        Parameters
        ----------
        tiles : uint8 (n, 256, 256, 3)
            At most :attr:`batch` of them.

        Raises
        ------
        SmallerBatch
            Out of device memory; what is returned may raise it too.
        """
        fixed = np.zeros((self.batch, TILE, TILE, 3), np.uint8)
        fixed[: len(tiles)] = tiles
        with memory_watched(self.device, self.batch):
            x = sent(fixed, self.device).permute(0, 3, 1, 2)
            with denormals_flushed():
                maps: Tensor = self.forward((x.to(torch.float32) / 127.5 - 1).to(self.dtype))
            sound, whole = fetched(torch.isfinite(maps).all()), fetched((maps * 255).round().to(torch.uint8))

        def finish() -> NDArray[np.uint8]:
            with memory_watched(self.device, self.batch):  # what goes wrong on a GPU shows when it is waited for
                check_numbers(bool(sound()), self.card)
                return whole()[: len(tiles)]

        return finish

    def probe(self) -> None:
        """Run one forward pass, so that lack of memory shows before any work is done.

        Raises
        ------
        SmallerBatch
        """
        self.maps(np.zeros((1, TILE, TILE, 3), np.uint8))


def check_numbers(sound: bool, card: ModelCard) -> None:
    """Refuse what a network found when it is not *sound*: NaN or infinity would pass for nothing found.

    Raises
    ------
    ModelError
    """
    if not sound:
        raise ModelError(f"the network of {card.name} gives no numbers (NaN or infinity); its training has diverged")


def load_predictor(path: Path, device: str, precision: str, batch: int, engine: str = "torch") -> Predictor:
    """Return a predictor with the largest batch, *batch* or smaller, that fits the device's memory."""
    while True:
        predictor = Predictor(path, device, precision, batch, engine)
        try:
            if batch or engine != "torch" or predictor.device.type != "cpu":  # a CPU's default batch is small
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
