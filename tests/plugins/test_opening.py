"""Which network ``--model`` means, what its TOML file may say, and a plug-in that somebody else installed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.plugins.checks import FOREGROUND, QUIET, SAID, found, job_of
from tests.plugins.networks import Dark, script
from wsipipe.cli.main import cli
from wsipipe.errors import MissingDependency, ModelError, ModelNotFound, NotAModel, SettingsError
from wsipipe.formats.parquet import metadata
from wsipipe.labels import DatasetSpec
from wsipipe.pipelines.evaluate import EvaluateJob, run_evaluate, run_tune
from wsipipe.plugins import opening
from wsipipe.plugins.opening import full_name, open_predictor, split, weights_digest
from wsipipe.plugins.said import read_said
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import EvaluateSettings, RunSettings

TOY = """
import numpy as np
from scipy import ndimage

from wsipipe.plugins.levels import scaled
from wsipipe.plugins.protocol import Looks, Objects


class Toy:
    def __init__(self, about, level, most):
        self.about, self.level, self.most = about, level, most

    def objects(self, tiles, levels):
        if len(tiles) > self.most:
            raise RuntimeError("out of memory")
        found = []
        for pixels in scaled(tiles, levels):
            labels, count = ndimage.label(pixels[..., 0] < self.level)
            found.append(Objects(labels, np.full(count, 0.75)))
        return found


def open_toy(weights, device, said):
    about = said.about("toy 1.0", Looks(mpp=0.5, tile=256, context=8, max_diameter_um=16.0, percentiles=(1.0, 99.0)))
    return Toy(about, float(weights.read_text()), said.options({"most": 64})["most"])
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a plug-in that is installed as a package of its own: one module, one entry point."""
    site = tmp_path / "site"
    about = site / "toy_nuclei-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "toy_nuclei.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-nuclei\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[wsipipe.segmenters]\ntoy = toy_nuclei:open_toy\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    opening.registered.cache_clear()
    (tmp_path / "level.txt").write_text("0.3")
    yield f"toy:{tmp_path / 'level.txt'}"
    opening.registered.cache_clear()
    sys.modules.pop("toy_nuclei", None)


def test_a_plugin_of_somebody_else(toy: str, small_slide: Path, tmp_path: Path) -> None:
    cells = found(small_slide, tmp_path / "a.parquet", toy)
    assert len(cells) > 50 and np.allclose(cells["probability"], 0.75, atol=0.01)
    about = metadata(tmp_path / "a.parquet")
    assert about["model"]["name"] == "toy:level.txt" and about["recipe"]["engine"] == "toy 1.0"
    assert json.loads((tmp_path / "a.run.json").read_text())["model"] == toy
    found(small_slide, tmp_path / "two.parquet", toy, block=256, workers=2)
    assert (tmp_path / "two.parquet").read_bytes() == (tmp_path / "a.parquet").read_bytes(), "in two processes"


def test_half_the_batch_when_memory_runs_out(toy: str, small_slide: Path, tmp_path: Path) -> None:
    cells = found(small_slide, tmp_path / "a.parquet", toy)
    (tmp_path / "level.toml").write_text("[options]\nmost = 2\n")
    said: list[str] = []

    class Listening(type(QUIET)):  # type: ignore[misc]
        def say(self, line: str) -> None:
            said.append(line)

    run_segment(job_of(small_slide, tmp_path / "b.parquet", toy), Listening())
    assert any("trying 2" in line for line in said)
    about = metadata(tmp_path / "b.parquet")
    assert about["recipe"]["batch"] == 2 and about["cells"] == len(cells)
    (tmp_path / "level.toml").write_text("[options]\nmost = 0\n")
    with pytest.raises(ModelError, match="not enough memory"):
        found(small_slide, tmp_path / "c.parquet", toy)


def test_the_command_takes_a_plugin(toy: str, small_slide: Path, tmp_path: Path) -> None:
    """Of many slides, with the model in a column of the table; a plan is told beforehand."""
    table = tmp_path / "slides.csv"
    table.write_text(f"path,model\n{small_slide},{toy}\n")
    run = CliRunner().invoke(cli, ["segment", str(table), "-o", str(tmp_path / "out"), "--format", "parquet"])
    assert run.exit_code == 0, run.output
    (master,) = (tmp_path / "out").rglob("*.parquet")
    assert metadata(master)["model"]["name"] == "toy:level.txt" and metadata(master)["cells"] > 50
    run = CliRunner().invoke(
        cli, ["segment", str(small_slide), "-o", str(tmp_path / "a.parquet"), "--model", toy, "--dry-run"]
    )
    assert run.exit_code == 0 and "(256 px, overlap 96 px)" in run.output, run.output


def test_the_list_of_models_names_them(toy: str) -> None:
    run = CliRunner().invoke(cli, ["models"])
    assert run.exit_code == 0 and "stardist:WEIGHTS" in run.output and "toy:WEIGHTS" in run.output, run.output


def test_evaluates_a_plugin(toy: str, tmp_path: Path) -> None:
    from PIL import Image

    from tests.pipelines.test_evaluate import discs

    folder = tmp_path / "discs"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for seed in range(2):
        item = discs(seed)
        Image.fromarray(item.image).save(folder / "images" / f"{item.name}.png")
        Image.fromarray(item.labels.astype(np.uint16)).save(folder / "labels" / f"{item.name}.png")
    spec = DatasetSpec(str(folder), 0.25, r"(\d+)_")
    job = EvaluateJob(spec, tmp_path / "out", "all", toy, scoring=EvaluateSettings(resamples=20, pictures=1))
    result = run_evaluate(job, QUIET)
    assert result.summary.pooled["DQ"].value > 0.95 and result.summary.pooled["PQ"].value > 0.8
    assert result.about["model"] == "toy:level.txt"
    with pytest.raises(SettingsError, match="--tune chooses thresholds of wsipipe's own networks"):
        run_tune(dataclasses.replace(job, part="val"), QUIET)


@pytest.mark.parametrize(
    ("model", "error", "expected"),
    [
        ("stardst:x", ModelNotFound, "no plug-in 'stardst' .*; there are cellpose, .*, stardist, torchscript"),
        ("torchscript:none.pt", ModelNotFound, "no weights at none.pt; expected --model torchscript:FILE"),
        ("onnx:", ModelNotFound, "no weights at nowhere"),
    ],
)
def test_a_wrong_name_is_told(model: str, error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        split(model)


def test_own_networks_and_drives_are_no_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split("cmd-t") is None and split(r"C:\net.safetensors") is None
    monkeypatch.chdir(tmp_path)
    Path("a:b.safetensors").touch()
    assert split("a:b.safetensors") is None
    (tmp_path / "net.pt").touch()
    assert full_name("torchscript:net.pt") == f"torchscript:{tmp_path / 'net.pt'}" and full_name("cmd-t") == "cmd-t"


def test_the_digest_holds_every_file(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "weights.h5").write_text("1")
    seen = {weights_digest(f"stardist:{folder}")}
    (folder / "weights.h5").write_text("2")
    seen.add(weights_digest(f"stardist:{folder}"))
    (folder / "wsipipe.toml").write_text("mpp = 0.5")
    seen.add(weights_digest(f"stardist:{folder}"))
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mpp = 9", "its mpp is 9; expected 0.05 to 5 µm/px"),
        ("tile = 10.5", "its tile is 10.5; expected 64 to 8192 px"),
        ("resolution = 1", "its entry is resolution; expected one of mpp"),
        ('types = ["a", "a"]', "expected names, each once"),
        ("percentiles = [1]", "expected two numbers"),
        ("mpp = ", "net.toml: "),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "net.toml").write_text(text)
    with pytest.raises(NotAModel, match=expected):
        read_said(tmp_path / "net.pt")


def test_what_a_network_in_a_file_lacks_is_told(tmp_path: Path) -> None:
    model = script(Dark(), tmp_path / "net.pt", "")
    with pytest.raises(NotAModel, match=r"net\.toml must say mpp of the weights beside it"):
        open_predictor(model, "cpu")
    (tmp_path / "net.toml").write_text(SAID + 'output = "bones"\n')
    with pytest.raises(NotAModel, match="its option output is 'bones'; expected hovernet, labels, foreground"):
        open_predictor(model, "cpu")
    (tmp_path / "net.toml").write_text(SAID + "outputs = 3\n")
    with pytest.raises(NotAModel, match="its option is outputs; expected one of output"):
        open_predictor(model, "cpu")
    (tmp_path / "net.toml").write_text(SAID)
    tiles = np.zeros((1, 256, 256, 3), np.uint8)
    with pytest.raises(ModelError, match="the network returns no hv"):
        open_predictor(model, "cpu").maps(tiles)
    (tmp_path / "net.toml").write_text(FOREGROUND)
    with pytest.raises(SettingsError, match="--precision bf16 is for wsipipe's own networks"):
        open_predictor(model, "cpu", "bf16")
    (tmp_path / "net.pt").write_bytes(b"no network")
    with pytest.raises(NotAModel, match=r"net\.pt: cannot be loaded .*; expected a file that torch\.jit\.save wrote"):
        open_predictor(model, "cpu")


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("labels - 1", "labels from -1"),
        ("labels * 1.0", "labels that are float64"),
        ("labels[1:]", r"labels that are int32 \(255, 256\)"),
    ],
)
def test_what_a_plugin_must_not_return(toy: str, tmp_path: Path, returned: str, expected: str) -> None:
    module = tmp_path / "site/toy_nuclei.py"
    module.write_text(TOY.replace("Objects(labels,", f"Objects({returned},"))
    with pytest.raises(ModelError, match=rf"the plug-in toy:level\.txt returned {expected}"):
        open_predictor(toy, "cpu").maps(np.full((1, 256, 256, 3), 245, np.uint8))


@pytest.mark.parametrize(
    ("name", "module"), [("stardist", "stardist"), ("cellpose", "cellpose"), ("onnx", "onnxruntime")]
)
def test_what_installs_a_missing_library_is_said(tmp_path: Path, name: str, module: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    (tmp_path / "net").touch()
    with pytest.raises(MissingDependency, match=rf"--model {name}:.* needs the package .*pip install '\.\[{name}\]'"):
        open_predictor(f"{name}:{tmp_path / 'net'}", "cpu")


def test_help_loads_none_of_it() -> None:
    code = (
        "import sys, wsipipe.cli.segment; sys.exit('torch' in sys.modules or 'wsipipe.plugins.opening' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=300).returncode == 0


def test_a_run_of_one_engine_only(toy: str, small_slide: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--engine openvino is for wsipipe's own networks"):
        found(small_slide, tmp_path / "a.parquet", toy, run=RunSettings(device="cpu", engine="openvino"))
