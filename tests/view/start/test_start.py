"""The start page by HTTP: what may be seen, what is refused, and runs that are those of the command line."""

from __future__ import annotations

import json
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.conftest import Phantom
from wsipipe.cli.options import SECTIONS as OF_CONFIG
from wsipipe.cli.options import read_config
from wsipipe.errors import SettingsError, SlideNotFound
from wsipipe.pipelines import app
from wsipipe.pipelines.app import AppJob, launcher, models, show, write_launcher
from wsipipe.segmentation.slides import SECTIONS, SLIDE_SUFFIXES
from wsipipe.settings import CellSettings, RunSettings
from wsipipe.view.start.choices import choices, settings_file
from wsipipe.view.start.desk import Desk
from wsipipe.view.start.folders import Folders
from wsipipe.view.start.pages import Office, application
from wsipipe.view.start.told import told

TOKEN = "a-token"
ALL = SECTIONS | {"run": RunSettings}
CHILD = (
    "import json, sys, time, pathlib; words = sys.argv[1:]; out = pathlib.Path(words[words.index('-o') + 1])\n"
    "print('prepare 1/1, tiles 3/8', flush=True); print('a warning', flush=True)\n"
    "if 'wait' in str(out):\n"
    "    try:\n        time.sleep(60)\n"
    "    except KeyboardInterrupt:\n        print('interrupted'); sys.exit(130)\n"
    "if 'fail' in str(out): print('wsipipe: error: no such thing'); sys.exit(3)\n"
)
"""A program in place of wsipipe, where only the watching of children is tried."""


@pytest.fixture
def slides(tmp_path: Path, phantom: Phantom) -> Path:
    root = tmp_path / "slides"
    (root / "more").mkdir(parents=True)
    (root / "a slide.tiff").symlink_to(phantom.path)
    (root / "b.svs").write_bytes(b"12345")
    (root / "notes.txt").touch()
    (root / ".hidden.svs").touch()
    (tmp_path / "secret.svs").touch()
    (root / "out.svs").symlink_to(tmp_path / "secret.svs")
    return root


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path / "results", (sys.executable, "-c", CHILD))
    yield found
    found.close()


@pytest.fixture
def client(slides: Path, desk: Desk, phantom: Phantom) -> TestClient:
    folders = Folders((slides, phantom.path.parent), SLIDE_SUFFIXES)
    office = Office(folders, desk, ALL, models(), show)
    return TestClient(application(office, TOKEN), base_url=f"http://127.0.0.1:8000/{TOKEN}/")


def settled(desk: Desk, name: str, *states: str) -> dict[str, Any]:
    """Wait until a run is in one of *states*, and return what is told of it."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        found = told(desk, desk.runs[name])
        if found["state"] in states:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def test_the_page_and_its_choices(client: TestClient) -> None:
    page = client.get("")
    assert page.status_code == 200 and "Find the cells" in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert client.get("assets/start.js").headers["content-type"].startswith("text/javascript")
    found = client.get("choices").json()
    assert found["models"][0]["name"] == "cmd-t" and "research" in found["models"][0]["about"]
    knobs = {k["flag"]: k for s in found["sections"] for k in s["knobs"]}
    threshold = knobs["--min-area-um2"]
    assert threshold["unit"] == "µm²" and threshold["first"] and threshold["low"] == 0
    assert knobs["--stain"]["choices"] == ["auto", "as-is", "normalised"] and knobs["--stain"]["default"] == "auto"
    assert all(k["help"] for k in knobs.values())


def test_every_section_is_one_of_config() -> None:
    assert all(OF_CONFIG[name] is cls for name, cls in (SECTIONS | {"run": RunSettings}).items())
    first = [k["name"] for s in choices(ALL) for k in s["knobs"] if k["first"]]
    assert len(first) == 10, "what the page shows first is a setting each"


def test_only_what_it_was_started_with_is_listed(client: TestClient, slides: Path, tmp_path: Path) -> None:
    found = client.get("folder").json()
    assert [e["name"] for e in found["entries"]] == ["more", "a slide.tiff", "b.svs"]
    assert [c["path"] for c in found["crumbs"]] == [str(slides)]
    for path in (tmp_path, tmp_path / "secret.svs", slides / "..", slides / "out.svs", "/etc", "/", "a\0b"):
        refused = client.get("folder", params={"path": str(path)})
        assert refused.status_code == 400 and "error" in refused.json(), path
    assert "start wsipipe app with that folder too" in client.get("folder", params={"path": "/etc"}).json()["error"]


def test_a_dropped_slide_is_found_by_name_and_size(client: TestClient, slides: Path) -> None:
    assert client.get("find", params={"name": "b.svs", "size": 5}).json() == {"path": str(slides / "b.svs")}
    for name, size in (("b.svs", 6), ("../secret.svs", 0), ("notes.txt", 0), ("b.svs", "x")):
        assert client.get("find", params={"name": name, "size": size}).json() == {"path": None}


@pytest.mark.parametrize(
    "path", ["/", "/wrong/", "/a-token", "/wrong/runs", "/a-token/assets/start.html", "/a-token/no"]
)
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    assert client.get(f"http://127.0.0.1:8000{path}").status_code == 404


def test_other_pages_cannot_start_anything(client: TestClient, slides: Path, desk: Desk) -> None:
    run = {"name": "x", "slides": [str(slides / "b.svs")], "model": "cmd-t"}
    assert client.post("runs", json=run, headers={"host": "evil.example:8000"}).status_code == 404
    assert client.post("runs", json=run, headers={"origin": "http://evil.example"}).status_code == 404
    assert client.post("runs", content=json.dumps(run), headers={"content-type": "text/plain"}).status_code == 404
    assert client.delete("runs").status_code == 404 and client.post("runs", content=b"{" * 9).status_code == 404
    assert not desk.runs


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../x"}, "cannot be the name of a folder"),
        ({"name": ""}, "cannot be the name of a folder"),
        ({"slides": []}, "no slide is chosen"),
        ({"slides": ["/etc/passwd"]}, "is not below"),
        ({"slides": [5]}, "no slide is chosen"),
        ({"model": "/etc/passwd"}, "no model '/etc/passwd'"),
        ({"settings": {"cells": {"threshold": 7}}}, "threshold is 7"),
        ({"settings": {"cells": {"treshold": 0.5}}}, "no setting 'treshold'"),
        ({"settings": {"fit": {}}}, "no settings called 'fit'"),
        ({"settings": {"cells": {"threshold": "much"}}}, "expected float"),
    ],
)
def test_bad_runs_are_refused_in_one_line(
    client: TestClient, slides: Path, desk: Desk, changes: dict[str, Any], words: str
) -> None:
    run = {"name": "x", "slides": [str(slides / "b.svs")], "model": "cmd-t", "settings": {}} | changes
    answer = client.post("runs", json=run)
    assert answer.status_code == 400 and words in answer.json()["error"]
    assert not desk.runs and not list(desk.results.glob("*"))


def test_settings_become_a_file_that_the_command_line_takes(tmp_path: Path) -> None:
    given = {"cells": {"threshold": 0.4, "drop_oversize": True}, "slide": {"mpp": 1}, "tissue": {"tissue": 'a "b"\\c'}}
    text = settings_file(given, ALL)
    assert tomllib.loads(text)["slide"] == {"mpp": 1.0}
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    config = read_config(tmp_path / "run.toml")
    assert config.sections["cells"] == {"threshold": 0.4, "drop_oversize": True}
    assert config.sections["tissue"] == {"tissue": 'a "b"\\c'}
    assert CellSettings(**config.sections["cells"]).threshold == 0.4
    assert settings_file({}, ALL) == ""


def test_runs_are_watched_stopped_and_remembered(client: TestClient, slides: Path, desk: Desk) -> None:
    for name in ("wait", "later", "fail"):
        run = {"name": name, "slides": [str(slides / "b.svs"), str(slides / "more")], "model": "cmd-t", "settings": {}}
        assert client.post("runs", json=run).json() == {"name": name}
    assert client.post("runs", json=run).status_code == 400, "a name is used once"
    running = settled(desk, "wait", "running")
    while not running["stages"]:
        running = settled(desk, "wait", "running")
    assert running["stages"] == [{"stage": "prepare", "done": 1, "total": 1}, {"stage": "tiles", "done": 3, "total": 8}]
    assert told(desk, desk.runs["later"])["state"] == "waiting", "one at a time"
    assert client.post("runs/wait/again", json={}).status_code == 400
    client.post("runs/wait/stop", json={})
    stopped = settled(desk, "wait", "stopped")
    assert stopped["lines"][-1] == "interrupted" and stopped["asked"] == 2
    assert settled(desk, "later", "done")["lines"][1] == "a warning"
    assert settled(desk, "fail", "failed")["lines"][-1] == "wsipipe: error: no such thing"
    assert (desk.results / "fail/slides.csv").read_text().splitlines() == [
        "path",
        str(slides / "b.svs"),
    ]
    words = desk.runs["fail"].segment()
    assert words[:3] == ["segment", str(desk.results / "fail/slides.csv"), str(slides / "more")]
    again = Desk(desk.results)
    assert {r.name: told(again, r)["state"] for r in again.runs.values()} == dict.fromkeys(
        ("wait", "later", "fail"), "stopped"
    )
    again.close()
    assert client.post("runs/none/stop", json={}).status_code == 400
    assert client.post("runs/wait/burn", json={}).status_code == 404
    assert client.post("runs/wait/score", json={"marker": "ki67"}).json()["error"] == "wait: no slide is done yet"


def test_closing_stops_what_runs(tmp_path: Path) -> None:
    desk = Desk(tmp_path, (sys.executable, "-c", CHILD))
    desk.start("wait", ["a.svs"], "cmd-t", "")
    settled(desk, "wait", "running")
    desk.close()
    assert desk.runs["wait"].state == "stopped"


def test_a_real_run_is_segmented_looked_at_and_read(slides: Path, tmp_path: Path, phantom: Phantom) -> None:
    """The command line's own records: the same command says that all is up to date."""
    desk = Desk(tmp_path / "results")
    office = Office(Folders((slides, phantom.path.parent), SLIDE_SUFFIXES), desk, ALL, models(), show)
    client = TestClient(application(office, TOKEN), base_url=f"http://127.0.0.1:8000/{TOKEN}/")
    settings = {"cells": {"min_area_um2": 12}, "run": {"device": "cpu"}}
    run = {"name": "my run", "slides": [str(slides / "a slide.tiff")], "model": "cmd-t", "settings": settings}
    assert client.post("runs", json=run).status_code == 200
    done = settled(desk, "my run", "done", "failed")
    assert done["state"] == "done", done["lines"]
    (slide,) = done["slides"]
    assert slide["cells"] > 50 and done["report"] and done["look"] == 1
    assert client.get("runs/my run/report").text.startswith("<!doctype html>")
    viewer = client.get("look/my run/0/info").json()
    assert viewer["cells"] == slide["cells"]
    assert client.get("look/my run/0/").status_code == 200
    assert client.get("look/my run/0/tiles/11/0_0.jpg").headers["content-type"] == "image/jpeg"
    for path in ("look/my run/1/info", "look/none/0/info", "runs/none/report", "runs/my run/score/0"):
        assert client.get(path).status_code == 404
    client.post("runs/my run/again", json={})
    again = settled(desk, "my run", "done", "failed")
    assert [s["reason"] for s in again["slides"]] == ["up to date"]
    desk.close()


def test_folders_need_to_be_there(tmp_path: Path) -> None:
    folders = Folders((tmp_path,), SLIDE_SUFFIXES)
    with pytest.raises(SlideNotFound):
        folders.inside(str(tmp_path / "none"))
    with pytest.raises(SettingsError):
        folders.inside("")


@pytest.mark.parametrize(
    ("system", "name", "words"),
    [
        ("windows", "wsipipe.bat", '"C:\\my py\\python.exe" "-m" "it\'s"'),
        ("darwin", "wsipipe.command", "exec 'C:\\my py\\python.exe' '-m' 'it'\\''s'"),
        ("linux", "wsipipe.desktop", 'Exec="C:\\\\my py\\\\python.exe" "-m" "it\'s"'),
    ],
)
def test_launchers(system: str, name: str, words: str) -> None:
    found, text = launcher([r"C:\my py\python.exe", "-m", "it's"], system)
    assert found == name and words in text


def test_a_launcher_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_launcher(tmp_path, AppJob((tmp_path,), tmp_path / "results"))
    assert os.access(path, os.X_OK) and sys.executable in path.read_text()
    monkeypatch.setattr(app, "WINDOWS", True)
    assert write_launcher(tmp_path, AppJob((tmp_path,), tmp_path / "results")).name == "wsipipe.bat"
