"""Labelling in a real Chromium, with the slide of each question in the deep-zoom viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import Phantom
from tests.masters import truth_master
from tests.view.browsing import PATIENCE, READY, TOKEN, eventually, needs_chromium, served
from wsipipe.analysis.classify import Examples
from wsipipe.analysis.classify.candidates import candidates_of
from wsipipe.formats.parquet import read_cells
from wsipipe.settings import ClassifySettings
from wsipipe.slide import open_slide
from wsipipe.view.closeup import CloseUps
from wsipipe.view.labelling import Labelling
from wsipipe.view.server import application
from wsipipe.view.session import Session
from wsipipe.view.slides import SlideViewers

pytestmark = needs_chromium
LOOK = """() => { const { viewer } = wsipipe, at = viewer.viewport.getCenter();
  const { x, y } = viewer.world.getItemAt(0).viewportToImageCoordinates(at), marks = document.getElementById("marks");
  const [w, h] = [marks.width, marks.height], side = Math.round(w / 4);
  const { data } = marks.getContext("2d").getImageData((w - side) / 2, (h - side) / 2, side, side);
  let yellow = 0;
  for (let i = 0; i < data.length; i += 4) yellow += data[i] > 200 && data[i + 1] > 180 && data[i + 2] < 150;
  return [x, y, yellow]; }"""
"""The middle of the view in base px, and how many px around it are of the outline of the cell that is asked for."""


def test_labelling_in_the_viewer(page: Any, phantom: Phantom, tmp_path: Path) -> None:
    """Each question is opened in the deep-zoom viewer at its place, on whatever slide; a click asks for that cell."""
    masters = {name: truth_master(tmp_path / f"{name}.parquet", phantom) for name in "ab"}
    candidates = candidates_of(masters, ("area_um2", "probability"))
    none = Examples.none(candidates.columns)
    session = Session(candidates, none, ("Tumor", "Stroma"), ClassifySettings(), tmp_path / "types.json")
    pictures = CloseUps(candidates, lambda _: open_slide(phantom.path))
    viewers = SlideViewers(candidates.names, candidates.masters, lambda _: open_slide(phantom.path))

    def shown() -> bool:
        """Whether the slide of the question is in the frame, all drawn, and the cell outlined in its middle."""
        place, frame = session.state()["place"], page.frames[-1]
        if not frame.url.partition("#")[0].endswith(f"/slide/{place['slide']}/") or not frame.evaluate(READY):
            return False
        x, y, marked = frame.evaluate(LOOK)
        return abs(x - place["x"]) < 2 and abs(y - place["y"]) < 2 and marked > 60

    with served(application(Labelling(session, pictures, viewers), TOKEN)) as address:
        page.goto(address, timeout=PATIENCE)
        eventually(page, lambda: bool(page.evaluate("() => document.getElementById('picture').naturalWidth > 0")))
        page.click("#whole")
        eventually(page, shown)
        slides = {session.state()["place"]["slide"]}
        for k in range(12):
            if k % 2:  # a key pressed over the slide is an answer, too
                page.frames[-1].evaluate(
                    f"() => dispatchEvent(new KeyboardEvent('keydown', {{ key: '{k % 3 % 2 + 1}' }}))"
                )
            else:
                page.keyboard.press("12"[k % 3 % 2])
            eventually(page, lambda k=k: f"{k + 1} labelled" in page.text_content("#told"))
            if session.state()["place"]["slide"] not in slides or k < 2:
                eventually(page, shown)
            slides.add(session.state()["place"]["slide"])
            if len(slides) == 2 and k:
                break
        assert slides == {0, 1}
        before, place = session.state()["cell"], session.state()["place"]
        near = next(
            cell
            for cell in read_cells(masters["ab"[place["slide"]]])[["cell_id", "x", "y"]].to_dict("records")
            if 25 < max(abs(cell["x"] - place["x"]), abs(cell["y"] - place["y"])) < 70
            and cell["cell_id"] not in session.examples.cells
        )
        box = page.locator("#viewer").bounding_box()
        per = 80 / 0.5 / box["width"]
        across, down = (near["x"] - place["x"]) / per, (near["y"] - place["y"]) / per
        page.mouse.click(box["x"] + box["width"] / 2 + across, box["y"] + box["height"] / 2 + down)
        eventually(page, lambda: session.state()["cell"] != before)
        assert candidates.ids[session.state()["cell"]] == near["cell_id"] and session.state()["ahead"][0] == before
        eventually(page, shown)
        page.keyboard.press("v")
        eventually(page, lambda: page.is_visible("#picture") and not page.is_visible("#viewer"))
        page.goto("about:blank")
    pictures.close()
    viewers.close()
