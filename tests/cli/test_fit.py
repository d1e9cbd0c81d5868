"""`wsipipe fit` at the command line, and the shipped recipe."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT, Phantom
from wsipipe.cli.main import main
from wsipipe.cli.options import read_config
from wsipipe.labels import DatasetSpec
from wsipipe.models.checkpoint import read_card
from wsipipe.models.zoo import resolve


@pytest.fixture
def annotated(phantom: Phantom, tmp_path: Path) -> Path:
    """Return a folder with two annotated pictures, cut from the phantom."""
    for name, x in (("p1_a", 400), ("p2_a", 600)):
        box = x, 400, x + 160, 560
        for kind, array in (("images", phantom.truth.picture(box)), ("labels", phantom.truth.instance_map(box))):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype("uint16") if kind == "labels" else array).save(
                tmp_path / "set" / kind / f"{name}.png"
            )
    return tmp_path / "set"


SMALL = ["--crop", "64", "--batch", "1", "--final-share", "0", "--warmup", "1"]


def test_fits_a_model_that_segment_takes(
    annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "2", *SMALL]
    assert main([*command, "--name", "mine"]) == 0
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert card.name == "mine" and card.head is not None and card.head.kind == "cisca"
    assert card.training["datasets"][0]["images"] == 2
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2
    assert main([*command, "--name", "another"]) == 6
    assert "holds another run" in capfd.readouterr().err


def test_a_frozen_backbone_from_a_checkpoint(annotated: Path, tmp_path: Path) -> None:
    import safetensors.torch

    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "1", *SMALL]
    assert main([*command, "--head", "linear", "--backbone", str(resolve("cmd-t"))]) == 0
    before = safetensors.torch.load_file(resolve("cmd-t"))
    after = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    kept = [name for name in before if name.startswith("backbone.")]
    assert kept and all((after[name].float() == before[name].float()).all() for name in kept)


def test_bad_sets(annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "run")]
    assert main(["fit", *out]) == 2
    assert main(["fit", str(tmp_path / "nowhere"), *out]) == 5
    shutil.copy(annotated / "images" / "p1_a.png", annotated / "images" / "p3_a.png")
    assert main(["fit", str(annotated), *out]) == 5
    assert main(["fit", str(annotated), "--mpp", "abc", *out]) == 2
    said = capfd.readouterr().err
    assert said.count("wsipipe: error:") == 4 and "p3_a has only an image" in said


def test_the_shipped_recipe_is_the_models() -> None:
    recipe = tomllib.loads((ROOT / "workflows/default-model/fit.toml").read_text())
    config = read_config(ROOT / "workflows/default-model/fit.toml")
    specs = [DatasetSpec(**table) for table in config.datasets]
    training = read_card(resolve("cmd-t")).training
    assert [s.path for s in specs] == [d["path"] for d in training["datasets"]]
    assert training["settings"]["loop"]["steps"] == recipe["loop"]["steps"]
    assert training["settings"]["seed"] == recipe["fit"]["seed"]
