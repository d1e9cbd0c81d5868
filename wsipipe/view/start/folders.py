"""What may be seen of this machine's folders: those that the page was started with, and what is below them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsipipe.errors import SettingsError, SlideNotFound
from wsipipe.slide.suffixes import PICTURES

MOST = 2000
"""Entries of a folder that are shown."""
SEARCHED = 20_000
"""Files that are looked at for one that was dropped onto the page."""


class Folders:
    """The folders that may be listed.

    Parameters
    ----------
    roots : sequence of Path
        Nothing outside them is ever told of, links that lead out of them neither.
    suffixes : sequence of str
        Endings of slides.
    """

    def __init__(self, roots: Sequence[Path], suffixes: Sequence[str]) -> None:
        self.roots = tuple(dict.fromkeys(Path(os.path.realpath(root)) for root in roots))
        self._suffixes = tuple(suffixes)

    def inside(self, path: str) -> Path:
        """Return *path* with links followed.

        Raises
        ------
        SettingsError
            When it is not below one of the roots.
        SlideNotFound
            When there is nothing there.
        """
        if "\0" in path or not path:
            raise SettingsError(f"{path!r} is no path")
        found = Path(os.path.realpath(path))
        if not any(found == root or found.is_relative_to(root) for root in self.roots):
            shown = ", ".join(map(str, self.roots))
            raise SettingsError(f"{path} is not below {shown}; start wsipipe app with that folder too")
        if not found.exists():
            raise SlideNotFound(f"no such file or folder: {path}")
        return found

    def listing(self, path: str) -> dict[str, Any]:
        """Return folders and slides in a folder, by name, and the way up to its root."""
        folder = self.inside(path or str(self.roots[0]))
        if not folder.is_dir():
            folder = folder.parent
        try:
            found = sorted(os.scandir(folder), key=lambda e: e.name.casefold())
        except OSError as error:
            raise SettingsError(f"{folder} cannot be listed: {error.strerror}") from error
        entries = [shown for entry in found[:MOST] if (shown := self._shown(entry)) is not None]
        entries.sort(key=lambda e: not e["folder"])
        above = [p for p in (folder, *folder.parents) if any(p == r or p.is_relative_to(r) for r in self.roots)]
        crumbs = [{"path": str(p), "name": p.name or str(p)} for p in reversed(above)]
        return {"path": str(folder), "crumbs": crumbs, "entries": entries, "more": max(0, len(found) - MOST)}

    def _shown(self, entry: os.DirEntry[str]) -> dict[str, Any] | None:
        """Return what is told of an entry, None when it is hidden, neither folder nor slide, or leads outside."""
        if entry.name.startswith("."):
            return None
        try:
            self.inside(entry.path)
            folder, size = entry.is_dir(), entry.stat().st_size
        except (OSError, SettingsError, SlideNotFound):
            return None
        if not folder and not self._is_slide(entry.name):
            return None
        return {"name": entry.name, "path": entry.path, "folder": folder, "size": 0 if folder else size}

    def _is_slide(self, name: str) -> bool:
        return name.lower().endswith((*self._suffixes, *PICTURES))

    def find(self, name: str, size: int) -> str | None:
        """Return the path of a slide of this name and size below the roots: what a browser tells of a dropped file."""
        looked = 0
        for root in self.roots:
            for folder, _, files in os.walk(root):
                looked += len(files)
                path = os.path.join(folder, name)
                if name in files and self._is_slide(name) and os.stat(path).st_size == size:
                    return path
                if looked > SEARCHED:
                    return None
        return None
