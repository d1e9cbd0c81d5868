"""What stands in the documentation's fenced blocks, for the tests that run and parse it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
GIVEN = re.compile(rf"({NUMBER.pattern})(?:–({NUMBER.pattern}))?")
CLOSE = 0.5
"""Counts in the expected output may differ by this share: processors round differently, and models get better."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its title, its lines."""

    language: str
    title: str
    text: str


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, also those in HTML comments, in their order."""
    return [Block(*match.groups(default="")) for match in FENCE.finditer(path.read_text(encoding="utf-8"))]


def wsipipe_commands(text: str) -> Iterator[list[str]]:
    """Yield the words after ``wsipipe`` of every command in a shell block, up to a pipe, redirection or ``&``."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            words = list(lexer)
        except ValueError:  # text with an apostrophe, no command
            continue
        for k, word in enumerate(words):
            if word == "wsipipe" and (k == 0 or words[k - 1] not in ("-o", "install", "clone", "cd")):
                rest = words[k + 1 :]
                end = next((n for n, w in enumerate(rest) if set(w) <= set("|&;<>")), len(rest))
                while end and rest[end - 1].isdigit() and end < len(rest):  # the 2 of 2>
                    end -= 1
                yield rest[:end]


def missing(expected: str, output: str) -> str | None:
    """Return the first line of *expected* that *output* lacks, in order; None when it has all.

    ``…`` stands for anything, a run of blanks for any other, a number for one within half of it, and
    a range (``120–180``) for a number in it.
    """
    lines = iter(output.splitlines())
    for wanted in filter(str.strip, expected.splitlines()):
        if not any(agrees(wanted, line) for line in lines):
            return wanted
    return None


def agrees(wanted: str, line: str) -> bool:
    """Whether *line* begins as *wanted* says."""
    words = [GIVEN.sub("\0", re.sub(r"\s+", " ", part)) for part in wanted.strip().split("…")]
    patterns = [re.escape(part).replace("\0", f"({NUMBER.pattern})").replace(r"\ ", r"\s+") for part in words]
    found = re.match(r"\s*" + ".*?".join(patterns), line)
    got = [_value(number) for number in found.groups()] if found else []
    return bool(found) and all(low <= g <= high for (low, high), g in zip(_bounds(wanted), got, strict=True))


def _bounds(wanted: str) -> list[tuple[float, float]]:
    """Return the least and the largest value of each number that an expected line names."""
    pairs = [(_value(a), _value(b or a), bool(b)) for a, b in GIVEN.findall(wanted)]
    return [(a, b) if is_range else (a * (1 - CLOSE), a * (1 + CLOSE)) for a, b, is_range in pairs]


def _value(number: str) -> float:
    return float(number.replace(",", ""))
