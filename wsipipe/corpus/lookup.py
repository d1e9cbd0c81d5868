"""Which of many images have binary descriptors like those of a patch: locality-sensitive hashing, exact and repeatable.

Each table hashes a descriptor by 18 of its 256 bits; descriptors that differ in few bits share a bucket, or one that is
a bit away, in some table.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

TABLES, KEY_BITS = 12, 18
NEAR = 64
"""Two descriptors that differ in more bits than this are never of the same point."""

Descriptors = NDArray[np.uint8]
Words = NDArray[np.uint64]


class Lookup:
    """Descriptors of many images, by bucket.

    Parameters
    ----------
    descriptors : list of uint8 (n, 32)
        One array per image.
    """

    def __init__(self, descriptors: list[Descriptors]) -> None:
        self.images = len(descriptors)
        counts = np.array([len(found) for found in descriptors], np.int64)
        self._firsts = np.cumsum(counts) - counts
        self._owner = np.repeat(np.arange(self.images), counts)
        self._words = _words(np.concatenate(descriptors) if descriptors else np.zeros((0, 32), np.uint8))
        self._bits = np.random.default_rng(0).permuted(np.tile(np.arange(256), (TABLES, 1)), axis=1)[:, :KEY_BITS]
        keys = _keys(self._words, self._bits)
        self._order = np.stack([np.argsort(row, kind="stable") for row in keys]).astype(np.int32)
        edges = np.arange((1 << KEY_BITS) + 1)
        self._starts = np.stack([np.searchsorted(np.sort(row), edges) for row in keys]).astype(np.int32)

    def nearest(self, descriptors: Descriptors) -> NDArray[np.int64]:
        """Return image and number of what each of *descriptors*, uint8 (n, 32), is like most: int64 (n, 2), or -1."""
        words = _words(descriptors)
        found = _nearest(words, _keys(words, self._bits), self._words, self._order, self._starts)
        pairs = np.full((len(found), 2), -1, np.int64)
        hit = found >= 0
        pairs[hit, 0] = self._owner[found[hit]]
        pairs[hit, 1] = found[hit] - self._firsts[pairs[hit, 0]]
        return pairs


def _words(descriptors: Descriptors) -> Words:
    return np.ascontiguousarray(descriptors).view(np.uint64)


@njit(cache=True, nogil=True)
def _keys(words: Words, bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each descriptor in each table, int64 (tables, n)."""
    keys = np.zeros((bits.shape[0], words.shape[0]), np.int64)
    for table in range(bits.shape[0]):
        for i in range(words.shape[0]):
            key = np.int64(0)
            for bit in bits[table]:
                key = np.int64(key << 1) | np.int64((words[i, bit >> 6] >> np.uint64(bit & 63)) & np.uint64(1))
            keys[table, i] = key
    return keys


@njit(cache=True, nogil=True)
def _nearest(
    queries: Words, keys: NDArray[np.int64], words: Words, order: NDArray[np.int32], starts: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return the nearest descriptor within :data:`NEAR` bits of each query, int64 (n,), or -1; ties to the first."""
    found = np.full(queries.shape[0], -1, np.int64)
    for q in range(queries.shape[0]):
        best = np.int64(NEAR + 1)
        for table in range(keys.shape[0]):
            for probe in range(KEY_BITS + 1):
                key = keys[table, q] ^ (0 if probe == KEY_BITS else 1 << probe)
                for slot in range(starts[table, key], starts[table, key + 1]):
                    i = order[table, slot]
                    bits = _distance(queries[q], words[i])
                    if bits < best or (bits == best and i < found[q]):
                        best, found[q] = bits, i
    return found


@njit(cache=True, nogil=True)
def _distance(a: Words, b: Words) -> np.int64:
    """Return in how many bits two descriptors differ."""
    total = np.int64(0)
    for k in range(a.size):
        x = a[k] ^ b[k]
        x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
    return total
