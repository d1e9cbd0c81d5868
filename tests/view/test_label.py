"""The page for labelling: the least certain cells of all slides are asked for, and answers are learned from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import truth_master
from tests.pipelines.test_classify import COUNT, _master
from wsipipe.analysis.classify import Classifier, Examples, first_questions
from wsipipe.analysis.classify.candidates import Candidates, candidates_of
from wsipipe.errors import SettingsError
from wsipipe.formats.parquet import read_cells
from wsipipe.pipelines.label import LabelJob, run_label
from wsipipe.schedule.progress import Progress
from wsipipe.settings import ClassifySettings
from wsipipe.slide import Slide, open_slide
from wsipipe.view.closeup import CloseUps
from wsipipe.view.labelling import Labelling
from wsipipe.view.server import application
from wsipipe.view.session import Session
from wsipipe.view.slides import OPEN, SlideViewers

COLUMNS = ("area_um2", "eccentricity", "solidity")
TOKEN = "a-token"


@pytest.fixture
def slides(tmp_path: Path) -> tuple[Candidates, list[str]]:
    """Return the cells of two slides, and the true class of each."""
    masters, truth = {}, {}
    for seed, name in enumerate("ab", 41):
        masters[name] = tmp_path / f"{name}.parquet"
        kinds = _master(masters[name], seed)
        truth |= dict(zip(read_cells(masters[name])["cell_id"], kinds))
    candidates = candidates_of(masters, COLUMNS)
    return candidates, [truth[id_] for id_ in candidates.ids]


def _session(candidates: Candidates, save: Path, examples: Examples | None = None) -> Session:
    known = examples or Examples.none(candidates.columns)
    return Session(candidates, known, ("Lymphocyte", "Stroma", "Tumour"), ClassifySettings(), save)


def test_a_few_answers_type_every_cell_of_all_slides(slides: tuple[Candidates, list[str]], tmp_path: Path) -> None:
    (candidates, truth), save = slides, tmp_path / "types.json"
    session = _session(candidates, save)
    assert "nothing is learned yet" in session.state()["scores"]["why"] and not save.exists()
    asked = []
    for _ in range(40):
        state = session.state()
        asked.append(state["cell"])
        assert state["slide"] == candidates.names[candidates.slide[state["cell"]]] and not set(state["ahead"]) & set(
            asked
        )
        session.answer(state["cell"], truth[state["cell"]])
    assert len(set(asked)) == 40 and len(set(candidates.slide[asked].tolist())) == 2
    kept = Classifier.load(save)
    assert kept.digest == session.classifier.digest and kept.about["labelled"] == session.examples.counts
    found = np.array(kept.classes)[kept.probabilities(candidates.values(np.arange(2 * COUNT))).argmax(axis=1)]
    assert (found == truth).mean() > 0.9, "forty of 1,200 cells"
    told = session.state()["scores"]
    assert (
        told["where"] == "cells left out, 2 folds over 2 slides" and told["balanced_accuracy"] > 0.6 and not told["one"]
    )
    again = _session(candidates, save, Examples.of_dict(kept.columns, kept.examples))
    assert again.state()["labelled"] == 40 and again.state()["cell"] not in asked
    assert again.classifier is not None and again.classifier.digest == kept.digest


def test_doubtful_cells_come_first(slides: tuple[Candidates, list[str]], tmp_path: Path) -> None:
    candidates, truth = slides
    session = _session(candidates, tmp_path / "t.json")
    for cell in first_questions(candidates.values(np.arange(len(candidates))), 30).tolist():
        session.answer(cell, truth[cell])
    assert session.classifier is not None
    everyone = np.sort(session.classifier.probabilities(candidates.values(np.arange(len(candidates)))), axis=1)
    margin = everyone[:, -1] - everyone[:, -2]
    assert margin[session.ahead(24)].max() <= np.quantile(margin, 0.25)


def test_answers_are_taken_back(slides: tuple[Candidates, list[str]], tmp_path: Path) -> None:
    candidates, _ = slides
    session = _session(candidates, tmp_path / "t.json")
    assert session.undo() is None
    for k, kind in enumerate(("Stroma", "Tumour", "Stroma", "Tumour")):
        session.answer(k, kind)
    before = session.classifier
    assert before is not None
    session.answer(7, "Tumour")
    session.answer(9, "")
    assert session.state()["passed"] == 1 and session.state()["labelled"] == 5
    assert session.undo() == 9 and session.undo() == 7
    assert session.classifier is not None and session.classifier.digest == before.digest
    assert session.state()["cell"] == 7, "it is asked for again"
    assert session.undo() == 3 and session.classifier is None


def test_what_cannot_be_is_refused(slides: tuple[Candidates, list[str]], tmp_path: Path) -> None:
    session = _session(slides[0], tmp_path / "t.json")
    for cell, kind in ((-1, "Tumour"), (2 * COUNT, "Tumour"), (0, "Other")):
        with pytest.raises(SettingsError, match="no such cell, or no such class"):
            session.answer(cell, kind)
    for name in ("", "  ", "x" * 61, "Ignore*"):
        with pytest.raises(SettingsError, match="a class needs a name"):
            session.add_class(name)
    session.add_class(" Giant \n cell ")
    assert list(session.classes)[-1] == "Giant cell"


# --- its server -------------------------------------------------------------------------------------------------------


@pytest.fixture
def client(phantom: Phantom, tmp_path: Path) -> Iterator[TestClient]:
    master = truth_master(tmp_path / "cells.parquet", phantom)
    candidates = candidates_of({"phantom": master}, ("area_um2", "probability"))
    session = Session(
        candidates, Examples.none(candidates.columns), ("A", "B"), ClassifySettings(), tmp_path / "t.json"
    )
    pictures = CloseUps(candidates, lambda _: open_slide(phantom.path))
    viewers = SlideViewers(candidates.names, candidates.masters, lambda _: open_slide(phantom.path))
    app = application(Labelling(session, pictures, viewers), TOKEN)
    yield TestClient(app, base_url=f"http://127.0.0.1:8000/{TOKEN}/")
    pictures.close()
    viewers.close()


def test_answers_go_to_the_session(client: TestClient, tmp_path: Path) -> None:
    assert "What is the yellow cell?" in client.get("").text
    assert client.get("assets/label.js").status_code == client.get("assets/label.css").status_code == 200
    for k in range(6):
        cell = client.get("state").json()["cell"]
        state = client.post("answer", json={"cell": cell, "kind": "AB"[k % 2]}).json()
        assert state["labelled"] == k + 1
    assert state["saved"] == "t.json" and set(state["probabilities"]) == {"A", "B"}
    assert client.post("class", json={"name": "C"}).json()["classes"][-1]["name"] == "C"
    assert client.post("undo", json={}).json()["labelled"] == 5


def test_pictures_show_the_cell(client: TestClient) -> None:
    cell = client.get("state").json()["cell"]
    bare, drawn, far = (
        cv2.imdecode(np.frombuffer(client.get(f"picture/{cell}.jpg?{q}").content, np.uint8), 1).astype(int)
        for q in ("um=80&bare=1", "um=80", "um=300")
    )
    assert bare.shape == drawn.shape
    blue, green, red = drawn[..., 0], drawn[..., 1], drawn[..., 2]
    yellow = (red > 200) & (green > 180) & (blue < 150)
    assert yellow.sum() > 20 and (np.abs(drawn - bare).max(axis=2) > 60).sum() >= yellow.sum()
    assert 0 < ((far[..., 2] > 200) & (far[..., 1] > 180) & (far[..., 0] < 150)).sum() < yellow.sum(), (
        "farther, smaller"
    )
    assert client.get("picture/999999.jpg").status_code == 404
    assert client.get(f"picture/{cell}.jpg?um=nan").status_code == 404


def test_a_slide_has_its_viewer(client: TestClient, phantom: Phantom) -> None:
    state = client.get("state").json()
    place = state["place"]
    assert place["slide"] == 0 and place["mpp"] == 0.5 and len(place["outline"]) > 3
    page = client.get("slide/0/")
    assert "openseadragon" in page.text and "frame-ancestors 'self'" in page.headers["content-security-policy"]
    assert client.get("slide/0/assets/viewer.js").status_code == 200
    told = client.get("slide/0/info").json()
    assert told["name"] == "phantom" and told["size"] == [1536, 1024] and told["cells"] == state["candidates"]
    assert client.get(f"slide/0/tiles/{told['max_level']}/0_0.jpg").headers["content-type"] == "image/jpeg"
    cell = client.get(f"slide/0/cell?x={place['x']}&y={place['y']}").json()
    assert cell["outline"] == place["outline"]
    assert client.get("slide/1/").status_code == client.get("slide/x/").status_code == 404
    assert client.post("slide/0/info", json={}).status_code == 404


def test_a_cell_that_is_pointed_at_comes_next(client: TestClient) -> None:
    first = client.get("state").json()
    x, y = 700, 500
    cell = next(c for d in range(0, 300, 3) if (c := client.get(f"slide/0/cell?x={x + d}&y={y}").json()))
    state = client.post("ask", json={"slide": 0, "id": cell["cell_id"]}).json()
    assert state["place"]["outline"] == cell["outline"] and state["ahead"][0] == first["cell"] != state["cell"]
    assert client.post("answer", json={"cell": state["cell"], "kind": "A"}).json()["labelled"] == 1
    for wrong, words in (
        ({"slide": 0, "id": cell["cell_id"]}, "this cell has a label"),
        ({"slide": 1, "id": cell["cell_id"]}, "not among the"),
        ({"slide": 0, "id": "nobody"}, "not among the"),
    ):
        answer = client.post("ask", json=wrong)
        assert answer.status_code == 400 and words in answer.json()["error"]


def test_few_slides_are_open_at_a_time(phantom: Phantom, tmp_path: Path) -> None:
    master, opened = truth_master(tmp_path / "cells.parquet", phantom), []
    count = OPEN + 3

    def open_one(number: int) -> Slide:
        opened.append(open_slide(phantom.path))
        return opened[-1]

    viewers = SlideViewers(tuple(map(str, range(count))), (master,) * count, open_one)
    session = Session(
        candidates_of({"0": master}, ("area_um2", "probability")),
        Examples.none(("area_um2", "probability")), ("A",), ClassifySettings(), tmp_path / "t.json",
    )  # fmt: skip
    shown = Labelling(session, CloseUps(session.candidates, open_one), viewers)
    client = TestClient(application(shown, TOKEN), base_url=f"http://127.0.0.1:8000/{TOKEN}/")
    for number in [*range(count), count - 1]:
        assert client.get(f"slide/{number}/info").json()["name"] == str(number)
    assert len(opened) == count

    def is_open(slide: Slide) -> bool:
        try:
            slide.read_region(0, 0, 0, 8, 8)
        except Exception:  # noqa: BLE001 a closed one says so, each reader in its way
            return False
        return True

    assert [is_open(slide) for slide in opened] == [False] * 3 + [True] * OPEN
    viewers.close()
    assert not any(map(is_open, opened))


def test_only_its_own_page_may_answer(client: TestClient) -> None:
    good = {"cell": client.get("state").json()["cell"], "kind": "A"}
    other = {"origin": "http://evil.example"}
    assert client.post("answer", json=good, headers=other).status_code == 404
    assert client.post("answer", data={"cell": "0"}).status_code == 404, "a form of a page elsewhere"
    assert client.post("answer", json=good, headers={"host": "evil.example"}).status_code == 404
    assert client.post("http://127.0.0.1:8000/wrong/answer", json=good).status_code == 404
    assert client.post("state", json=good).status_code == 404
    assert client.post("answer", json=good, headers={"origin": "http://127.0.0.1:8000"}).status_code == 200
    for wrong in ({"cell": 0}, {"cell": "x", "kind": "A"}, [], {"cell": 0, "kind": "Z"}, {"name": "y" * 5000}):
        answer = client.post("answer", json=wrong)
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]


def test_errors_of_the_command(phantom: Phantom, tmp_path: Path) -> None:
    master = truth_master(tmp_path / "cells.parquet", phantom)
    job = LabelJob((master,), tmp_path / "t.json")
    with pytest.raises(SettingsError, match=r"cells: its slide was not found .* --slide"):
        run_label(job, Progress(), lambda _: None)
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(Exception, match="is not a classifier"):
        run_label(LabelJob((master,), tmp_path / "t.json", slide=str(phantom.path)), Progress(), lambda _: None)
