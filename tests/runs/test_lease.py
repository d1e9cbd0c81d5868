"""Leases: one holder at a time, given back, and taken over only from the dead."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from wsipipe.artifacts import hidden_beside, remove_leftovers, short_name
from wsipipe.artifacts.system import began
from wsipipe.errors import OutputBusy, OutputError
from wsipipe.runs.lease import Holder, acquire, check_free, machine


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    output = tmp_path / "cells [1].parquet"
    with acquire(output) as lease:
        lease.check()
        with pytest.raises(OutputBusy, match=rf"process {os.getpid()} on .* works on it"):
            acquire(output)
        with pytest.raises(OutputBusy):
            check_free(output)
        with acquire(tmp_path / "cells 1.parquet"):
            pass
    with acquire(output):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_ask_and_one_gets_it(tmp_path: Path) -> None:
    def ask(_: int) -> bool:
        try:
            acquire(tmp_path / "cells.parquet")
        except OutputBusy:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(40))) <= 1


def lease_file(folder: Path, holder: Holder, age: float = 0.0) -> Path:
    path = folder / ".cells.parquet.lease.3"
    path.write_text(json.dumps(asdict(holder)))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_dead_process_of_this_machine_is_seen_at_once(tmp_path: Path) -> None:
    path = lease_file(tmp_path, replace(Holder.me(), pid=dead_process()))
    with acquire(tmp_path / "cells.parquet") as lease:
        assert not path.exists() and lease.file.name == ".cells.parquet.lease.4"


def test_a_process_id_that_is_used_again_is_not_the_holder(tmp_path: Path) -> None:
    lease_file(tmp_path, replace(Holder.me(), started="another time"))
    acquire(tmp_path / "cells.parquet").release()


def test_another_host_is_alive_while_its_lease_is_fresh(tmp_path: Path) -> None:
    path = lease_file(tmp_path, Holder("far", 7, "far machine", "1"), age=50)
    with pytest.raises(OutputBusy, match="process 7 on far"):
        acquire(tmp_path / "cells.parquet", seconds=100)
    acquire(tmp_path / "cells.parquet", seconds=20).release()
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[1]"])
def test_a_lease_that_is_just_being_written_counts(tmp_path: Path, content: str) -> None:
    path = tmp_path / ".cells.parquet.lease.1"
    path.write_text(content)
    with pytest.raises(OutputBusy):
        acquire(tmp_path / "cells.parquet", seconds=100)
    os.utime(path, (1, 1))
    acquire(tmp_path / "cells.parquet", seconds=100).release()


def test_a_process_killed_as_it_takes_a_lease_holds_nothing(tmp_path: Path) -> None:
    output = tmp_path / "cells.parquet"
    code = (
        "import os, sys; from pathlib import Path; from wsipipe.runs.lease import acquire\n"
        "os.link = lambda a, b: os.kill(os.getpid(), 9); acquire(Path(sys.argv[1]))"
    )
    process = subprocess.run([sys.executable, "-c", code, str(output)], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 1, process.stderr
    with acquire(output):
        remove_leftovers(output)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with acquire(tmp_path / "cells.parquet"), pytest.raises(OutputBusy, match="works on it"):
        acquire(tmp_path / "cells.parquet")
    assert list(tmp_path.iterdir()) == []


def test_the_holder_shows_signs_of_life(tmp_path: Path) -> None:
    with acquire(tmp_path / "cells.parquet", seconds=0.6) as lease:
        os.utime(lease.file, (1, 1))
        for _ in range(600):
            if lease.file.stat().st_mtime > 1:
                break
            time.sleep(0.05)
        assert lease.file.stat().st_mtime > 1


def test_whoever_was_taken_over_notices_and_leaves_the_new_lease_alone(tmp_path: Path) -> None:
    lease = acquire(tmp_path / "cells.parquet", seconds=0.6)
    lease.file.write_text(json.dumps(asdict(Holder("far", 7, "far machine", "1"))))
    lease._thread.join(60)
    with pytest.raises(OutputBusy, match="another one took the work over"):
        lease.check()
    lease.release()
    assert lease.file.exists()


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="cannot write"):
        acquire(tmp_path / "no" / "cells.parquet")


def test_who_and_where() -> None:
    me = Holder.me()
    assert not me.is_dead and me.machine == machine() and me.started == began(os.getpid())
    assert began(dead_process()) is None


def test_slides_of_one_long_prefix_do_not_share_a_lease(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{'x' * 150}{k}.parquet" for k in "12")
    with acquire(one), acquire(two):
        for path in (one, two):
            hidden_beside(path).touch()
        remove_leftovers(one)
        assert len(list(tmp_path.glob("*.tmp"))) == 1, "what another process writes this moment stays"
        remove_leftovers(two)
    assert list(tmp_path.iterdir()) == []
    assert short_name("x" * 100) == "x" * 100 and len(short_name("é" * 120).encode()) <= 100


def test_a_lease_dated_in_the_future(tmp_path: Path) -> None:
    path = lease_file(tmp_path, Holder("far", 7, "far machine", "1"), age=-50)
    with pytest.raises(OutputBusy, match=r"process 7 on far.*remove .*\.cells\.parquet\.lease\.3"):
        acquire(tmp_path / "cells.parquet", seconds=100)
    lease_file(tmp_path, Holder("far", 7, "far machine", "1"), age=-1e6)
    acquire(tmp_path / "cells.parquet", seconds=100).release()
    assert not path.exists()
