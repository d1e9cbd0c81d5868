"""Every command that writes: killed at any moment it leaves old or new; two at once never mix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.conftest import ROOT

LIMIT = int(os.environ.get("WSIPIPE_TEST_MOMENTS", "1"))
"""Moments at which each command is killed; 1000 for all that there are."""
MODEL = ["--model", "{}/tiny.safetensors", "--device", "cpu", "--block", "256"]
PICTURE = [*MODEL, "--mpp", "0.5", "--tissue", "none"]
SMALL = ["--crop", "64", "--batch", "1", "--final-share", "0", "--warmup", "1", "--checkpoint-every", "1"]
CPU = ["--model", "{}/tiny.safetensors", "--device", "cpu"]
CORPUS = ["build-corpus", "{}/images", "--image-mpp", "0.5", "--patch", "64", "--threads", "1", "--max-background", "1",
          "--min-focus", "0", "--mpp", "native", "--shard", "2", "-o", "{}/c.zarr"]  # fmt: skip


def case(outputs: str, command: list[str], before: list[str], early: bool = False) -> dict[str, Any]:
    return {"outputs": outputs.split(), "command": command, "before": before, "early": early}


def twice(outputs: str, command: list[str], old: list[str], new: list[str]) -> dict[str, Any]:
    """Return the case of a command with *new* options that finds what it made with *old* ones."""
    return case(outputs, [*command, *new], [*command, *old])


CASES = {
    "segment": twice(
        "out.parquet out.geojson.gz",
        ["segment", "{}/images/a.png", *PICTURE, "-o", "{}/out.parquet", "-o", "{}/out.geojson.gz"],
        [], ["--min-area-um2", "30"],
    ),
    "batch": twice(
        "out/a.parquet out/b.parquet", ["segment", "{}/images/*.png", *PICTURE, "-o", "{}/out/"],
        [], ["--min-area-um2", "30"],
    )
    | {"early": True},
    "tile": twice("s.zarr", ["tile", "{}/slide.tiff", "-o", "{}/s.zarr"], [], ["--target-mpp", "1"]),
    "features": twice("f.h5", ["features", "{}/slide.tiff", *CPU, "-o", "{}/f.h5"], [], ["--pool", "both"]),
    "features zarr": twice("f.zarr", ["features", "{}/slide.tiff", *CPU, "-o", "{}/f.zarr"], [], ["--pool", "both"]),
    "build-corpus": twice("c.zarr c.report.json", CORPUS, [], ["--seed", "5", "--cap", "4"]),
    "pretrain": case(
        "run/backbone.safetensors",
        ["pretrain", "{}/p.zarr", "-o", "{}/run", "--steps", "2", "--batch", "1", "--split", "all", "--device", "cpu"],
        ["build-corpus", "{}/slide.tiff", "--threads", "1", "--max-background", "1", "--min-focus", "0", "--mpp",
         "native", "--max-zoom", "1.1", "--cap", "2", "-o", "{}/p.zarr"],
    ),
    "fit": case(
        "run/model.safetensors",
        ["fit", "{}/set", "--mpp", "0.5", "-o", "{}/run", "--steps", "2", *SMALL, "--head", "linear", "--backbone",
         "{}/tiny.safetensors", "--device", "cpu"], [],
    ),
    "evaluate": twice(
        "r", ["evaluate", "{}/set", "--mpp", "0.5", "--resamples", "5", *CPU, "-o", "{}/r"], [], ["--threshold", "0.3"]
    ),
    "convert": twice(
        "a.geojson b.csv c.zarr",
        ["convert", "{}/cells.parquet", "-o", "{}/a.geojson", "-o", "{}/b.csv", "-o", "{}/c.zarr"],
        [], ["--bounds", "0,0,400,400"],
    ),
    "measure": twice(
        "m.parquet", ["measure", "{}/cells.parquet", "--slide", "{}/slide.tiff", "-o", "{}/m.parquet"],
        [], ["--add", "ring"],
    ),
    "summarise": twice(
        "t.csv", ["summarise", "{}/cells.parquet", "-o", "{}/t.csv"], [], ["--measurement", "area_um2"]
    ),
    "quality": twice(
        "q.csv q.png",
        ["quality", "{}/slide.tiff", "-o", "{}/q.csv", "--overlay", "{}/q.png"],
        [], ["--mpp", "0.6", "--force-mpp"],
    ),
    "visualize": twice(
        "v.png", ["visualize", "{}/images/a.png", *CPU, "-o", "{}/v.png", "--panels", "clusters"],
        [], ["--clusters", "3"],
    ),
    "report": twice("cells.report.html", ["report", "{}/cells.parquet"], [], ["--title", "Another"]),
    "models export": twice(
        "e.safetensors", ["models", "export", "{}/tiny.safetensors", "-o", "{}/e.safetensors"], [], ["--name", "other"]
    ),
    "demo-slide": twice("d.tiff d.geojson", ["demo-slide", "{}/d.tiff", "--truth", "{}/d.geojson", "--width", "300",
        "--height", "300"], [], ["--seed", "9"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def template(small_slide: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the commands take: slides, pictures with labels, a model, found cells."""
    from wsipipe.cli.main import main
    from wsipipe.slide import open_slide

    folder = tmp_path_factory.mktemp("template")
    (folder / "slide.tiff").symlink_to(small_slide)
    (folder / "tiny.safetensors").symlink_to(tiny_model)
    for name in ("images", "set/images", "set/labels"):
        (folder / name).mkdir(parents=True)
    with open_slide(small_slide) as slide:
        for name, x in (("a", 100), ("b", 400)):
            picture = Image.fromarray(slide.read_region(0, x, 150, 192, 192))
            for place in ("images", "set/images"):
                picture.save(folder / place / f"{name}.png")
            labels = tiny.disc_labels(192, (40, 40, 9), (120, 60, 10), (90, 140, 8))
            Image.fromarray(labels.astype(np.uint16)).save(folder / "set/labels" / f"{name}.png")
    assert (
        main([w.replace("{}", str(folder)) for w in ["segment", "{}/slide.tiff", *MODEL, "-o", "{}/cells.parquet"]])
        == 0
    )
    return folder


@pytest.mark.parametrize("name", CASES)
def test_killed_or_two_at_once(name: str, template: Path, tmp_path: Path) -> None:
    own = tmp_path / "template"
    subprocess.run(["cp", "-r", str(template), str(own)], check=True)
    (tmp_path / "place").mkdir()
    asked = CASES[name] | {"template": str(own), "place": str(tmp_path / "place"), "limit": LIMIT}
    (tmp_path / "case.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "tests.runs.moments", str(tmp_path / "case.json")]
    one = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}  # a fork has no threads of its parent's
    done = subprocess.run(command, cwd=ROOT, env=os.environ | one, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["moments"] > 3 and not found["wrong"], "\n".join(found["wrong"])
