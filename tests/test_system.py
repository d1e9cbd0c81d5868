"""What differs between systems: the ways of Windows, with those of POSIX taken away."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Phantom
from wsipipe.artifacts import atomic_write, system
from wsipipe.runs import acquire, publish
from wsipipe.runs import folder as folder_of_runs
from wsipipe.schedule.resources import allowed_memory, free_memory


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS", True)


@pytest.mark.parametrize("way", ["at once", "one after the other"])
def test_a_folder_takes_the_place_of_another(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if way != "at once":  # as under Windows, and on some file servers
        monkeypatch.setattr(system, "WINDOWS", True)
    system._exchanger.cache_clear()
    new, old = tmp_path / "new", tmp_path / "out"
    for folder, text in ((new, "new"), (old, "old")):
        folder.mkdir()
        (folder / "a").write_text(text)
    publish(new, old)
    system._exchanger.cache_clear()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (old / "a").read_text() == "new"


def test_a_folder_whose_successor_cannot_be_renamed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_of_runs, "exchange", lambda one, other: False)
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "nothing", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "out").rename(tmp_path / ".out.old")  # as a kill between two renames leaves it
    with acquire(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()


def test_files_are_flushed_as_the_system_wants_it(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    really = os.open
    monkeypatch.setattr(
        os, "open", lambda path, flags, *a: asked.append((Path(path), flags)) or really(path, flags, *a)
    )
    with atomic_write(tmp_path / "a.txt", "w") as file:
        file.write("a")
    assert (tmp_path / "a.txt").read_text() == "a"
    assert tmp_path not in [path for path, _ in asked], "Windows opens no folder"
    assert all(flags & (os.O_WRONLY | os.O_RDWR) for _, flags in asked), "Windows flushes nothing opened for reading"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EPERM])
def test_a_lease_without_hard_links(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    assert not system.link(tmp_path, tmp_path / "b")
    with acquire(tmp_path / "cells.parquet") as lease:
        assert lease.file.exists()
    monkeypatch.delattr(os, "link")
    assert not system.link(tmp_path, tmp_path / "b")


def test_a_file_that_a_scanner_has_open_is_replaced_a_moment_later(
    windows: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    really, tries = os.replace, []

    def busy(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "used by another process")
        really(source, target)

    monkeypatch.setattr(os, "replace", busy)
    system.replace(tmp_path / "new", tmp_path / "old")
    assert len(tries) == 3 and (tmp_path / "old").read_text() == "new"


def test_a_file_that_stays_open_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise PermissionError(errno.EACCES, "used by another process")

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(system, "PATIENCE", 0.1)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(system, "WINDOWS", True)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")


def test_processes_and_memory_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self, **_: (_ for _ in ()).throw(FileNotFoundError(str(self))))
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    mine = system.began(os.getpid())
    assert mine is not None and float(mine) < time.time() and mine == system.began(os.getpid())
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert system.began(done.pid) is None
    total, free = system.memory()
    assert total >= free > 0
    assert allowed_memory(tmp_path) == total and 0 < free_memory(tmp_path) <= total


def test_commands_are_quoted_for_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["segment", r"C:\my slides\a.svs"]
    assert system.shell_line(words) == r"segment 'C:\my slides\a.svs'"
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.shell_line(words) == r'segment "C:\my slides\a.svs"'


def test_processes_begin_without_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.start_method() == "forkserver" or sys.platform == "win32"
    monkeypatch.setattr(system.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert system.start_method() == "spawn"


def test_a_private_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(system.tempfile, "tempdir", str(tmp_path))
    mine = system.private_folder()
    assert mine == system.private_folder() and Path(mine).stat().st_mode & 0o077 == 0
    os.chmod(mine, 0o755)
    assert system.private_folder() != mine, "one that others can write to is not used"
    monkeypatch.delattr(os, "getuid")
    monkeypatch.setenv("USERNAME", "doctor")
    assert system.private_folder() == str(tmp_path / "wsipipe-doctor")


def test_a_child_stops_when_it_is_asked_to() -> None:
    code = "import time\ntry:\n    print('on', flush=True); time.sleep(60)\nexcept KeyboardInterrupt:\n    print('off')"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **system.child_options())
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    system.ask_to_stop(child)
    assert child.communicate(timeout=30)[0] == "off\n"
    system.ask_to_stop(child)  # it is gone: nothing happens


def test_windows_asks_by_ctrl_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "WINDOWS", True)
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    sent = []

    class Child:
        def send_signal(self, number: int) -> None:
            sent.append(number)

    system.ask_to_stop(Child())  # type: ignore[arg-type]
    assert sent == [1] and system.child_options() == {"creationflags": subprocess_new_group()}


def subprocess_new_group() -> int:
    """Return CREATE_NEW_PROCESS_GROUP, which Python names under Windows only."""
    return getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200)


def test_a_slide_is_segmented_without_anything_of_posix(phantom: Phantom, tmp_path: Path) -> None:
    """The whole way: leases, atomic files, scratch, one process; the bytes are those of an ordinary run."""
    options = ["--device", "cpu", "--bounds", "0,0,1024,768"]
    for module, name in (("tests.windows", "poor"), ("wsipipe", "rich")):
        command = [sys.executable, "-m", module, "segment", str(phantom.path), "-o", str(tmp_path / f"{name}.geojson")]
        done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "poor.geojson").read_bytes() == (tmp_path / "rich.geojson").read_bytes()
    store = [sys.executable, "-m", "tests.windows", "tile", str(phantom.path), "-o", str(tmp_path / "tiles.zarr")]
    done = subprocess.run(store, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing stays behind"


def test_only_one_module_asks_which_system_it_is() -> None:
    told = re.compile(
        r"^\s*(import|from) (fcntl|msvcrt|resource|pwd|termios)\b|os\.(getuid|sysconf|fork|link|fsync|mkfifo)\(|"
        r"os\.name\b|WNOHANG|SIGKILL|SIGHUP|os\.rename\(|os\.replace\(",
        re.MULTILINE,
    )
    here = {"system.py", "work.py", "geopackage.py"}  # flushing a file that is open; a rename within a folder
    found = {p.name for p in (ROOT / "wsipipe").rglob("*.py") if told.search(p.read_text(encoding="utf-8"))}
    assert found <= here
