"""The command line before any work is done: help, errors, exit codes."""

from __future__ import annotations

import errno
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from wsipipe import __version__
from wsipipe.cli import main as cli_main
from wsipipe.cli.main import COMMANDS, Entry, main
from wsipipe.errors import MissingMpp, SettingsError, WsipipeError

HEAVY = ("torch", "dask", "distributed", "zarr", "numpy", "numba", "cv2", "shapely", "pandas", "pyarrow", "rich")
ROOT = Path(__file__).resolve().parents[1]


def run(*args: str, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line, or *code*, in a fresh interpreter."""
    command = [sys.executable, *(["-c", code] if code else ["-m", "wsipipe"]), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.mark.parametrize("args", [["--help"], ["--version"], [], ["sgment"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    code = (
        "import sys; from wsipipe.cli.main import main; main(sys.argv[1:]); "
        f"sys.exit(' '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)"
    )
    done = run(*args, code=code)
    assert done.returncode == 0, done.stderr


def test_import_loads_nothing_heavy() -> None:
    done = run(code=f"import sys, wsipipe; sys.exit(' '.join(m for m in {HEAVY!r} if m in sys.modules) or 0)")
    assert done.returncode == 0, done.stderr


def test_segment_waits_for_no_part_of_scipy_that_it_does_not_use() -> None:
    unused = "scipy.cluster", "scipy.optimize", "scipy.spatial", "scipy.sparse", "scipy.ndimage"
    code = f"import sys, wsipipe.segmentation.run; sys.exit(' '.join(m for m in {unused!r} if m in sys.modules) or 0)"
    done = run(code=code)
    assert done.returncode == 0, done.stderr


def test_help_teaches_the_main_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "wsipipe segment demo.tiff -o cells.geojson" in done.stdout
    assert "research use only" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)


def test_version() -> None:
    assert run("--version").stdout == f"wsipipe {__version__}\n"


def test_every_command_module_is_listed() -> None:
    files = set((ROOT / "wsipipe" / "cli").glob("*.py")) - {ROOT / "wsipipe" / "cli" / "main.py"}
    modules = {p.stem for p in files if re.search(r"^@(click\.)?(command|group)\(", p.read_text(), re.MULTILINE)}
    assert modules == {entry.target.split(":")[0].rsplit(".", 1)[1] for entry in COMMANDS.values()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: wsipipe {name}")
    assert out.splitlines()[2].strip()


@pytest.fixture
def raises(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes ``wsipipe fail`` raise a given error."""

    def install(error: BaseException) -> None:
        @click.command()
        def fail() -> None:
            raise error

        monkeypatch.setitem(COMMANDS, "fail", Entry("wsipipe.cli.main:fail", "Help", ""))
        monkeypatch.setattr(cli_main, "fail", fail, raising=False)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("overlap is 300"), 2),
        (MissingMpp("a.svs does not state its resolution"), 3),
        (WsipipeError("something\nover two lines"), 1),
        (OSError(errno.ENOSPC, "No space left on device", "cells.geojson"), 1),
        (MemoryError("Unable to allocate 3 GiB"), 1),
        (click.ClickException("not possible"), 1),
    ],
)
def test_an_error_is_one_line(raises, capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    raises(error)
    assert main(["fail"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("wsipipe: error: ")


def test_debug_shows_the_traceback(raises) -> None:
    raises(SettingsError("overlap is 300"))
    with pytest.raises(SettingsError):
        main(["--debug", "fail"])


def test_a_bug_keeps_its_traceback(raises) -> None:
    raises(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["fail"])


@pytest.mark.parametrize(("hint", "line"), [("", "interrupted"), ("run it again", "interrupted; run it again")])
def test_interrupt(raises, capsys: pytest.CaptureFixture[str], hint: str, line: str) -> None:
    raises(KeyboardInterrupt(*([hint] if hint else [])))
    assert main(["fail"]) == 130
    assert capsys.readouterr().err.strip() == f"wsipipe: {line}"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["sgment"], "wsipipe: error: no command 'sgment'; did you mean 'segment'?"),
        (["zzz"], "wsipipe: error: no command 'zzz'; expected one of segment"),
        (["--nothing"], "wsipipe: error: No such option"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], args: list[str], expected: str) -> None:
    assert main(args) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(expected)
    assert lines[1] == "Try 'wsipipe --help'."


def test_a_closed_pipe_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "wsipipe", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(timeout=60)


def test_public_names_resolve() -> None:
    import wsipipe

    for name, module in wsipipe._HOME.items():
        if importlib.util.find_spec(module) is not None:
            assert getattr(wsipipe, name) is not None
    assert set(wsipipe._HOME) < set(dir(wsipipe))
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        wsipipe.segmnt  # noqa: B018
