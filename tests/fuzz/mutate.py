"""Damage of known kinds: of bytes, and of what JSON, TOML and tables say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, "", "x", "é\ud800", [], {}, [[]], -1, 0, 1e300, -1e300, 10**9, 10**400, 0.5, "9" * 400, "\0"),
    [[[0, 0], [1e9, 0], [0, 1e9], [0, 0]]],
)
"""Values that stand where others are expected."""
Mutator = Callable[[bytes, random.Random], bytes]


def cut(raw: bytes, rng: random.Random) -> bytes:
    """Lose the end."""
    return raw[: rng.randrange(len(raw))]


def flip(raw: bytes, rng: random.Random) -> bytes:
    """Flip one bit, more often near the ends, where headers and directories are."""
    changed = bytearray(raw)
    changed[_place(raw, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero(raw: bytes, rng: random.Random) -> bytes:
    """Lose a run of bytes to zeros, as a disk does."""
    start, size = _place(raw, rng), rng.choice((1, 16, 512, 4096))
    return raw[:start] + bytes(len(raw[start : start + size])) + raw[start + size :]


def swap(raw: bytes, rng: random.Random) -> bytes:
    """Exchange two words, such as counts and offsets."""
    changed, places = bytearray(raw), [4 * (_place(raw, rng) // 4) for _ in "ab"]
    (a, b), size = places, min(4, len(raw) - max(places))
    changed[a : a + size], changed[b : b + size] = changed[b : b + size], changed[a : a + size]
    return bytes(changed)


def nest(raw: bytes, rng: random.Random) -> bytes:
    """Put brackets without end in front, or in the middle."""
    place = rng.choice((0, rng.randrange(len(raw))))
    return raw[:place] + rng.choice((b"[", b'{"a":', b"a.")) * 50_000 + raw[place:]


def field(raw: bytes, rng: random.Random) -> bytes:
    """Remove a value somewhere in a JSON text, or put an odd one there."""
    content = json.loads(raw)
    where = content
    while isinstance(where, (dict, list)) and where:
        key = rng.choice(list(where)) if isinstance(where, dict) else rng.randrange(len(where))
        if rng.random() < 0.35 or not isinstance(where[key], (dict, list)) or not where[key]:
            if rng.random() < 0.3:
                del where[key]
            else:
                where[key] = rng.choice(ODD)
            break
        where = where[key]
    return json.dumps(content).encode()


def word(raw: bytes, rng: random.Random) -> bytes:
    """Put an odd value in place of a word of a text."""
    words = raw.decode().split(" ") if b" " in raw else raw.decode().split(",")
    words[rng.randrange(len(words))] = str(rng.choice(ODD))
    return (" " if b" " in raw else ",").join(words).encode(errors="surrogatepass")


def _place(raw: bytes, rng: random.Random) -> int:
    near = rng.choice((0, len(raw) - 1, None))
    if near is None:
        return rng.randrange(len(raw))
    return min(len(raw) - 1, abs(near - int(rng.expovariate(1 / 200))))


BYTES: tuple[Mutator, ...] = (cut, flip, zero, swap)
TEXT: tuple[Mutator, ...] = (*BYTES, nest, word)
JSON: tuple[Mutator, ...] = (*TEXT, field, field, field)
