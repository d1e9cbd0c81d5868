"""Writing a corpus, shard by shard; a run that was killed goes on after the last finished shard.

Patches come in one fixed order. A full shard is written whole by one writer, flushed, and only then entered in a
journal with what is needed to go on: its patches, and where in the order it ended. So an interrupted run loses no more
than the shard in flight, and ends with the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsipipe.artifacts import digest
from wsipipe.corpus.codec import array_options
from wsipipe.corpus.read import ATTRIBUTE, SCHEMA, read_about
from wsipipe.corpus.table import Columns, Patch, write_table
from wsipipe.errors import OutputError
from wsipipe.runs.folder import publish
from wsipipe.runs.work import JOURNAL, KEY, Work, flush

Pixels = NDArray[np.uint8]


@dataclass
class State:
    """Where a run stands after its last whole shard.

    Attributes
    ----------
    patches : list of Patch
        All that are stored.
    position : (int, int)
        Number of the slide, and of its candidate, to go on with.
    notes : dict
        What was counted so far, by slide.
    """

    patches: list[Patch] = field(default_factory=list)
    position: tuple[int, int] = (0, 0)
    notes: dict[int, Any] = field(default_factory=dict)


class CorpusWriter:
    """Writes the patches of one corpus in order.

    Parameters
    ----------
    work : Path
        Folder in the making; continued when it is of the same *identity*, else emptied.
    identity : str
        Digest of everything that determines the content.
    patch, shard : int
        Side of a patch, and patches per shard.
    codec : str
    """

    def __init__(self, work: Path, identity: str, patch: int, shard: int, codec: str) -> None:
        self.work, self.shard, self._shape = work, shard, (patch, patch, 3)
        self._run = Work(work, identity)
        self.state = _state(self._run.notes())
        if not self._run.resumed:
            _create(work, identity, self._shape, shard, codec)
            self._run.begin()
        self._array: Any = zarr.open_array(work / "patches", mode="r+")
        self._stored = len(self.state.patches)
        self._buffer: list[Pixels] = []

    def __len__(self) -> int:
        return len(self.state.patches)

    def append(self, patch: Patch, pixels: Pixels) -> bool:
        """Take in one patch, uint8 (side, side, 3); return whether a shard is full: :meth:`commit` must follow."""
        self.state.patches.append(patch)
        self._buffer.append(pixels)
        return len(self._buffer) == self.shard

    def pixels(self, index: int) -> Pixels:
        """Return the pixels of a patch that was taken in."""
        if index >= self._stored:
            return self._buffer[index - self._stored]
        return np.asarray(self._array[index])

    def commit(self, position: tuple[int, int], notes: Mapping[int, Any]) -> None:
        """Write what was taken in as one shard, and note where to go on and what was counted."""
        first, last = self._stored, len(self.state.patches)
        if first < last:
            self._array.resize((last, *self._shape))
            shard = self.work / f"patches/c/{first // self.shard}/0/0/0"
            shard.unlink(missing_ok=True)  # what a killed run left there is not to be read and completed
            self._array[first:last] = np.stack(self._buffer)
            flush(shard)
        rows = [list(patch) for patch in self.state.patches[first:]]
        entry = {"first": first, "patches": rows, "position": list(position), "notes": list(notes.items())}
        self._run.note(entry)
        self._stored, self._buffer = last, []
        self.state.position = position

    def finish(self, about: Mapping[str, Any], tables: Mapping[str, Columns]) -> None:
        """Write the *tables* and the attributes: the corpus is complete, and :func:`publish_corpus` must follow.

        Raises
        ------
        OSError
        """
        for name, columns in tables.items():
            shutil.rmtree(self.work / name, ignore_errors=True)
            write_table(self.work / name, columns)
        pixels = [patch.pixels for patch in self.state.patches]
        whole = {**about, "schema": SCHEMA, "complete": True}
        whole["fingerprint"] = digest({"about": about, "tables": tables, "pixels": pixels})
        zarr.open_group(self.work, mode="r+").update_attributes({ATTRIBUTE: whole})


def publish_corpus(work: Path, target: Path) -> None:
    """Give a complete corpus its name; what stood there goes only then."""
    for name in (KEY, JOURNAL):
        (work / name).unlink(missing_ok=True)
    publish(work, target)


def stands(target: Path, identity: str) -> bool:
    """Whether *target* is the complete corpus of that *identity*; refuses a path that something else occupies."""
    about = read_about(target)
    if target.exists() and not about:
        raise OutputError(f"cannot write {target}: something that is not a corpus is there; give another name")
    return bool(about) and about.get("identity") == identity and bool(about["complete"])


def _state(shards: Iterable[Mapping[str, Any]]) -> State:
    """Return where the run stands whose journal has these *shards*."""
    state = State()
    for shard in shards:
        state.patches += [Patch(*row) for row in shard["patches"]]
        state.position = shard["position"][0], shard["position"][1]
        state.notes.update((int(key), note) for key, note in shard["notes"])
    return state


def _create(work: Path, identity: str, shape: tuple[int, int, int], shard: int, codec: str) -> None:
    """Write an empty array of patches; the attributes come last, so that half a folder is not resumed."""
    zarr.create_array(
        work / "patches",
        shape=(0, *shape),
        chunks=(1, *shape),
        shards=(shard, *shape),
        dtype="uint8",
        dimension_names=("patch", "y", "x", "colour"),
        **array_options(codec),
    )
    zarr.create_group(work / "features")
    attributes = {ATTRIBUTE: {"schema": SCHEMA, "identity": identity, "complete": False}}
    zarr.create_group(work, attributes=attributes)
