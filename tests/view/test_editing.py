"""Corrections and regions: what is kept beside the cells and taken back; in a real Chromium, with pointer and keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from tests.view.browsing import TOKEN, eventually, needs_chromium, ready, served
from wsipipe.cli.main import main
from wsipipe.errors import OutputError, SettingsError
from wsipipe.formats.corrections import path_beside, read_corrections, write_corrected
from wsipipe.formats.parquet import read_cells
from wsipipe.slide import open_slide
from wsipipe.view import regions
from wsipipe.view.answers import Shown
from wsipipe.view.changing import ChangingIndex
from wsipipe.view.editing import Editing
from wsipipe.view.server import application
from wsipipe.view.wanted import Wanted

N = 400
XY = np.stack(np.meshgrid(np.arange(20) * 55 + 40, np.arange(20) * 36 + 40), -1).reshape(-1, 2).astype(float)
RING = [[300.0, 55.0], [318.0, 55.0], [322.0, 68.0], [309.0, 74.0], [298.0, 66.0]]
WHOLE = (0.0, 0.0, 1200.0, 800.0)


@pytest.fixture
def master(tmp_path: Path) -> Path:
    return write_master(tmp_path / "cells.parquet", XY, np.arange(N) % 3 - 1, 6.0, bin_px=256)


@pytest.fixture
def editing(master: Path) -> Editing:
    return Editing(ChangingIndex(master), master)


def cells(editing: Editing, rows: list[int]) -> list[dict[str, Any]]:
    """Return cells as a page names them."""
    found = [editing._index.at(*XY[row]) for row in rows]
    return [{key: cell[key] for key in ("cell_id", "x", "y")} for cell in found if cell]


def counts(told: dict[str, Any]) -> dict[str, int]:
    return {entry["name"]: entry["cells"] for entry in told["classes"]}


def test_steps_are_shown_kept_and_taken_back(master: Path, editing: Editing) -> None:
    before, path, raw = counts(editing.state()), path_beside(master), master.read_bytes()
    some = cells(editing, [0, 1, 2])
    told = editing.do({"do": "relabel", "cells": some, "kind": "Mitosis"})
    assert counts(told)["Mitosis"] == 3 and told["revision"] == 1 and told["undo"] == 1
    told = editing.do({"do": "delete", "cells": some[:1]})
    assert told["cells"] == N - 1 and counts(told)["Mitosis"] == 2
    assert editing._index.at(*XY[0]) is None and len(editing._index.dots(WHOLE).codes) == N - 1
    told = editing.do({"do": "draw", "ring": RING, "kind": "Dead"})
    assert told["cells"] == N and told["told"] == "1 added, 2 relabelled, 1 deleted"
    drawn = editing._index.at(310, 65)
    assert drawn is not None and drawn["class"] == "Dead" and drawn["drawn"]
    assert len(editing._index.outlines((290, 50, 325, 80)).codes) > len(
        ChangingIndex(master).outlines((290, 50, 325, 80)).codes
    )
    assert editing._index.counts(64).sum() == N
    kept = read_corrections(path, master)
    assert [c.what for c in kept.by_id.values()] == ["deleted", "relabelled", "relabelled", "added"]
    assert next(iter(kept.by_id.values())).was == (read_cells(master)["class"].fillna("")[0])
    for _ in range(3):
        told = editing.do({"do": "undo"})
    assert {k: v for k, v in counts(told).items() if k != "Mitosis"} == before and not path.exists()
    told = editing.do({"do": "undo"})
    for _ in range(3):
        told = editing.do({"do": "redo"})
    assert told["told"] == "1 added, 2 relabelled, 1 deleted" and path.exists()
    assert master.read_bytes() == raw, "the cells stay as they are"


def test_they_survive_and_agree_with_what_commands_make_of_them(master: Path, editing: Editing, tmp_path: Path) -> None:
    editing.do({"do": "relabel", "cells": cells(editing, [5, 6, 7]), "kind": "Mitosis"})
    editing.do({"do": "relabel", "cells": cells(editing, [5]), "kind": ""})
    editing.do({"do": "delete", "cells": cells(editing, [7, 8])})
    editing.do({"do": "draw", "ring": RING, "kind": "Mitosis"})
    again = Editing(ChangingIndex(master), master)
    assert counts(again.state()) == counts(editing.state()) and again.state()["undo"] == 0
    write_corrected(master, read_corrections(path_beside(master), master), tmp_path / "out.parquet")
    made = read_cells(tmp_path / "out.parquet")["class"].fillna("no class").value_counts().to_dict()
    assert made == {name: count for name, count in counts(again.state()).items() if count}
    drawn = again._index.at(310, 65)
    assert drawn is not None
    one = [{key: drawn[key] for key in ("cell_id", "x", "y")}]
    told = again.do({"do": "restore", "cells": cells(again, [6])})
    assert told["told"] == "1 added, 1 relabelled, 2 deleted"
    again.do({"do": "relabel", "cells": one, "kind": "Dead"})
    assert read_corrections(path_beside(master), master).by_id[drawn["cell_id"]].what == "added"
    assert again.do({"do": "delete", "cells": one})["told"] == "1 relabelled, 2 deleted", "what was drawn is gone"


def test_a_lasso_takes_what_is_shown(editing: Editing) -> None:
    ring = [[0, 0], [300, 0], [300, 200], [0, 200]]
    inside = (XY[:, 0] < 300) & (XY[:, 1] < 200)
    assert len(editing.select({"ring": ring}, Wanted())) == inside.sum()
    dead = inside & (np.arange(N) % 3 - 1 == 0)
    found = editing.select({"ring": ring}, Wanted(frozenset({1, 2})))
    assert len(found) == dead.sum() and len(found[0]["outline"]) == 5
    told = editing.do({"do": "delete", "cells": found})
    assert told["cells"] == N - dead.sum()
    assert len(editing.select({"ring": ring}, Wanted())) == inside.sum() - dead.sum()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"do": "eat"}, "no such step: 'eat'"),
        ({"do": "delete", "cells": []}, "choose some cells"),
        ({"do": "delete", "cells": [{"cell_id": "x"}]}, "named by its identity and its place"),
        ({"do": "delete", "cells": [{"cell_id": "x", "x": 5, "y": 5}]}, "not there any more"),
        ({"do": "relabel", "cells": [], "kind": "Ignore*"}, "a class is 1 to 60 characters"),
        ({"do": "draw", "ring": [[0, 0], [1, 1]], "kind": ""}, "an outline needs 3"),
        ({"do": "draw", "ring": [[0, 0], [1, 1], ["a", 2]], "kind": ""}, "a list of positions"),
        ({"do": "draw", "ring": [[0, 0], [1e300, 1], [5, 2]], "kind": ""}, "a list of positions"),
        ({"do": "draw", "ring": [[0, 0], [500, 0], [500, 500], [0, 500]], "kind": ""}, "draw a region instead"),
        ({"do": "draw", "ring": [[-50, -50], [-40, -50], [-40, -40]], "kind": ""}, "outside the slide"),
        ({"do": "rename", "id": "x", "name": "a", "kind": ""}, "no such region"),
    ],
)
def test_what_cannot_be_done_changes_nothing(master: Path, editing: Editing, step: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        editing.do(step)
    assert not path_beside(master).exists() and editing.state()["undo"] == 0 and editing.state()["cells"] == N


def test_files_of_others_stay_as_they_are(master: Path, editing: Editing, tmp_path: Path) -> None:
    """Cells that were made anew, another program's regions, and a file that changed meanwhile."""
    editing.do({"do": "delete", "cells": cells(editing, [3])})
    path = path_beside(master)
    path.write_text(path.read_text() + " ")
    with pytest.raises(OutputError, match="was changed by another program"):
        editing.do({"do": "delete", "cells": cells(editing, [4])})
    assert editing.state()["cells"] == N - 1
    raw = path.read_bytes()
    write_master(master, XY[:-1], 0, 6.0)
    stale = Editing(ChangingIndex(master), master)
    assert "corrections of other cells" in stale.problem
    with pytest.raises(SettingsError, match="nothing can be corrected here"):
        stale.do({"do": "undo"})
    path.unlink()
    mine = regions.path_beside(master)
    mine.write_text('{"type": "FeatureCollection", "features": []}')
    assert "it stays as it is: show it with --areas" in Editing(ChangingIndex(master), master).problem
    assert raw and mine.exists()


def test_regions_are_kept_and_summed_up(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The numbers on the page are those of `wsipipe summarise`."""
    master = truth_master(tmp_path / "cells.parquet", phantom)
    editing = Editing(ChangingIndex(master), master)
    told = editing.do({"do": "region", "ring": [[200, 100], [1400, 150], [1300, 900], [100, 800]], "kind": ""})
    (one,) = told["regions"]
    assert one["name"] == "Region 1" and one["mm2"] > 0
    told = editing.do({"do": "rename", "id": one["id"], "name": "front", "kind": "Tumor"})
    assert told["regions"][0]["colour"] == (200, 0, 0)
    found = editing.numbers(one["id"])
    assert found is not None
    path = regions.path_beside(master)
    table = tmp_path / "table.csv"
    arguments = ["summarise", str(master), "--regions", str(path), "--slide", str(phantom.path), "-o", str(table)]
    assert main(arguments) == 0, capfd.readouterr().err
    row = pd.read_csv(table).set_index("region").loc["front"]
    for key in ("area_mm2", "cells", "cells_per_mm2", "Dead_cells", "Dead_share", "Epithelial_per_mm2"):
        assert found[key] == pytest.approx(row[key], rel=1e-6), key
    assert row["classification"] == found["classification"] == "Tumor"
    again = Editing(ChangingIndex(master), master)
    assert again.state()["regions"][0]["name"] == "front"
    again.do({"do": "drop", "id": one["id"]})
    assert not path.exists() and again.do({"do": "undo"})["regions"][0]["name"] == "front"


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def phantom_master(phantom: Phantom, tmp_path: Path) -> Path:
    return truth_master(tmp_path / "cells.parquet", phantom)


@pytest.fixture
def app(phantom: Phantom, phantom_master: Path) -> Iterator[Any]:
    index = ChangingIndex(phantom_master)
    with open_slide(phantom.path) as slide:
        shown = Shown(slide, "phantom.tiff", index, editing=Editing(index, phantom_master))
        yield application(shown, TOKEN)


def test_only_the_own_page_changes_anything(app: Any, phantom_master: Path) -> None:
    client = TestClient(app, base_url=f"http://127.0.0.1/{TOKEN}/")
    step = {"do": "region", "ring": [[10, 10], [90, 10], [90, 90]], "kind": ""}
    as_json = {"content-type": "application/json"}
    for headers in (
        {"content-type": "text/plain"},
        as_json | {"origin": "https://evil.example"},
        as_json | {"host": "evil.example"},
    ):
        assert client.post("edit", content=json.dumps(step), headers=headers).status_code == 404
    assert client.get("edit").status_code in (404, 405) and not regions.path_beside(phantom_master).exists()
    for content in ("[1]", "{", "x" * (5 << 20)):
        assert "error" in client.post("edit", content=content, headers=as_json).json()
    named = {"do": "region", "ring": step["ring"], "kind": "<img src=x onerror=alert(1)>"}
    assert client.post("edit", content=json.dumps(named), headers=as_json).json()["regions"][0]["kind"] == named["kind"]
    assert client.get("region?id=none").status_code == 404


@needs_chromium
def test_correcting_with_pointer_and_keys(page: Any, app: Any, phantom: Phantom, phantom_master: Path) -> None:
    inner = [c for c in phantom.truth.centroids((0, 0, 1536, 1024)) if 500 < c[0] < 900 and 300 < c[1] < 600]
    x, y = inner[0]
    path = path_beside(phantom_master)
    made = lambda: {c.what: c for c in read_corrections(path, phantom_master).by_id.values()} if path.exists() else {}  # noqa: E731
    with served(app) as address:
        page.goto(f"{address}#x={x:.0f}&y={y:.0f}&s=0.25")
        ready(page)
        page.keyboard.press("e")
        page.wait_for_selector("#edit:not([hidden])")
        page.mouse.click(500, 350)
        eventually(page, lambda: page.evaluate("() => wsipipe.editing.chosen().length") == 1)
        page.fill("#kind", "Mitosis")
        page.press("#kind", "Enter")
        eventually(page, lambda: "relabelled" in made() and made()["relabelled"].kind == "Mitosis")
        eventually(page, lambda: page.locator("#classes label", has_text="Mitosis").count() == 1)
        assert "1 relabelled; kept in cells.corrections.geojson" in page.inner_text("#edit-told")
        ready(page)
        page.locator("#slide").click(position={"x": 500, "y": 350})
        eventually(page, lambda: page.evaluate("() => wsipipe.editing.chosen().length") == 1)
        page.keyboard.press("Delete")
        eventually(page, lambda: list(made()) == ["deleted"])
        page.keyboard.press("Control+z")
        eventually(page, lambda: list(made()) == ["relabelled"])
        page.reload()
        ready(page)
        assert "Mitosis" in page.inner_text("#classes"), "it survives"
        page.keyboard.press("e")
        page.keyboard.press("n")
        page.fill("#kind", "<b>Odd</b>")
        page.locator("#kind").evaluate("(field) => field.blur()")
        draw(page, 300, 200, 24)
        eventually(page, lambda: "added" in made() and made()["added"].kind == "<b>Odd</b>")
        centre = shapely.centroid(made()["added"].shape)
        assert abs(centre.x - (x + (300 - 500) / 4)) < 3 and abs(centre.y - (y + (200 - 350) / 4)) < 3
        page.keyboard.press("r")
        draw(page, 400, 350, 120)
        eventually(page, lambda: page.locator(".region").count() == 1)
        page.locator(".region button", has_text="numbers").click()
        eventually(page, lambda: "per mm²" in page.inner_text(".region table"))
        page.keyboard.press("m")
        draw(page, 500, 350, 150)
        eventually(page, lambda: page.evaluate("() => wsipipe.editing.chosen().length") > 1)
        page.goto("about:blank")


def draw(page: Any, x: float, y: float, radius: float) -> None:
    """Draw a circle with the pointer."""
    turns = np.linspace(0, 2 * np.pi, 24)
    page.mouse.move(x + radius, y)
    page.mouse.down()
    for turn in turns:
        page.mouse.move(x + radius * float(np.cos(turn)), y + radius * float(np.sin(turn)))
    page.mouse.up()
