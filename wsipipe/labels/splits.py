"""Which image belongs to which part of a set; no patient is in two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsipipe.artifacts import from_json
from wsipipe.artifacts.plain import text_of
from wsipipe.errors import DatasetError, in_words
from wsipipe.labels.annotated import Annotated, DatasetSpec
from wsipipe.labels.pictures import IMAGE_SUFFIXES, SLIDE_SUFFIXES

SPLITS = ("train", "val", "test")


def assign(spec: DatasetSpec, stems: Sequence[str], root: Path = Path()) -> dict[str, str]:
    """Return the split of every stem; no patient is in two.

    Raises
    ------
    DatasetError
    """
    by_entry = read_split(root / spec.split) if spec.split else {}
    result = {s: by_entry.get(s) or by_entry.get(patient(spec, s)) or spec.default_split for s in stems}
    seen: dict[str, str] = {}
    for stem, name in result.items():
        who = patient(spec, stem)
        if seen.setdefault(who, name) != name:
            raise DatasetError(f"{spec.path}: patient {who} is in {seen[who]} and {name}; a patient has one split")
    return result


def read_split(path: Path) -> dict[str, str]:
    """Return the split of every patient or stem that the JSON file at *path* names.

    Raises
    ------
    DatasetError
    """
    try:
        listed = from_json(text_of(path))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: not a readable split file ({in_words(error)}); expected JSON") from error
    if not isinstance(listed, dict) or not all(k in SPLITS and isinstance(v, list) for k, v in listed.items()):
        raise DatasetError(f"{path}: expected an object with the lists {', '.join(SPLITS)} and nothing else")
    by_entry: dict[str, str] = {}
    for name, entries in listed.items():
        for entry in map(_without_suffix, entries):
            if by_entry.setdefault(entry, name) != name:
                raise DatasetError(f"{path}: {entry} is in {by_entry[entry]} and {name}; it belongs in one split")
    return by_entry


def _without_suffix(entry: object) -> str:
    path = Path(str(entry))
    return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, *SLIDE_SUFFIXES) else str(entry)


def patient(spec: DatasetSpec, stem: str) -> str:
    """Return the patient of an image *stem*."""
    pattern = f"{spec.path}: the patient pattern {spec.patient!r}"
    try:
        match = re.match(spec.patient, stem)
    except re.error as error:
        raise DatasetError(f"{pattern} is not a regular expression ({in_words(error)})") from error
    if not match:
        raise DatasetError(f"{pattern} does not match {stem!r}")
    if not match.groups() or match[1] is None:
        raise DatasetError(f"{pattern} has no group that names the patient of {stem!r}; expected (...) around it")
    return match[1]


def few(images: Sequence[Annotated], shots: int, seed: int) -> list[Annotated]:
    """Return *shots* of the *images*, of as many patients as possible, drawn by *seed*; in their old order.

    Raises
    ------
    DatasetError
        When there are fewer.
    """
    if shots > len(images):
        raise DatasetError(
            f"--shots {shots}: the training split holds {len(images)} images; expected at most that many"
        )
    rng = np.random.default_rng((seed, shots))
    shuffled = [images[i] for i in rng.permutation(len(images))]
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int, str]] = []
    for item in shuffled:
        turn[item.patient] = turn.get(item.patient, -1) + 1
        ranked.append((turn[item.patient], len(ranked), item.name))
    chosen = {name for _, _, name in sorted(ranked)[:shots]}
    return [item for item in images if item.name in chosen]
