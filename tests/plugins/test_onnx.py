"""ONNX through the pipeline, by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Phantom
from tests.plugins.checks import FOREGROUND, HOVER, check_answer, check_blocks, check_grids, check_resumes, found
from tests.plugins.networks import Dark, Hover, onnx
from wsipipe.errors import NotAModel
from wsipipe.formats.parquet import metadata
from wsipipe.plugins.opening import open_predictor

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: make test-extras")
pytest.importorskip("onnx", reason="onnx is not installed, which writes the networks: make test-extras")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return networks in files, by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "dark": onnx(Dark(), folder / "dark.onnx", FOREGROUND, ["out"]),
        "single": onnx(Dark(), folder / "single.onnx", FOREGROUND, ["out"], batch=False),
        "wide": onnx(Dark(), folder / "wide.onnx", FOREGROUND.replace("tile = 256", "tile = 320"), ["out"]),
        "hover": onnx(Hover(), folder / "hover.onnx", HOVER, ["np", "hv", "tp"]),
        "hover-wide": onnx(
            Hover(), folder / "hover-wide.onnx", HOVER.replace("tile = 256", "tile = 352"), ["np", "hv", "tp"]
        ),
    }


@pytest.mark.parametrize("name", ["dark", "single"])
def test_finds_what_the_network_marks(phantom: Phantom, tmp_path: Path, models: dict[str, str], name: str) -> None:
    """Also with a file that takes one tile at a time."""
    check_answer(found(phantom.path, tmp_path / "a.parquet", models[name]), phantom.path)
    about = metadata(tmp_path / "a.parquet")
    assert about["model"]["name"] == f"onnx:{name}.onnx" and about["recipe"]["engine"].startswith("onnxruntime ")


@pytest.mark.parametrize("name", ["dark", "hover"])
def test_blocks_change_nothing(small_slide: Path, tmp_path: Path, models: dict[str, str], name: str) -> None:
    cells = check_blocks(small_slide, tmp_path, models[name])
    assert name == "dark" or set(cells["class"].dropna()) == {"tumour", "other"}


@pytest.mark.parametrize("name", ["dark", "hover"])
def test_another_grid_changes_nothing(phantom: Phantom, tmp_path: Path, models: dict[str, str], name: str) -> None:
    larger = "wide" if name == "dark" else "hover-wide"
    check_grids(phantom.path, tmp_path, models[name], models[larger])


def test_resumes(small_slide: Path, tmp_path: Path, models: dict[str, str]) -> None:
    check_resumes(small_slide, tmp_path, models["hover"])


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    model = onnx(Dark(), tmp_path / "net.onnx", FOREGROUND.replace("tile = 256", "tile = 320"), ["out"], batch=False)
    with pytest.raises(NotAModel, match=r"takes float32 \(1, 3, 256, 256\).*expected float32 \(n, 3, 320, 320\)"):
        open_predictor(model, "cpu")
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(NotAModel, match=r"net\.onnx: cannot be loaded .*; expected an ONNX network"):
        open_predictor(model, "cpu")
