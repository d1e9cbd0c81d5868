"""The folder of an unfinished run, and the journal of what is done."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsipipe.artifacts import atomic_write, from_json, short_name
from wsipipe.artifacts.system import flush_file
from wsipipe.runs.folder import publish

JOURNAL, KEY = "journal.jsonl", "run.key"


def work_of(output: Path) -> Path:
    """Return the folder of the unfinished run of *output*, beside it."""
    return output.with_name(f".{short_name(output.name)}.work")


class Work:
    """The folder of an unfinished run, which a run with the same key goes on with.

    Whoever holds one has claimed its output. Used in this order: made; filled with what is there from the start;
    :meth:`begin`; notes; :meth:`publish` or :meth:`remove`.

    Parameters
    ----------
    folder : Path
        Made when it is not there; emptied when it is of another *key*, or of a run that had not begun.
    key : str
        Digest of everything that determines the run.

    Attributes
    ----------
    resumed : bool
        Whether an earlier run of this key has left something.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        mark = folder / KEY
        self.resumed = mark.is_file() and mark.read_text(encoding="utf-8") == key
        if not self.resumed:
            folder.mkdir(parents=True, exist_ok=True)
            mark.unlink(missing_ok=True)  # first: half of the rest must not be taken for that run
            for entry in folder.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()

    def begin(self) -> None:
        """Say that the folder is ready: from now on it can be gone on with."""
        with atomic_write(self.folder / KEY, "w") as file:
            file.write(self.key)

    def note(self, entry: Mapping[str, Any]) -> None:
        """Append *entry* to the journal, on disk before this returns."""
        with (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def notes(self) -> list[dict[str, Any]]:
        """Return the entries of the journal; a line cut short by a crash ends them, and is removed."""
        path, entries, kept = self.folder / JOURNAL, list[dict[str, Any]](), 0
        if not path.exists():
            return entries
        for line in path.read_bytes().splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                if line.endswith(b"\n"):
                    entries.append(from_json(line))
                    kept += len(line)
                    continue
            break
        os.truncate(path, kept)
        return entries

    def publish(self, target: Path) -> None:
        """Give the folder, without key and journal, the name *target*."""
        for name in (KEY, JOURNAL):
            (self.folder / name).unlink(missing_ok=True)
        publish(self.folder, target)

    def remove(self) -> None:
        """Remove the folder: its run is over."""
        (self.folder / KEY).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def forget(folder: Path, key: str) -> None:
    """Remove what a killed run of *key*, whose result is there, has left of its folder; another run's stays."""
    mark = folder / KEY
    if not mark.is_file() or mark.read_text(encoding="utf-8") == key:
        shutil.rmtree(folder, ignore_errors=True)


def flush(file: Path) -> None:
    """Have *file* on disk before the journal says so; a shard of nothing but fill has no file."""
    if file.exists():
        flush_file(file)
