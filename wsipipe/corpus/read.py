"""Reading a corpus: patches by number, the table that describes them, features cached beside them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from wsipipe.artifacts import digest, from_json
from wsipipe.corpus import codec
from wsipipe.corpus.table import read_table
from wsipipe.errors import FAILURES, SettingsError, StoreError, in_words
from wsipipe.runs import flush, publish
from wsipipe.store.write import writing

SCHEMA = 1
ATTRIBUTE = "wsipipe_corpus"
SPLITS = ("train", "val", "test")
COLUMNS = ("slide", "patient", "organ", "x_base", "y_base", "mpp", "split", "hash")
"""What the table tells of every patch."""

assert codec  # importing it makes its compression known to zarr


class Corpus:
    """An open corpus. May be shared by threads; a pickled copy opens the store again.

    Attributes
    ----------
    path : Path
    about : dict
        What the store says of itself: settings, counts, fingerprint.
    patch : int
        Side of a patch in pixels.
    fingerprint : str
        SHA-256 (hex) of the patches' pixels, their order and the settings.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(path))
        self.about = checked_about(self.path)
        with whole_corpus(self.path):
            self.patch = int(self.about["settings"]["patch"])
            self.fingerprint = str(self.about["fingerprint"])
            self._open()

    def _open(self) -> None:
        self._patches: Any = zarr.open_array(self.path / "patches", mode="r")
        wanted = (self.patch, self.patch, 3)
        if self._patches.shape[1:] != wanted or self._patches.dtype != np.uint8:
            raise ValueError(f"its patches are {self._patches.dtype} {self._patches.shape[1:]}, not uint8 {wanted}")

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key not in ("_patches", "table", "slides", "excluded")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return int(self._patches.shape[0])

    @cached_property
    def table(self) -> pa.Table:
        """Slide, patient, organ, x_base and y_base (base pixels), mpp, split and hash of every patch."""
        with whole_corpus(self.path):
            found = read_table(self.path / "table")
            if found.num_rows != len(self) or not set(COLUMNS) <= set(found.column_names):
                raise ValueError(f"its table has {found.num_rows} rows of {', '.join(found.column_names)}")
            return found

    @cached_property
    def slides(self) -> pa.Table:
        """Slide, patient, organ, split, mpp, patches kept, dropped by reason, and failure of every slide."""
        with whole_corpus(self.path):
            return read_table(self.path / "slides")

    @cached_property
    def excluded(self) -> pa.Table:
        """Slide, x_base, y_base, image, overlap and correlation of the patches that show part of a test image."""
        with whole_corpus(self.path):
            return read_table(self.path / "excluded")

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the numbers of the patches of *split* (train, val, test or all), ascending, int64 (n,).

        Raises
        ------
        SettingsError
            When there is no such split.
        """
        if split == "all":
            return np.arange(len(self), dtype=np.int64)
        if split not in SPLITS:
            raise SettingsError(f"split is {split!r}; expected one of {', '.join(SPLITS)} or all")
        return np.flatnonzero(np.asarray(self.table["split"]) == split).astype(np.int64)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels of a patch, uint8 (side, side, 3), RGB.

        Raises
        ------
        StoreError
            When its pixels are damaged, or gone: Zarr reads a missing file as zeros, and no tissue is all black.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path} has no patch {index}; expected 0 to {len(self) - 1}")
        with whole_corpus(self.path):
            pixels = np.asarray(self._patches[index])
        if not pixels.any():
            raise StoreError(f"{self.path}: the pixels of patch {index} are gone; was it moved, or built again?")
        return pixels

    def features(self, name: str) -> NDArray[np.float32] | None:
        """Return the features cached under *name*, float32 (n, width), or None when there are none."""
        folder = self.path / "features" / _folder(name)
        if not (folder / "zarr.json").exists():
            return None
        with whole_corpus(self.path):
            return np.asarray(zarr.open_array(folder, mode="r"))

    def add_features(self, name: str, array: NDArray[np.float32]) -> None:
        """Keep one row of features per patch in the store, under *name*: whole, or not at all.

        Features that stood there under the same name are replaced. The fingerprint does not change.

        Raises
        ------
        SettingsError
            When *array* is not float32 (n, width) with a row per patch.
        OutputError
            When the store cannot be written.
        """
        array = np.asarray(array)
        if array.ndim != 2 or len(array) != len(self) or array.dtype != np.float32:
            raise SettingsError(
                f"features are {array.dtype} {array.shape}; expected float32 ({len(self)}, width), a row per patch"
            )
        folder = self.path / "features" / _folder(name)
        work = folder.with_name(f".{folder.name}.{os.getpid()}.work")
        with writing(folder):
            shutil.rmtree(work, ignore_errors=True)
            rows = max(1, min(len(array), (1 << 24) // max(1, 4 * array.shape[1])))
            zarr.create_array(work, data=array, chunks=(rows, array.shape[1]), attributes={"name": name})
            for file in work.rglob("*"):
                flush(file) if file.is_file() else None
            publish(work, folder)


@contextlib.contextmanager
def whole_corpus(path: Path) -> Iterator[None]:
    """Turn what reading a damaged corpus raises into one line.

    Raises
    ------
    StoreError
    """
    try:
        yield
    except StoreError:
        raise
    except FAILURES as error:
        raise StoreError(
            f"{path}: the corpus is damaged ({in_words(error)}); copy it again, or make it again with "
            "`wsipipe build-corpus`"
        ) from error


def open_corpus(path: str | Path) -> Corpus:
    """Return the corpus at *path*.

    Raises
    ------
    StoreError
        When it is not a complete corpus of this version's schema.
    """
    return Corpus(path)


def is_corpus(path: str | Path) -> bool:
    """Whether *path* is a folder with the attributes of a corpus (complete or not)."""
    return bool(read_about(Path(path)))


def checked_about(path: Path) -> dict[str, Any]:
    """Return the attributes of a complete corpus at *path*."""
    about = read_about(path)
    if not about:
        raise StoreError(f"{path}: not a corpus; expected a folder made by `wsipipe build-corpus`")
    if about.get("schema") != SCHEMA:
        raise StoreError(f"{path}: schema {about['schema']} is not known here; expected {SCHEMA}: build it again")
    if not about.get("complete"):
        raise StoreError(f"{path}: unfinished; run the same `wsipipe build-corpus` command again to complete it")
    return about


def read_about(path: Path) -> dict[str, Any]:
    """Return what a corpus says of itself, {} when *path* is not one."""
    try:
        about = from_json((path / "zarr.json").read_text(encoding="utf-8"))["attributes"][ATTRIBUTE]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return about if isinstance(about, dict) and "schema" in about else {}


def _folder(name: str) -> str:
    """Return a folder's name for features called *name*, which may hold any character."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name)[:80] + "-" + digest(name)[:8]
