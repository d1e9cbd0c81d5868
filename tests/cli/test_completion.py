"""Completion in real shells: commands, options, values, files; without loading anything heavy."""

from __future__ import annotations

import os
import pty
import select
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cli_help import HEAVY
from wsipipe.cli.completion import CLASSES, SHELLS
from wsipipe.cli.main import COMMANDS, COMPLETION, cli, main

BASH = """
. "$SCRIPTS/bash"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
registered=$(complete -p wsipipe)
function_name=${registered##*-F }
"${function_name% wsipipe}" wsipipe
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What Bash does on Tab, with the words typed so far as arguments."""


@pytest.fixture(scope="module")
def shell_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH on which ``wsipipe`` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "wsipipe"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m wsipipe "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the script of each shell, under its name."""
    folder = tmp_path_factory.mktemp("scripts")
    for name, cls in CLASSES.items():
        (folder / name).write_text(cls(cli, {}, "wsipipe", COMPLETION).source())
    return folder


def shell(command: list[str], path: str, scripts: Path, folder: Path) -> str:
    environment = {**os.environ, "PATH": path, "SCRIPTS": str(scripts)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["wsipipe", "seg"], {"segment"}),
        (["wsipipe", "segment", "--thr"], {"--threshold"}),
        (["wsipipe", "completion", ""], set(SHELLS)),
        (["wsipipe", "models", "sh"], {"show"}),
        (["wsipipe", "pretrain", "--size", ""], {"T", "S", "B", "L"}),
        (["wsipipe", "nothing-like-this"], {""}),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], shell_path: str, scripts: Path, tmp_path: Path) -> None:
    said = shell(["bash", "--norc", "-c", BASH, "bash", *words], shell_path, scripts, tmp_path)
    assert set(said.strip("\n").split("\n")) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("wsipipe seg\t", "wsipipe segment "),
        ("wsipipe segment sli\t", "wsipipe segment slide.svs "),
        ("wsipipe segment slide.svs --mod\t", "wsipipe segment slide.svs --model "),
        ("wsipipe report re\t", "wsipipe report results/"),
    ],
)
def test_tab_in_a_terminal(typed: str, becomes: str, shell_path: str, scripts: Path, tmp_path: Path) -> None:
    """A Bash that believes that somebody types."""
    (tmp_path / "slide.svs").touch()
    (tmp_path / "results").mkdir()
    setup = tmp_path / "rc"
    setup.write_text(f"PS1='> '; bind 'set enable-bracketed-paste off'; . {scripts}/bash; echo ready\n")
    ours, theirs = pty.openpty()
    command = ["bash", "--noprofile", "--rcfile", str(setup), "-i"]
    environment = {**os.environ, "PATH": shell_path, "TERM": "dumb", "INPUTRC": os.devnull}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=tmp_path, start_new_session=True
    )
    os.close(theirs)
    try:
        assert until(ours, "ready\r\n> ")
        os.write(ours, typed.encode())
        assert until(ours, becomes)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def until(terminal: int, expected: str, seconds: float = 60) -> bool:
    """Read from *terminal* until it has shown *expected*; whether it has."""
    said, end = "", time.monotonic() + seconds
    while expected not in said and time.monotonic() < end:
        if select.select([terminal], [], [], 0.5)[0]:
            said += os.read(terminal, 4096).decode()
    return expected in said


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_completes(shell_path: str, scripts: Path, tmp_path: Path) -> None:
    asked = "; ".join(f"complete --do-complete 'wsipipe {words}'" for words in ("seg", "segment --thr"))
    code = f"source {scripts}/fish; {asked}"
    said = shell(["fish", "--no-config", "-c", code], shell_path, scripts, tmp_path)
    assert [line.split("\t")[0] for line in said.splitlines()] == ["segment", "--threshold"]
    assert COMMANDS["segment"].summary in said


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_takes_the_script(shell_path: str, scripts: Path, tmp_path: Path) -> None:
    code = """
    autoload -Uz compinit; compinit -D
    . "$SCRIPTS/zsh"
    print -r -- ${_comps[wsipipe]}
    compadd() { print -r -- "$@" }; _describe() { eval "print -r -- \\${$3}" }
    words=(wsipipe seg) CURRENT=2; ${_comps[wsipipe]}
    """
    said = shell(["zsh", "-f", "-c", code], shell_path, scripts, tmp_path)
    assert said.splitlines()[0] == "_wsipipe_completion" and f"segment:{COMMANDS['segment'].summary}" in said


@pytest.mark.parametrize("words", ["wsipipe ", "wsipipe segment --", "wsipipe --", "wsipipe visualize --pa"])
def test_completing_loads_nothing_heavy(words: str) -> None:
    code = (
        "import sys\nfrom wsipipe.cli.main import main\ntry:\n    main([])\nfinally:\n"
        f"    print('heavy:', *(m for m in {HEAVY!r} if m in sys.modules))"
    )
    ask = {COMPLETION: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **ask}, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "heavy:", done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 1


@pytest.mark.parametrize("name", SHELLS)
def test_the_script_is_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    captured = capsys.readouterr()
    assert f"{COMPLETION}={name}_complete" in captured.out and "wsipipe" in captured.out and captured.err == ""


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
