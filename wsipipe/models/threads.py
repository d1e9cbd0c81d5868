"""How the threads of a process compute on a CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
