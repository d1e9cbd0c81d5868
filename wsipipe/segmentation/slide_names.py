"""What the results of slides are called: by their paths below a folder, without endings."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from wsipipe.artifacts.plain import readable
from wsipipe.errors import SettingsError

ENDINGS = (".ome.tiff", ".ome.tif", ".ome.btf")
"""Double endings that belong to the format, not to the name."""


def absolute(source: str) -> str:
    """Return the path of a slide from the root of the file system; an address as it is."""
    return source if "://" in source else os.path.abspath(source)


def names_of(paths: Sequence[str], root: str) -> dict[str, str]:
    """Return a name for each of the absolute *paths*: its path below the root, without ending where that is unique.

    Bytes that are not UTF-8 are written out: few libraries write files of such names.

    Raises
    ------
    SettingsError
        When a path has no name, such as ``/``, or is not below *root*.
    """
    parts = {path: PurePosixPath(path.split("://", 1)[-1].replace(os.sep, "/")) for path in paths}
    top = PurePosixPath(os.path.abspath(root).replace(os.sep, "/")) if root else _common(parts.values())
    for path, part in parts.items():
        if not part.name:
            raise SettingsError(f"{path} names no file; expected a slide")
        if not part.is_relative_to(top):
            raise SettingsError(f"{path} is not below --root {root}")
    below = {path: part.relative_to(top) if part != top else PurePosixPath(part.name) for path, part in parts.items()}
    short = {path: str(part.with_name(_stem(part.name))) for path, part in below.items()}
    count = Counter(name.casefold() for name in short.values())
    named = {path: name if count[name.casefold()] == 1 else str(below[path]) for path, name in short.items()}
    return {path: readable(name) for path, name in named.items()}


def _common(paths: Iterable[PurePosixPath]) -> PurePosixPath:
    """Return the deepest folder that all *paths* are in."""
    folders = [path.parent.parts for path in paths]
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return PurePosixPath(*folders[0][:shared]) if folders else PurePosixPath()


def _stem(name: str) -> str:
    """Return a file's name without its ending."""
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), PurePosixPath(name).suffix)
    return name[: len(name) - len(ending)] or name
