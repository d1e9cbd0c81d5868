"""The report of a slide: what it shows, what it must never show, and that it needs nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from tests.conftest import Phantom
from tests.masters import truth_master, write_master
from tests.view.browsing import needs_chromium
from wsipipe.cli.main import main
from wsipipe.figure.overlay import View, mean_diameter_um
from wsipipe.report import Facts, is_current, write_report
from wsipipe.report.pictures import tissue_share
from wsipipe.slide import ArraySlide
from wsipipe.stain.unmix import HDAB, HE
from wsipipe.tissue import Tissue

RECORD: dict[str, Any] = {
    "fingerprint": "r" * 64,
    "slide": "/clinic/Jane Doe 1970/a<b>.svs",
    "seconds": {"prepare": 1.0, "network": 7.5, "decode": 0.5, "wall": 8.25},
    "bottleneck": "model",
    "warnings": ["/clinic/Jane Doe 1970/a<b>.svs is out of focus"],
    "finished": "2026-01-02T03:04:05+0000",
    "tiles": 12,
    "blocks": 1,
    "host": "secret-host",
}
VOID = {"meta", "link", "img", "input", "br", "image", "path", "rect", "use"}


class Page(HTMLParser):
    """Tags with their attributes, and whether every one that opens closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def all(self, tag: str, **attrs: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in attrs.items())]


@pytest.fixture
def slide() -> ArraySlide:
    y, x = np.indices((800, 1200))
    return ArraySlide([np.stack([x // 8 + 80, y // 8 + 100, x // 16 + 90], axis=-1).astype(np.uint8)], mpp=0.5)


@pytest.fixture
def master(tmp_path: Path) -> Path:
    xy = np.random.default_rng(1).uniform((20, 20), (1180, 780), (600, 2))
    return write_master(tmp_path / "cells.parquet", xy, np.arange(600) % 3 - 1, bad_boxes=[[100, 100, 200, 200]])


@pytest.fixture
def tissue() -> Tissue:
    ring = shapely.Polygon(shapely.box(10, 10, 1100, 700).exterior, [shapely.box(300, 300, 500, 500).exterior])
    return Tissue((ring,), float(ring.area) / 4, "auto")


def page_of(master: Path, out: Path, slide: ArraySlide | None, tissue: Tissue | None, **record: Any) -> str:
    write_report(master, out, Facts.of(master, RECORD | record), slide, tissue)
    return out.read_text()


def test_loads_nothing_and_has_no_script(master: Path, tmp_path: Path, slide: ArraySlide, tissue: Tissue) -> None:
    text = page_of(master, tmp_path / "r.html", slide, tissue)
    page = Page(text)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:image/")), value[:80]
    assert not re.findall(r"url\((?!#)|@import|https?://", text)
    assert "default-src 'none'" in text and 'name="viewport"' in text and "@media print" in text


def test_tells_nothing_of_the_patient(master: Path, tmp_path: Path, slide: ArraySlide, tissue: Tissue) -> None:
    text = page_of(master, tmp_path / "r.html", slide, tissue)
    for secret in ("Jane", "Doe 1970", "clinic", "secret-host", "/home", "someone"):
        assert secret not in text
    assert "drawn.geojson" in text  # the name of the file of polygons, without its folder
    assert "a&lt;b&gt;.svs is out of focus" in text and "a<b>" not in text
    write_report(master, tmp_path / "t.html", Facts.of(master, RECORD, "Case 12"), slide, tissue)
    assert "Case 12" in (tmp_path / "t.html").read_text()
    assert "<h1>a&lt;b" not in (tmp_path / "t.html").read_text()


def test_shows_what_it_should(master: Path, tmp_path: Path, slide: ArraySlide, tissue: Tissue) -> None:
    text = page_of(master, tmp_path / "r.html", slide, tissue)
    page = Page(text)
    assert len(page.all("path", **{"class": "tissue"})) == 1
    assert len(page.all("image", **{"class": "heat"})) == 1
    assert len(page.all("svg", **{"class": "chart"})) == 6
    assert len(page.all("rect", **{"class": "bad"})) == 1
    fields = page.all("rect", **{"class": "field"})
    assert len(fields) == len(page.all("svg", **{"class": "cells"})) == 6
    assert "100,100,200,200" in text
    assert "600" in text and "3,000" in text  # cells, and per mm² of 0.2 mm²
    for word in ("Epithelial", "no class", "network", "8.25", "CC0-1.0", "0.5 µm/px", "12 tiles"):
        assert word in text, word
    assert "Bottleneck: model" in text


def test_overview_has_the_slides_own_pixels(master: Path, tmp_path: Path, slide: ArraySlide) -> None:
    page = Page(page_of(master, tmp_path / "r.html", slide, None))
    (image,) = page.all("image", id="pixels")
    data = base64.b64decode(str(image["href"]).partition("base64,")[2])
    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    want = cv2.resize(slide.read_region(0, 0, 0, 1200, 800), rgb.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(rgb.astype(int) - want).mean() < 4


def test_same_facts_same_bytes(master: Path, tmp_path: Path, slide: ArraySlide, tissue: Tissue) -> None:
    first = page_of(master, tmp_path / "a.html", slide, tissue)
    assert first == page_of(master, tmp_path / "b.html", slide, tissue)
    facts = Facts.of(master, RECORD)
    assert is_current(tmp_path / "a.html", facts, slide)
    assert not is_current(tmp_path / "a.html", facts, None)
    assert not is_current(tmp_path / "a.html", Facts.of(master, RECORD | {"finished": "2027"}), slide)


def test_without_slide_and_record(master: Path, tmp_path: Path) -> None:
    write_report(master, tmp_path / "r.html", Facts.of(master, {"fingerprint": "another run's"}))
    text = (tmp_path / "r.html").read_text()
    page = Page(text)
    assert "not at hand" in text and "<h1>cells.parquet</h1>" in text and "bottleneck" not in text
    assert len(page.all("image", **{"class": "heat"})) == 1 and not page.all("rect", **{"class": "field"})


def test_cells_of_which_an_area_or_all_are_not_known(tmp_path: Path, slide: ArraySlide) -> None:
    """Another program may leave out a measurement; what it then says of the cell is less."""
    for areas in ([None, 80.0, 90.0], [None, None, None]):
        path = write_master(tmp_path / "cells.parquet", np.array([(300, 200), (330, 230), (400, 300)]))
        table = pq.read_table(path)
        about = json.loads(pq.read_metadata(path).metadata[b"wsipipe"])
        del about["digest"]
        at = table.column_names.index("area_um2")
        table = table.set_column(at, "area_um2", pa.array(areas, pa.float32()))
        pq.write_table(table.replace_schema_metadata({b"wsipipe": json.dumps(about).encode()}), path)
        out = tmp_path / "page.html"
        write_report(path, out, Facts.of(path, {}), slide, None)
        assert "µm²" in out.read_text()
        assert mean_diameter_um(path) == pytest.approx(0 if areas[1] is None else 2 * (85 / np.pi) ** 0.5, abs=0.02)


def test_without_cells(tmp_path: Path, slide: ArraySlide) -> None:
    master = write_master(tmp_path / "none.parquet", np.zeros((0, 2)), tissue_area_um2=0.0)
    text = page_of(master, tmp_path / "r.html", slide, Tissue((), 0.0, "auto"))
    assert "none was found" in text
    Page(text)


def test_only_the_analysed_part_has_a_density(master: Path, tmp_path: Path, slide: ArraySlide) -> None:
    xy = np.random.default_rng(1).uniform((420, 220), (780, 580), (99, 2))
    part = write_master(tmp_path / "part.parquet", xy, analysed=[400, 200, 800, 600])
    text = page_of(part, tmp_path / "r.html", slide, None)
    assert "--bounds 400,200,800,600" in text
    assert not Page(text).all("use")


def test_density_ends_where_the_tissue_does(master: Path, tmp_path: Path, slide: ArraySlide) -> None:
    square = shapely.box(100, 100, 500, 400)
    clipped = page_of(master, tmp_path / "a.html", slide, Tissue((square,), 30_000.0, "auto"))
    assert '<clipPath id="in-tissue"><path clip-rule="evenodd" d="M' in clipped
    assert '<g clip-path="url(#in-tissue)"><image class="heat"' in clipped
    assert "in-tissue" not in page_of(master, tmp_path / "b.html", slide, None)


def test_glass_within_tissue_is_none() -> None:
    pixels = np.full((400, 600, 3), 240, np.uint8)
    pixels[100:300, 100:300] = (150, 60, 140)
    view = View(pixels, (0, 0, 1200, 800), (2.0, 2.0), (1.0, 1.0))
    inside = tissue_share(view, Tissue((shapely.box(200, 200, 1000, 600),), 1.0, "auto"))
    assert inside((200, 200, 600, 600)) > 0.95, "stained"
    assert inside((600, 200, 1000, 600)) < 0.05, "within the outline, but glass"
    assert inside((0, 200, 400, 600)) == pytest.approx(0.5, abs=0.03), "half outside"


def test_biology_comes_before_timings(master: Path, tmp_path: Path, slide: ArraySlide) -> None:
    text = page_of(master, tmp_path / "a.html", slide, None)
    header = text[text.index("<header>") : text.index("</header>")]
    assert "bottleneck" not in header and "cells / mm²" in header
    places = [text.index(f"<h2>{title}</h2>") for title in ("Fields of view", "Classes", "Size, stain, shape", "Time")]
    assert places == sorted(places)


@needs_chromium
def test_short_on_a_phone_and_whole_in_print(
    page: Any, master: Path, tmp_path: Path, slide: ArraySlide, tissue: Tissue
) -> None:
    page_of(master, tmp_path / "a.html", slide, tissue)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto((tmp_path / "a.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out"
    first, second, third = (page.locator(".fields figure").nth(k).bounding_box() for k in range(3))
    assert first["y"] == second["y"] < third["y"], "fields stand in twos"
    how = page.locator(".how").first
    assert not how.is_visible(), "how cells were found opens with a touch"
    page.emulate_media(media="print")
    assert how.is_visible() and not page.locator(".toggle").is_visible(), "on paper nothing can be opened"
    assert page.pdf().startswith(b"%PDF")


def test_each_stain_of_a_marker_alone(slide: ArraySlide, master: Path, tissue: Tissue, tmp_path: Path) -> None:
    """A panel of its own, where a slide has another stain than haematoxylin and eosin."""
    xy = np.random.default_rng(1).uniform((20, 20), (1180, 780), (600, 2))
    for vectors, wanted in ((HDAB, ("Hematoxylin alone", "DAB alone")), (HE, ())):
        stained = write_master(tmp_path / "stained.parquet", xy, stain_vectors=vectors.as_dict())
        write_report(stained, tmp_path / "a.html", Facts.of(stained), slide, tissue)
        page = (tmp_path / "a.html").read_text()
        assert ("<h2>Stains</h2>" in page) == bool(wanted) and all(name in page for name in wanted)
        Page(page)


# --- regions ----------------------------------------------------------------------------------------------------------


def test_regions_have_a_panel(phantom: Phantom, tmp_path: Path) -> None:
    master = truth_master(tmp_path / "cells.parquet", phantom)
    squares = {"Left & <right>": (100, 100, 700, 700), "Inside": (300, 300, 500, 500)}
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.box(*box)),
            "properties": {"objectType": "annotation", "name": name, "classification": {"name": "Tumor"}},
        }
        for name, box in squares.items()
    ]
    regions = tmp_path / "regions.geojson"
    regions.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    plain, told, folder = tmp_path / "plain.html", tmp_path / "told.html", tmp_path / "results"
    common = ["report", str(master), "--slide", str(phantom.path)]
    assert main([*common, "-o", str(plain)]) == 0
    assert main([*common, "-o", str(told), "--regions", str(regions)]) == 0
    assert "<h2>Regions</h2>" not in plain.read_text()
    page = told.read_text()
    panel = page.partition("<h2>Regions</h2>")[2].partition("</section>")[0]
    assert "Left &amp; &lt;right&gt;" in panel and panel.count('class="field"') == 2, "outlined, and escaped"
    for box in squares.values():
        count = len(phantom.truth.centroids(box))
        assert f'<td class="n">{count}</td>' in panel, "the cells that were drawn there"
    # a folder: each slide has its own, a page is made again when they change
    folder.mkdir()
    (folder / "a.parquet").write_bytes(master.read_bytes())
    (folder / "a.run.json").write_text(json.dumps({"slide": str(phantom.path)}))
    assert main(["report", str(folder), "--regions", str(regions)]) == 2
    (tmp_path / "drawn").mkdir()
    own = tmp_path / "drawn" / "a.geojson"
    own.write_text(regions.read_text())
    many = ["report", str(folder), "--regions", str(tmp_path / "drawn")]
    assert main(many) == 0 and "Inside" in (folder / "a.report.html").read_text()
    own.write_text(regions.read_text().replace("Inside", "Another"))
    assert main(many) == 0 and "Another" in (folder / "a.report.html").read_text()
