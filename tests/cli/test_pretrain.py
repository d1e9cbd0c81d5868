"""`wsipipe pretrain` at the command line: from a slide to a backbone, bad input, several processes, the recipes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Phantom
from wsipipe.cli.main import main
from wsipipe.cli.options import collect, read_config
from wsipipe.models import cmd
from wsipipe.models.checkpoint import read_card
from wsipipe.models.cmd import CMDConfig
from wsipipe.settings import PretrainSettings

SMALL = ["--steps", "1", "--batch", "1", "--split", "all"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let size T be smaller still."""
    monkeypatch.setitem(cmd.SIZES, "T", lambda condition=0: CMDConfig((4, 4, 4, 8, 8, 16), condition))


def test_from_a_slide_to_a_backbone(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[corpus]\nmax_background = 1.0\nmin_focus = 0\n\n[pretrain]\nname = 'mine'\nlr = 1e-3\n")
    command = ["pretrain", str(phantom.path), "-o", str(tmp_path / "run"), "--config", str(config)]
    assert main([*command, *SMALL]) == 0
    card = read_card(tmp_path / "run" / "backbone.safetensors")
    assert card.name == "mine" and card.training["settings"]["lr"] == 1e-3
    assert (tmp_path / "run" / "corpus.zarr").is_dir() and (tmp_path / "run/pictures/step-0000001.png").is_file()
    assert "wsipipe fit DATASET --backbone" in capfd.readouterr().out
    assert main([*command, *SMALL, "--seed", "1"]) == 6
    corpus = str(tmp_path / "run" / "corpus.zarr")
    for bad, code in (
        (["--batch", "3", "--accumulate", "2"], 2),
        (["--device", "cuda:9"], 2),
        (["--encoder", str(tmp_path / "nowhere")], 4),
        (["--size", "XL"], 2),
    ):
        assert main(["pretrain", corpus, "-o", str(tmp_path / "bad"), *SMALL, *bad]) == code
    assert main(["pretrain", str(tmp_path / "nowhere"), "-o", str(tmp_path / "bad")]) != 0
    said = capfd.readouterr().err
    assert said.count("wsipipe: error:") == 6 and "holds another run" in said and "Traceback" not in said


def test_only_the_first_process_speaks(tmp_path: Path) -> None:
    environment = {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "wsipipe", "pretrain", str(tmp_path / "nowhere"), "-o", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("name", "size", "encoder", "steps"),
    [("method", "B", "hf-hub:MahmoodLab/UNI", 50_000), ("large-scale", "L", "hf-hub:bioptimus/H0-mini", 80_000)],
)
def test_the_recipes_are_the_papers(name: str, size: str, encoder: str, steps: int) -> None:
    settings = collect(PretrainSettings, {}, read_config(ROOT / f"workflows/pretraining/{name}.toml"))
    assert (settings.size, settings.encoder, settings.steps) == (size, encoder, steps)
    assert (settings.lr, settings.weight_decay, settings.ema) == (3e-5, 0, 0.9999)
