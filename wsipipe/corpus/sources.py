"""What a corpus is made from: slides and pictures, named one by one, by folder, or in a CSV."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wsipipe.artifacts.plain import readable, refuse_special
from wsipipe.errors import DatasetError, SlideError, in_words
from wsipipe.slide import fingerprint
from wsipipe.slide.discover import goes_round
from wsipipe.slide.opening import is_url
from wsipipe.slide.suffixes import PICTURES, SLIDES

TAKEN = (*SLIDES, *PICTURES, ".webp")
"""Endings of what a folder is searched for."""
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """One slide or picture.

    Attributes
    ----------
    path : str
    name : str
        What the corpus calls it: the path as far as it was given, without what is particular to a machine.
    mpp : float or None
        Resolution of level 0 in µm/px, in place of what the file says.
    patient, organ : str
        Empty: not said.
    """

    path: str
    name: str
    mpp: float | None = None
    patient: str = ""
    organ: str = ""


def identity_of(source: Source) -> Mapping[str, Any]:
    """Return what identifies a slide: all but where it lies; a file that cannot be read is reported in its turn."""
    said = {"name": source.name, "mpp": source.mpp, "patient": source.patient, "organ": source.organ}
    try:
        return {**said, "file": fingerprint(source.path)}
    except SlideError:
        return {**said, "file": ""}


@dataclass(frozen=True)
class Naming:
    """How patient and organ are read from a file's name, where a CSV does not say them.

    Attributes
    ----------
    patient : str
        Regular expression whose first group, matched at the start of the file's name without suffix, is the patient;
        empty: every file is a patient of its own.
    organ : str
        The same for the organ; unknown where it is empty or does not match.
    """

    patient: str = ""
    organ: str = ""


def find_sources(inputs: Iterable[str | Path], root: Path | None = None, naming: Naming | None = None) -> list[Source]:
    """Return all slides and pictures that *inputs* name, in the order of their names, each file once.

    Parameters
    ----------
    inputs : paths
        Slides, pictures, folders (searched to any depth), or CSV files with the columns path, mpp, organ, patient, of
        which only ``path`` is required: a file, a folder, or a pattern such as ``set/*_test.png``.
    root : Path, optional
        Folder that the paths in a CSV start from; by default the CSV's own.
    naming : Naming, optional

    Raises
    ------
    DatasetError
        An input names nothing, a CSV lacks the column, or a pattern does not match a name.
    """
    found: dict[str, Source] = {}
    for given in map(str, inputs):
        for source in _expand(given, root):
            found.setdefault(_identity(source.path), source)
    named = _distinct(list(found.values()))
    return sorted((_described(source, naming or Naming()) for source in named), key=lambda source: source.name)


def _expand(given: str, root: Path | None) -> Iterator[Source]:
    if is_url(given):
        yield Source(given, given)
    elif given.lower().endswith(".csv"):
        yield from _read_csv(Path(given), root)
    elif not os.path.exists(given):
        raise DatasetError(f"{given}: no such file or folder; expected slides, pictures, folders, or a CSV")
    else:
        yield from _files(Path(given), Path(os.path.abspath(given)).parent)


def _files(path: Path, base: Path) -> Iterator[Source]:
    """Yield the file at *path*, or the slides and pictures below it; names are relative to *base*."""
    absolute = Path(os.path.abspath(path))
    if not path.is_dir() or _is_slide_folder(path):
        yield Source(str(path), readable(absolute.relative_to(base).as_posix()))
        return
    found = list(_walk(path, path))
    if not found:
        raise DatasetError(f"{path}: no slide or picture in this folder; expected files such as .svs, .tiff, .png")
    for file in found:
        yield Source(str(file), readable(Path(os.path.abspath(file)).relative_to(base).as_posix()))


def _walk(folder: Path, top: Path) -> Iterator[Path]:
    """Yield slides and pictures below *folder*, in the order of their names; hidden ones are left out.

    Links that lead back to a folder between it and *top* are not followed.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if entry.name.lower().endswith(TAKEN):
                yield entry
        elif _is_slide_folder(entry):
            yield entry
        elif entry.with_suffix(".mrxs").is_file() or (entry / "zarr.json").exists() or goes_round(entry, top):
            continue
        else:
            yield from _walk(entry, top)


def _is_slide_folder(path: Path) -> bool:
    """Whether *path* is a folder of DICOM instances, which together are one slide."""
    return any(entry.suffix.lower() == ".dcm" for entry in path.iterdir())


def _read_csv(path: Path, root: Path | None) -> Iterator[Source]:
    try:
        refuse_special(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows, columns = list(reader), [name.strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path}: not a readable CSV ({in_words(error)}); expected UTF-8 text with a header"
        ) from error
    if "path" not in columns:
        found = ", ".join(columns) or "none"
        raise DatasetError(f"{path}: no column 'path' among {found}; mpp, organ and patient may stand beside it")
    if not rows:
        raise DatasetError(f"{path}: no row below the header; expected one per slide")
    base = root or path.parent
    for number, row in enumerate(rows, 2):
        said = {str(key).strip(): str(value or "").strip() for key, value in row.items()}
        yield from _row(said, base, f"{path}, line {number}")


def _row(said: Mapping[str, str], base: Path, where: str) -> Iterator[Source]:
    """Yield what one row of a CSV names."""
    if not said["path"]:
        raise DatasetError(f"{where}: the path is empty; expected a file, a folder, or a pattern")
    if "\0" in said["path"] or os.path.abspath(os.path.join(base, said["path"])) == os.path.abspath(os.sep):
        raise DatasetError(f"{where}: path is {said['path'][:60]!r}; expected a file, a folder, or a pattern")
    model = Source("", "", _mpp(said.get("mpp", ""), where), said.get("patient", ""), said.get("organ", ""))
    if is_url(said["path"]):
        yield replace(model, path=said["path"], name=said["path"])
        return
    whole = os.path.join(base, said["path"])
    paths = sorted(glob.glob(whole, recursive=True)) if glob.has_magic(said["path"]) else [whole]
    if not paths:
        raise DatasetError(f"{where}: nothing matches {said['path']!r} below {base}; --root names another folder")
    for path in map(Path, paths):
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(base))
        start = Path(os.path.abspath(base if inside else path.parent))
        named = _files(path, start) if path.exists() else [Source(str(path), said["path"])]
        yield from (replace(model, path=source.path, name=source.name) for source in named)


def _mpp(text: str, where: str) -> float | None:
    try:
        mpp = float(text) if text else None
    except ValueError:
        mpp = 0.0
    if mpp is not None and not 0 < mpp < float("inf"):
        raise DatasetError(f"{where}: mpp is {text!r}; expected a resolution in µm/px, or nothing")
    return mpp


def _identity(path: str) -> str:
    return path if is_url(path) else os.path.realpath(path)


def _distinct(sources: list[Source]) -> list[Source]:
    """Return *sources* with names that differ: those that share one get as many folders in front as it takes."""
    depth, names = 0, [source.name for source in sources]
    while twice := {name for name, count in Counter(names).items() if count > 1}:
        depth += 1
        names = [_tail(s, depth) if name in twice else name for s, name in zip(sources, names, strict=True)]
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def _tail(source: Source, depth: int) -> str:
    """Return the name of *source* with *depth* more folders of its path in front."""
    parts = Path(os.path.abspath(source.path)).parts
    return readable("/".join(parts[-min(len(parts), len(Path(source.name).parts) + depth) :]))


def _described(source: Source, naming: Naming) -> Source:
    """Return *source* with a patient and an organ."""
    stem = Path(source.name).stem
    patient, organ = source.patient, source.organ
    if not patient:
        patient = _group(naming.patient, stem, "--patient") if naming.patient else source.name
    if not organ:
        organ = _group(naming.organ, stem, "--organ") if naming.organ else UNKNOWN
    if not patient:
        raise DatasetError(f"--patient {naming.patient!r} does not match {stem!r}; a CSV can name its patient")
    return replace(source, patient=patient, organ=organ or UNKNOWN)


def _group(pattern: str, stem: str, option: str) -> str:
    """Return the first group of *pattern*, matched at the start of *stem*; empty where it does not match."""
    try:
        match = re.match(pattern, stem)
    except re.error as error:
        raise DatasetError(f"{option} {pattern!r} is not a regular expression ({in_words(error)})") from error
    if match and not match.groups():
        raise DatasetError(f"{option} {pattern!r} has no group; expected (...) around the name in {stem!r}")
    return (match[1] or "") if match else ""
