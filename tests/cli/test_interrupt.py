"""Ctrl-C is answered at once, whatever the main thread and others are doing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORK = "hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)"
"""Many minutes in C code that hears no signal."""
START = (
    "import hashlib, sys, threading, click\n"
    "from wsipipe.cli.interrupt import prompt_interrupt; from wsipipe.cli import main as m\n"
    "@click.command()\n"
    "def fail():\n"
    "    with prompt_interrupt(lambda: print('tidied', flush=True)):\n"
    "        {body}\n"
    "m.fail = fail; m.COMMANDS['fail'] = m.Entry('wsipipe.cli.main:fail', 'Help', '')\n"
    "sys.argv[1:] = ['fail']; sys.exit(m.main())"
)
DEEP = f"threading.Timer(1, lambda: print('ready', flush=True)).start(); {WORK}"
THREADS = (
    "from wsipipe.schedule.threads import Threads; pool = Threads(1); pool.__enter__();"
    f" pool.submit(lambda: {WORK}); print('ready', flush=True); threading.Event().wait()"
)


def interrupted(body: str, *signals: signal.Signals) -> tuple[int, str, str]:
    """Run *body* in a process, send it *signals*, and return its exit code and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout and process.stdout.readline() == "ready\n", process.communicate()
    for number in signals:
        process.send_signal(number)
    said, aside = process.communicate(timeout=120)
    return process.returncode, said, aside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_deep_in_a_library(number: signal.Signals) -> None:
    code, said, aside = interrupted(DEEP, number)
    assert code == 130 and said == "tidied\n", aside
    assert "wsipipe: stopping; what is done is kept" in aside
    assert "wsipipe: interrupted; the same command resumes it: wsipipe fail" in aside and "Traceback" not in aside


def test_twice() -> None:
    code, _, aside = interrupted(DEEP, signal.SIGINT, signal.SIGINT)
    assert code == 130 and aside.count("interrupted; the same command resumes it") == 1


def test_other_threads_are_not_waited_for() -> None:
    code, _, aside = interrupted(THREADS, signal.SIGINT)
    assert code == 130 and aside.count("interrupted; the same command resumes it: wsipipe fail") == 1
    assert "Traceback" not in aside


def test_without_an_interrupt_nothing_happens() -> None:
    process = subprocess.run(
        [sys.executable, "-c", START.format(body="print('ready')")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "ready\n", "")
