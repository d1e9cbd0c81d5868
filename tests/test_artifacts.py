"""Outputs appear whole or not at all."""

from __future__ import annotations

import enum
import json
import math
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from wsipipe import artifacts
from wsipipe.artifacts import digest, from_json, write_json
from wsipipe.errors import OutputError, TileReadError
from wsipipe.runs import atomic_folder

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def test_new_file_appears_with_its_content_and_nothing_else(tmp_path: Path) -> None:
    with artifacts.atomic_write(tmp_path / "a.bin") as file:
        file.write(b"123")
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"123"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_text_has_unix_line_ends(tmp_path: Path) -> None:
    with artifacts.atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("µ\n")
    assert (tmp_path / "a.txt").read_bytes() == "µ\n".encode()


def test_failure_keeps_the_old_output_and_its_error(tmp_path: Path) -> None:
    out = tmp_path / "a.txt"
    out.write_text("old")
    with pytest.raises(ZeroDivisionError), artifacts.atomic_write(out, "w") as file:
        file.write("new")
        raise ZeroDivisionError
    assert out.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_errors_of_reading_are_not_taken_for_errors_of_writing(tmp_path: Path) -> None:
    with pytest.raises(TileReadError), artifacts.atomic_write(tmp_path / "a"):
        raise TileReadError("tile")
    with pytest.raises(FileNotFoundError), artifacts.atomic_write(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()
    assert os.listdir(tmp_path) == []


def test_permissions_of_a_replaced_file_and_links_are_kept(tmp_path: Path) -> None:
    out, link = tmp_path / "a", tmp_path / "link"
    out.write_text("old")
    out.chmod(0o640)
    link.symlink_to(out)
    with artifacts.atomic_write(link, "w") as file:
        file.write("new")
    assert link.is_symlink()
    assert out.read_text() == "new"
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("file/a.json", "a file where a folder is expected"),
        ("file/deep/a.json", "a file where a folder is expected"),
        ("folder", "give the name of a file"),
        ("x" * 300, "the file name is too long"),
    ],
)
def test_impossible_targets_are_refused_in_one_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for attempt in (artifacts.check_writable, lambda path: artifacts.write_json(path, {})):
        with pytest.raises(OutputError, match="cannot write") as caught:
            attempt(tmp_path / name)
        message = str(caught.value)
        assert says in message
        assert name in message
        assert "\n" not in message
        assert "Errno" not in message


def test_folders_above_an_output_are_made_when_it_is_written_and_not_before(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out.json"
    artifacts.check_writable(out)
    assert not any(tmp_path.iterdir())
    artifacts.write_json(out, {})
    assert out.read_text().startswith("{")
    with atomic_folder(tmp_path / "c" / "d.zarr") as folder:
        (folder / "zarr.json").touch()
    assert (tmp_path / "c" / "d.zarr" / "zarr.json").exists()
    with pytest.raises(OutputError, match="the file name is too long"):
        artifacts.check_writable(tmp_path / ("x" * 300) / "a.json")


@needs_permissions
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="no permission"):
        artifacts.check_writable(tmp_path / "a")


@needs_permissions
def test_write_protected_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").touch(0o444)
    with pytest.raises(OutputError, match="write-protected"):
        artifacts.check_writable(tmp_path / "a")


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    artifacts.check_writable(tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip("may not mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(tiny_disk: Path) -> None:
    out = tiny_disk / "a.bin"
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match="the disk is full"), artifacts.atomic_write(out) as file:
        file.write(os.urandom(1 << 20))
    assert out.read_bytes() == b"old"
    assert os.listdir(tiny_disk) == ["a.bin"]


def test_file_size_limit(tmp_path: Path) -> None:
    """As a full disk, where nothing can be mounted."""
    out = tmp_path / "a.bin"
    out.write_bytes(b"old")
    script = (
        "import resource, signal, sys\n"
        "from wsipipe import artifacts\n"
        "from wsipipe.errors import OutputError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try:\n"
        "    with artifacts.atomic_write(sys.argv[1]) as file:\n"
        "        file.write(bytes(1 << 20))\n"
        "except OutputError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {out}: the file would exceed the size limit of this file system or process\n"
    assert out.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Thing:
    sides: tuple[float, float]
    colour: Colour
    path: Path


def test_digest_is_of_content_not_of_form() -> None:
    thing = Thing((1.0, 2.5), Colour.RED, Path("a/b"))
    same = {"path": "a/b", "colour": "red", "sides": [1, np.float64(2.5)]}
    assert artifacts.digest(thing) == artifacts.digest(same)
    assert artifacts.digest(thing) != artifacts.digest(same | {"sides": [1, 2.6]})
    assert artifacts.digest({"a": True}) != artifacts.digest({"a": 1})


def test_digest_does_not_change_between_versions() -> None:
    assert artifacts.canonical_json({"b": [1.0, 0.1], "a": "µ"}) == '{"a":"µ","b":[1,0.1]}'.encode()
    assert artifacts.digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_plain_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="object has no place in JSON"):
        artifacts.plain(object())


def test_json_is_strict(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {"a": math.nan, "b": -math.inf, "c": np.arange(2), 3: {"y", "x"}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": "NaN", "b": "-Infinity", "c": [0, 1], "3": ["x", "y"]}
    assert text.endswith("}\n")


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "[-Infinity]", "9" * 5000, "", b"\xff"])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        from_json(text)


def test_file_names_that_are_not_utf8_survive_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"name": name})
    assert from_json((tmp_path / "a.json").read_text("utf-8")) == {"name": name}
    assert len(digest(name)) == 64
