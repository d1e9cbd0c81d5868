"""`wsipipe features --cells`: a vector of every cell of a file, by its name."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import zarr
from click.testing import CliRunner

from tests import tiny
from tests.conftest import Phantom
from wsipipe.cli.features import features
from wsipipe.errors import SettingsError, TileReadError
from wsipipe.formats.features import features_made
from wsipipe.models.conditioning import open_encoder
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.pipelines.features_many import run_features_many
from wsipipe.raster import open_slide_raster
from wsipipe.schedule.progress import Progress
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.places import Places
from wsipipe.segmentation.run import run_segment
from wsipipe.settings import FeatureSettings, GridSettings, RunSettings, SlideSettings

CPU = RunSettings(device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def cells(phantom: Phantom, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a master file of a few dozen cells of the phantom slide."""
    out = tmp_path_factory.mktemp("cells") / "phantom.parquet"
    job = SegmentJob(str(phantom.path), (out,), model=str(tiny_model), bounds=(0, 0, 512, 400), run=CPU)
    run_segment(job, Progress())
    return out


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_encoder(tmp_path_factory.mktemp("encoder") / "vit")


def job_of(phantom: Phantom, out: Path, encoder: Path, cells: Path, **more: object) -> FeaturesJob:
    asked = FeatureSettings(encoder=str(encoder))
    return FeaturesJob(str(phantom.path), out, "", features=asked, run=CPU, cells=cells, **more)  # type: ignore[arg-type]


def test_every_cell_has_the_encoders_vector_of_its_square(
    phantom: Phantom, encoder: Path, cells: Path, tmp_path: Path
) -> None:
    done = run_features(job_of(phantom, tmp_path / "a.h5", encoder, cells), Progress())
    table = pq.read_table(cells, columns=["cell_id", "x", "y"]).to_pydict()
    assert done.tiles == len(table["x"]) > 5 and done.width == 64
    with h5py.File(tmp_path / "a.h5") as file:
        found, ids, coords = file["features"][:], file["cell_id"].asstr()[:].tolist(), file["coords"][:]
    assert ids == table["cell_id"]
    expected = np.rint(np.column_stack([table["x"], table["y"]]) - 128).astype(np.int64)
    np.testing.assert_array_equal(coords, expected)
    assert (coords < 0).any(), "some cells lie at the slide's edge"
    raster = open_slide_raster(phantom.path, SlideSettings(), 0.5)
    network = open_encoder(str(encoder), torch.device("cpu"))
    for k in (0, len(ids) // 2, len(ids) - 1):
        x, y = expected[k].tolist()
        pixels = raster.read((x, y, x + 256, y + 256))
        np.testing.assert_allclose(found[k], network(torch.from_numpy(pixels)[None])[0], rtol=1e-3, atol=1e-4)
    made = features_made(tmp_path / "a.h5")
    assert made["of"] == "cells"

    assert not run_features(job_of(phantom, tmp_path / "a.h5", encoder, cells), Progress()).fresh
    finer = job_of(
        phantom, tmp_path / "b.zarr", encoder, cells, grid=GridSettings(target_mpp=0.25, allow_upsample=True)
    )
    assert run_features(finer, Progress()).tiles == len(ids)
    group = zarr.open_group(tmp_path / "b.zarr", mode="r")
    assert [bytes(row).decode() for row in group["cell_id"][:]] == ids
    assert not np.allclose(group["features"][:], found)


def test_wsipipes_own_models_give_them_too(phantom: Phantom, tiny_model: Path, cells: Path, tmp_path: Path) -> None:
    job = FeaturesJob(str(phantom.path), tmp_path / "a.h5", str(tiny_model), run=CPU, cells=cells)
    assert run_features(job, Progress()).width == sum(tiny.FEATURES)


def test_several_slides_take_a_folder_of_cells(phantom: Phantom, encoder: Path, cells: Path, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    for name in ("phantom", "other"):
        shutil.copy(phantom.path, tmp_path / "slides" / f"{name}.tiff")
    like = dataclasses.replace(job_of(phantom, tmp_path / "out", encoder, cells.parent), source="")
    done = run_features_many([str(tmp_path / "slides")], tmp_path / "out", like, Progress())
    assert {Path(one.slide).stem: one.status for one in done} == {"phantom": "done", "other": "failed"}
    assert any("has no other.parquet; segment the slide first" in one.reason for one in done)
    again = run_features_many([str(tmp_path / "slides")], tmp_path / "out", like, Progress())
    assert sorted(one.status for one in again) == ["failed", "skipped"]
    with pytest.raises(SettingsError, match=r"phantom\.parquet goes with one slide, and there are several"):
        run_features_many(
            [str(tmp_path / "slides")], tmp_path / "out", dataclasses.replace(like, cells=cells), Progress()
        )


def test_cells_of_another_slide_are_refused(phantom: Phantom, encoder: Path, cells: Path, tmp_path: Path) -> None:
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    write_phantom(tmp_path / "other.tiff", PhantomSettings(width=600, height=400, seed=1, mpp=0.5))
    job = dataclasses.replace(job_of(phantom, tmp_path / "a.h5", encoder, cells), source=str(tmp_path / "other.tiff"))
    with pytest.raises(SettingsError, match=r"--cells .*phantom\.parquet: found on another slide"):
        run_features(job, Progress())
    assert not (tmp_path / "a.h5").exists()


def test_unreadable_parts_are_counted_in_cells() -> None:
    corners = np.array([[0, 0], [100, 0], [1000, 0]])
    places = Places(np.concatenate([corners, corners + 256], 1), np.array([b"a", b"b", b"c"]))
    raster = SimpleNamespace(slide=SimpleNamespace(path="slide.svs"))
    met = [(300, 10, 340, 50), (600, 600, 700, 700)]
    assert places.unreadable([], raster, 0) == []  # type: ignore[arg-type]
    assert places.unreadable(met, raster, 0.34) == met[:1]  # type: ignore[arg-type]
    with pytest.raises(TileReadError, match=r"slide\.svs: 33\.3% of the cells cannot be read; expected at most 5\.0%"):
        places.unreadable(met, raster, 0.05)  # type: ignore[arg-type]


def test_the_command_line_says_cells(phantom: Phantom, encoder: Path, cells: Path, tmp_path: Path) -> None:
    asked = [str(phantom.path), "-o", str(tmp_path / "a.h5"), "--encoder", str(encoder), "--cells", str(cells)]
    done = CliRunner().invoke(features, [*asked, "--device", "cpu"], standalone_mode=False)
    assert done.exit_code == 0 and " cells, 64 features each: wrote" in done.output, done.output
