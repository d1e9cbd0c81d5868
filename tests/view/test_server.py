"""What the viewer's server answers, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from starlette.testclient import TestClient

from tests.conftest import Phantom
from tests.masters import truth_master
from wsipipe.cli.main import main
from wsipipe.errors import OutputError, SettingsError
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.pipelines import view
from wsipipe.pipelines.view import ViewJob
from wsipipe.quality.map import FAULTS
from wsipipe.schedule.progress import Progress
from wsipipe.settings import StainSettings
from wsipipe.slide import ArraySlide, open_slide
from wsipipe.stain.unmix import HDAB, HE, densities
from wsipipe.view.answers import Shown
from wsipipe.view.areas import Area
from wsipipe.view.index import CellIndex
from wsipipe.view.pyramid import Pyramid
from wsipipe.view.server import application, listen, new_token

TOKEN = "a-token"


@pytest.fixture(scope="module")
def master(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth_master(tmp_path_factory.mktemp("view") / "cells.parquet", phantom)


@pytest.fixture(scope="module")
def client(phantom: Phantom, master: Path) -> Iterator[TestClient]:
    with open_slide(phantom.path) as slide:
        app = application(Shown(slide, "phantom.tiff", CellIndex(master)), TOKEN)
        yield TestClient(app, base_url=f"http://127.0.0.1:8000/{TOKEN}/")


def test_knows_the_slide_and_the_cells(client: TestClient, phantom: Phantom) -> None:
    info = client.get("info").json()
    assert info["size"] == [1536, 1024] and info["max_level"] == 11 and info["mpp"] == [0.5, 0.5]
    assert info["cells"] == sum(c["cells"] for c in info["classes"])
    assert "area_um2" in info["measures"] and "x" not in info["measures"]
    assert str(phantom.path.parent) not in client.get("info").text


@pytest.mark.parametrize(
    "path",
    [
        "/", "/info", "/wrong/info", "/a-token", "/a-token2/info", "/a-token/nothing",
        "/a-token/assets/../index.html", "/a-token/assets/%2e%2e/answers.py", "/a-token/assets//etc/passwd",
        "/a-token/assets/index.html", "/a-token/tiles/11/99_99.jpg", "/a-token/tiles/99/0_0.jpg",
        "/a-token/tiles/-1/0_0.jpg", "/a-token/tiles/11/0_0.png", "/a-token/cells/99/0_0",
        "/a-token/cells/11/0_0?by=geometry", "/a-token/spread/geometry", "/a-token/spread/..%2f..%2fx",
        "/a-token/cell?x=nan&y=1", "/a-token/cell?x=1",
        *(f"/a-token/tiles/{'9' * digits}/0_0.jpg" for digits in (10, 400, 5000)),
        *(f"/a-token/cells/11/{'9' * digits}_0" for digits in (10, 400, 5000)),
        f"/a-token/cell?y=1&x={'9' * 400}",
    ],
)  # fmt: skip
def test_refuses(client: TestClient, path: str) -> None:
    answer = client.get(f"http://127.0.0.1:8000{path}")
    assert answer.status_code == 404


def test_numbers_of_any_length_are_passed_over(client: TestClient) -> None:
    for digits in (10, 400, 5000):
        assert client.get(f"density.png?hide={'9' * digits}").status_code == 200


def test_refuses_other_hosts_and_methods(client: TestClient) -> None:
    assert client.get("info", headers={"host": "evil.example:8000"}).status_code == 404
    assert client.get("info", headers={"host": "localhost:8000"}).status_code == 200
    assert client.post("info").status_code == 404


def test_every_answer_forbids_what_is_elsewhere(client: TestClient) -> None:
    for path in ("", "info", "tiles/11/0_0.jpg", "assets/viewer.js", "assets/nothing"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy
        assert "frame-src 'none'" in policy and "frame-ancestors 'none'" in policy, "frames are of label and pair alone"
        assert headers["referrer-policy"] == "no-referrer" and headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_only_what_is_served(client: TestClient) -> None:
    page = client.get("").text
    assert "https://" not in page and "http://" not in page
    for name in ("viewer.css", "viewer.js", "cells.js", "panel.js", "openseadragon/openseadragon.min.js"):
        assert client.get(f"assets/{name}").status_code == 200
    assert (
        "BSD" in client.get("assets/openseadragon/LICENSE.txt").text
        or "Redistribution" in client.get("assets/openseadragon/LICENSE.txt").text
    )


def test_tiles_are_the_slides_pixels(client: TestClient, phantom: Phantom) -> None:
    with open_slide(phantom.path) as slide:
        whole = slide.read_region(0, 0, 0, 1536, 1024)
    for level, column, row, shape in (
        (11, 2, 1, (256, 256)),
        (11, 5, 3, (256, 256)),
        (9, 1, 0, (256, 128)),
        (8, 0, 0, (128, 192)),
    ):
        data = client.get(f"tiles/{level}/{column}_{row}.jpg").content
        rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert rgb.shape[:2] == shape
        scale, x, y = 2 ** (11 - level), column * 256, row * 256
        box = whole[y * scale : (y + shape[0]) * scale, x * scale : (x + shape[1]) * scale]
        want = cv2.resize(box, shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(rgb.astype(int) - want).mean() < 6


def test_a_tile_at_the_end_of_the_slide_is_cut() -> None:
    pixels = np.full((300, 520, 3), 200, np.uint8)
    pyramid = Pyramid(ArraySlide([pixels], mpp=0.5))
    data = pyramid.tile(pyramid.max_level, 2, 1)
    assert data is not None
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (44, 8, 3)
    assert pyramid.tile(pyramid.max_level, 3, 0) is None
    assert pyramid.tile(0, 0, 0) is not None
    pyramid.close()


def test_unreadable_tiles_are_background() -> None:
    slide = ArraySlide([np.zeros((512, 512, 3), np.uint8)], mpp=0.5, bad=[(0, 0, 256, 256)])
    data = Pyramid(slide).tile(9, 0, 0)
    assert data is not None
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) > 250).all()


def test_cells_of_tiles_and_points(client: TestClient, master: Path) -> None:
    index = CellIndex(master)
    far = client.get("cells/5/0_0").content
    assert far[:4] == (2).to_bytes(4, "little")
    near = client.get("cells/13/0_0")
    assert near.content[:4] == (1).to_bytes(4, "little")
    assert client.get("cells/5/0_0?hide=0,1,2,junk").content[4:8] == bytes(4)
    x, y = map(float, index._xy[0])
    cell = client.get("cell", params={"x": x, "y": y}).json()
    assert {"cell_id", "class", "area_um2", "outline"} <= set(cell)
    assert client.get("cell", params={"x": -1, "y": -1}).json() is None
    assert client.get("spread/area_um2").json() == [100.0, 101.0]
    density = client.get("density.png")
    assert density.content.startswith(b"\x89PNG") and float(density.headers["x-top"]) > 0


def test_a_slide_alone(phantom: Phantom) -> None:
    with open_slide(phantom.path) as slide:
        client = TestClient(application(Shown(slide, "p"), TOKEN), base_url=f"http://127.0.0.1/{TOKEN}/")
        assert "cells" not in client.get("info").json()
        assert client.get("cells/5/0_0").status_code == 404
        assert client.get("tiles/8/0_0.jpg").status_code == 200


def test_listens_on_this_machine_only() -> None:
    with listen(0) as first:
        assert first.getsockname()[0] == "127.0.0.1"
        with socket.socket() as other, pytest.raises(OutputError, match="--port 0"):
            other.bind(("127.0.0.1", 0))
            other.listen()
            listen(other.getsockname()[1])
    assert new_token() != new_token() and len(new_token()) >= 20


def test_the_command_serves_until_interrupted(phantom: Phantom, master: Path) -> None:
    command = [sys.executable, "-m", "wsipipe", "view", str(phantom.path), str(master), "--no-browser", "--at", "50,60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.endswith("/#x=50&y=60&s=1")
        with urllib.request.urlopen(address.partition("#")[0] + "info") as answer:
            assert b"phantom.tiff" in answer.read()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and rest.endswith("closed\n")


def test_says_what_is_wrong(tmp_path: Path, master: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.png"
    cv2.imwrite(str(other), np.zeros((50, 60, 3), np.uint8))
    for args, words in (
        (["gone.svs"], "no such slide"),
        ([str(other), str(master)], "1536 x 1024"),
        ([str(other), str(other)], "not a cells file"),
        ([str(other), "--at", "here"], "no position"),
    ):
        assert main(["view", *args, "--no-browser"]) != 0
        assert words in capfd.readouterr().err


def test_what_cannot_be_read_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "cut.tiff"
    write_phantom(path, PhantomSettings(width=500, height=400, seed=5, mpp=0.5, tissue=0.9, corrupt_tiles=2))
    with open_slide(path) as slide:
        pyramid = Pyramid(slide)
        for _ in range(2):
            for column, row in np.ndindex(2, 2):
                pyramid.tile.__wrapped__(pyramid.max_level, column, row)
        pyramid.close()
    assert caplog.text.count("cut.tiff: parts of it cannot be read") == 1


# --- layers of the slide: stains alone, areas -------------------------------------------------------------------------


def _picture(client: TestClient, path: str) -> NDArray[np.float64]:
    return np.asarray(cv2.imdecode(np.frombuffer(client.get(path).content, np.uint8), cv2.IMREAD_UNCHANGED), float)


def test_each_stain_alone(phantom: Phantom) -> None:
    """Haematoxylin alone is blue and eosin pink, where the slide has both; there is no third."""
    with open_slide(phantom.path) as slide:
        client = TestClient(application(Shown(slide, "p", vectors=HE), TOKEN), base_url=f"http://127.0.0.1/{TOKEN}/")
        assert client.get("info").json()["stains"] == ["Hematoxylin", "Eosin"]
        names = ("tiles/10/1_1.jpg", "stains/0/10/1_1.jpg", "stains/1/10/1_1.jpg")
        both, blue, pink = (_picture(client, name) for name in names)
        tissue = both.min(axis=2) < 150
        assert tissue.sum() > 1000
        (b, g, r), (b2, g2, r2) = blue[tissue].mean(axis=0), pink[tissue].mean(axis=0)
        assert b > r and b > g and r2 > b2 > g2, "blue of haematoxylin, pink of eosin"
        rgb = slide.read_region(0, 512, 512, 64, 64)
        alone = [densities(HE.alone(rgb, k)) for k in (0, 1)]
        np.testing.assert_allclose(sum(alone), np.clip(HE.amounts(rgb), 0, None) @ HE._basis[:2], atol=0.02)
        for path in ("stains/2/10/1_1.jpg", "stains/0/99/0_0.jpg", "stains/-1/10/1_1.jpg", "stains/x/10/1_1.jpg"):
            assert client.get(path).status_code == 404, path


def test_stains_are_those_of_the_cells(client: TestClient, phantom: Phantom, tmp_path: Path) -> None:
    assert client.get("info").json()["stains"] == [], "nobody has told"
    master = truth_master(tmp_path / "cells.parquet", phantom, stain_vectors=HDAB.as_dict())
    with open_slide(phantom.path) as slide:
        app = application(Shown(slide, "p", CellIndex(master)), TOKEN)
        other = TestClient(app, base_url=f"http://127.0.0.1/{TOKEN}/")
        assert other.get("info").json()["stains"] == ["Hematoxylin", "DAB"]


def test_areas_are_drawn_where_they_are(phantom: Phantom) -> None:
    ring = shapely.difference(shapely.box(100, 100, 700, 700), shapely.box(300, 300, 500, 500))
    areas = (Area(ring, "Tumor", (200, 0, 0)), Area(shapely.box(600, 600, 640, 640), "Fold", (255, 130, 0)))
    with open_slide(phantom.path) as slide:
        shown = Shown(slide, "p", areas=areas)
        client = TestClient(application(shown, TOKEN), base_url=f"http://127.0.0.1/{TOKEN}/")
        told = client.get("info").json()["areas"]
        assert [(a["name"], a["areas"]) for a in told] == [("Tumor", 1), ("Fold", 1)]
        assert [a["colour"] for a in told] == [[200, 0, 0], [255, 130, 0]]
        for level in (11, 9):
            scale = 2 ** (11 - level)
            count = -(-1024 // scale // 512)
            rows = [[_picture(client, f"areas/{level}/{i}_{j}.png") for i in range(count)] for j in range(count)]
            whole = np.concatenate([np.concatenate(row, axis=1) for row in rows])
            assert whole[50 // scale, 50 // scale, 3] == whole[400 // scale, 400 // scale, 3] == 0, (
                "around it, its hole"
            )
            assert whole[200 // scale, 200 // scale].tolist() == [0, 0, 200, 70]
            assert whole[620 // scale, 620 // scale, :3].tolist() == [0, 130, 255], "the smaller one is above"
            assert whole[400 // scale, 100 // scale, 3] > 200, "its outline"
            assert whole[512 // scale, 200 // scale, 3] == 70, "no line where tiles meet"
        assert _picture(client, "areas/11/0_0.png?hide=0")[200, 200, 3] == 0
        assert client.get("areas/11/9_9.png").status_code == client.get("areas/99/0_0.png").status_code == 404


def test_the_command_reads_areas_of_others(phantom: Phantom, tmp_path: Path) -> None:
    """Annotations of QuPath, and what is wrong with the slide."""
    shape = {"type": "Polygon", "coordinates": [[[0, 0], [400, 0], [400, 400], [0, 400], [0, 0]]]}
    feature = {"type": "Feature", "geometry": shape, "properties": {"objectType": "annotation", "name": "here"}}
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with open_slide(phantom.path) as slide:
        job = ViewJob(str(phantom.path), areas=(tmp_path / "a.geojson",), quality=True, stain=StainSettings("he"))
        found = view._areas(job, slide, Progress())
        assert found[0].kind == "here" and found[0].shape.equals(shapely.box(0, 0, 400, 400))
        assert {area.kind for area in found[1:]} <= {kind.label.capitalize() for kind in FAULTS}
        assert view._vectors(job, slide) is HE and view._vectors(ViewJob(str(phantom.path)), slide) is None
    (tmp_path / "b.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(SettingsError, match="no annotation with an area in it"), open_slide(phantom.path) as slide:
        view._areas(ViewJob(str(phantom.path), areas=(tmp_path / "b.geojson",)), slide, Progress())
