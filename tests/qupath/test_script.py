"""The script for QuPath: Groovy takes it, and it runs wsipipe and brings the objects in.

QuPath itself cannot be had here: small stand-ins for its functions (``standins/``) keep the objects in a list. Needs
Groovy (``apt-get install groovy``); without it, only what can be told from the text is checked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Phantom
from wsipipe.cli.main import main
from wsipipe.cli.qupath_script import script

SCRIPT = ROOT / "wsipipe/formats/qupath/wsipipe.groovy"
needs_groovy = pytest.mark.skipif(shutil.which("groovy") is None, reason="no Groovy on this machine")
ID = "0b9a7b2e-5c7e-4a55-9a1b-6d2f3c1f1a11"


def test_it_starts_this_wsipipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["qupath-script", str(tmp_path)]) == 0
    text = (tmp_path / "wsipipe.groovy").read_text(encoding="utf-8")
    assert f'COMMAND = ["{sys.executable}", "-m", "wsipipe"]' in text
    assert "open it in QuPath" in capsys.readouterr().out
    assert r'["C:\\my py\\python.exe", "a\$b"]' in script([r"C:\my py\python.exe", "a$b"])


def groovy(*words: str, home: Path, **properties: object) -> subprocess.CompletedProcess[str]:
    """Run Groovy beside the stand-ins for QuPath."""
    given = [f"-D{name}={value}" for name, value in {"user.home": home, **properties}.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        ["groovy", "-cp", str(ROOT / "tests/qupath/standins"), *given, *words],
        env=environment, cwd=home, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


@needs_groovy
def test_groovy_parses_it(tmp_path: Path) -> None:
    check = "new org.codehaus.groovy.control.CompilationUnit().with { addSource(new File(args[0])); compile(%s) }"
    phase = "org.codehaus.groovy.control.Phases.CONVERSION"
    done = groovy("-e", check % phase, str(SCRIPT), home=tmp_path)
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "broken.groovy"
    broken.write_text(SCRIPT.read_text(encoding="utf-8").replace("def runWsipipe(List words) {", "def runWsipipe(", 1))
    assert groovy("-e", check % phase, str(broken), home=tmp_path).returncode != 0


@needs_groovy
def test_it_brings_cells_and_measurements_in(phantom: Phantom, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.geojson"
    square = [[[100, 100], [800, 100], [800, 700], [100, 700], [100, 100]]]
    tumour: dict[str, Any] = {
        "type": "Feature", "id": ID, "geometry": {"type": "Polygon", "coordinates": square},
        "properties": {"objectType": "annotation", "name": "tumour"},
    }  # fmt: skip
    drawn.write_text(json.dumps({"type": "FeatureCollection", "features": [tumour]}))
    told = tmp_path / "told.json"
    main(["qupath-script", str(tmp_path / "script.groovy")])
    text = (tmp_path / "script.groovy").read_text(encoding="utf-8")
    text = text.replace('["--model", "cmd-t"]', '["--device", "cpu"]').replace("QUALITY = false", "QUALITY = true")
    (tmp_path / "script.groovy").write_text(text, encoding="utf-8")
    given = {"slide": phantom.path, "drawn": drawn, "selected": 1, "told": told}
    done = groovy(str(tmp_path / "script.groovy"), home=tmp_path, **given)
    assert done.returncode == 0, done.stdout + done.stderr

    objects = json.loads(told.read_text(encoding="utf-8"))
    cells = [o for o in objects if o["kind"] == "detection"]
    inside = phantom.truth
    assert len(cells) > 20 and all("area_um2" in o["measurements"] for o in cells), inside
    (mine,) = [o for o in objects if o["id"] == ID]
    counted = {name: value for name, value in mine["measurements"].items() if name.startswith("wsipipe: ")}
    assert len(cells) in counted.values(), counted
    assert (tmp_path / "wsipipe" / "my_slide_1.parquet").is_file()
    assert json.loads((tmp_path / "wsipipe" / "my_slide_1.quality.geojson").read_text())["type"] == "FeatureCollection"


@needs_groovy
def test_it_refuses_what_is_turned_and_says_why_wsipipe_failed(phantom: Phantom, tmp_path: Path) -> None:
    main(["qupath-script", str(tmp_path / "script.groovy")])
    done = groovy(str(tmp_path / "script.groovy"), home=tmp_path, slide=phantom.path, turned=1)
    assert done.returncode != 0 and "turned or cropped in QuPath (RotatedImageServer)" in done.stderr
    done = groovy(str(tmp_path / "script.groovy"), home=tmp_path, slide=tmp_path / "none.svs")
    assert done.returncode != 0 and "wsipipe ended with code 3" in done.stderr and "no such slide" in done.stderr
    (tmp_path / "lost.groovy").write_text(script([str(tmp_path / "no-such-program")]), encoding="utf-8")
    done = groovy(str(tmp_path / "lost.groovy"), home=tmp_path, slide=phantom.path)
    assert done.returncode != 0 and "wsipipe does not start" in done.stderr
