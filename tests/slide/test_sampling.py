"""Fingerprints follow the content of a slide, not its place or age."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from wsipipe.errors import SlideNotFound
from wsipipe.slide import fingerprint

LARGE = np.random.default_rng(0).integers(0, 255, 3_000_000, np.uint8).tobytes()


def test_copies_are_equal(tmp_path: Path, lossless: Path) -> None:
    copy = tmp_path / "other name.svs"
    shutil.copy(lossless, copy)
    os.utime(copy, (0, 0))
    assert fingerprint(copy) == fingerprint(lossless) == fingerprint(str(lossless))
    assert len(fingerprint(copy)) == 64


def test_urls_and_paths_agree(lossless: Path) -> None:
    assert fingerprint(lossless.as_uri()) == fingerprint(lossless)


@pytest.mark.parametrize("change", ["head", "tail", "size", "spread"])
def test_differences_show(tmp_path: Path, change: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(LARGE)
    data = bytearray(LARGE)
    if change == "size":
        data += b"x"
    elif change == "spread":
        data[200_000:-200_000] = bytes(len(data) - 400_000)
    else:
        data[10 if change == "head" else -10] ^= 255
    second.write_bytes(bytes(data))
    assert fingerprint(first) != fingerprint(second)


def test_the_first_directory_of_a_tiff_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.tif", tmp_path / "b.tif"
    data = bytearray(LARGE)
    data[:8] = b"II*\0" + (1_234_567).to_bytes(4, "little")
    first.write_bytes(bytes(data))
    data[1_240_000] ^= 255
    second.write_bytes(bytes(data))
    assert fingerprint(first) != fingerprint(second)


def test_folders(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for name in ("b.dcm", "a.dcm"):
            (tmp_path / folder / name).write_bytes(name.encode() * 50)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "two")
    (tmp_path / "two" / "a.dcm").rename(tmp_path / "two" / "c.dcm")
    assert fingerprint(tmp_path / "one") != fingerprint(tmp_path / "two")


def test_the_data_folder_of_mirax_counts(tmp_path: Path) -> None:
    (tmp_path / "s.mrxs").write_bytes(b"index")
    alone = fingerprint(tmp_path / "s.mrxs")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "Data0000.dat").write_bytes(b"pixels")
    assert fingerprint(tmp_path / "s.mrxs") != alone


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(SlideNotFound, match="no such slide"):
        fingerprint(tmp_path / "nothing.svs")
