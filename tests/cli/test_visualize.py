"""`wsipipe visualize` at the command line: what it says, its options, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Phantom
from wsipipe.cli.main import main

FAST = ["--maps", "64,all", "--panel", "128"]


def test_a_picture_of_two_places(
    phantom: Phantom, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen.png"
    places = ["--at", "500,400", "--at", "900,500", "--point", "510,410", "--point", "900,500"]
    assert main(["visualize", str(phantom.path), *places, "--model", str(tiny_model), "-o", str(out), *FAST]) == 0
    captured = capfd.readouterr()
    with Image.open(out) as image:
        size = image.size
    assert captured.out == f"2 regions, clusters, similarity: wrote {out} ({size[0]} x {size[1]} px)\n"
    assert "reconstructions are left out" in captured.err


def test_settings_from_a_file(phantom: Phantom, tiny_model: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "run.toml", tmp_path / "seen.png"
    config.write_text("[visualize]\npanels = 'clusters'\nmaps = '64'\npanel = 128\n")
    command = ["visualize", str(phantom.path), "--at", "500,400", "--model", str(tiny_model), "-o", str(out)]
    assert main([*command, "--config", str(config)]) == 0
    with Image.open(out) as image:
        assert image.width == 2 * 24 + 2 * 128 + 10


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--at", "500"], 2, "'500' is no position; expected two numbers such as 10400,8200"),
        (["--at", "9999,5"], 2, "--at 9999,5 lies outside"),
        (["--index", "3"], 2, "is no corpus; give --at x,y in place of --index"),
        (["--maps", "65"], 2, "--maps: maps: no '65'; expected some of 16, 32"),
        (["--model", "nothing"], 4, "no model 'nothing'"),
        (["--encoder", "nowhere"], 4, "no encoder at nowhere"),
        (["--device", "cuda:9"], 2, "--device cuda:9 cannot be used"),
    ],
)
def test_bad_input_is_one_line(
    phantom: Phantom,
    tiny_model: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    said: str,
) -> None:
    out = tmp_path / "seen.png"
    assert main(["visualize", str(phantom.path), "--model", str(tiny_model), "-o", str(out), *FAST, *options]) == code
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("wsipipe: error:")]
    assert len(lines) == 1 and said in lines[0] and not out.exists()
