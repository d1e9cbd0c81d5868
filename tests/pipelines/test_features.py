"""`wsipipe features`: the same numbers however they are made, in a layout that others read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr

from tests import tiny
from tests.conftest import Phantom
from wsipipe.errors import ModelError, OutputBusy, OutputError, SettingsError
from wsipipe.formats.features import features_made
from wsipipe.infer.embed import Embedder
from wsipipe.models import checkpoint
from wsipipe.models.cmd import FEATURE_BLOCKS, CMDConfig
from wsipipe.models.conditioning import encoder_name, open_encoder
from wsipipe.pipelines.features import FeaturesJob, run_features
from wsipipe.pipelines.features_many import run_features_many
from wsipipe.raster import open_slide_raster
from wsipipe.schedule.progress import Progress
from wsipipe.settings import FeatureSettings, GridSettings, RunSettings, SlideSettings, TissueSettings
from wsipipe.stain import Colours, normalise

CPU = RunSettings(device="cpu", precision="fp32")


class Stop(Progress):
    """Interrupts after some tiles, and counts those that were done before and after."""

    def __init__(self, after: int) -> None:
        self.after, self.done, self.first = after, 0, -1

    def advance(self, stage: str, steps: int = 1) -> None:
        self.first = steps if self.first < 0 else self.first
        self.done += steps
        if self.done >= self.after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    checkpoint.save(path, tiny.segmenter(), tiny.card())
    return path


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def _job(phantom: Phantom, out: Path, model: Path, **features: object) -> FeaturesJob:
    settings = FeatureSettings(**features)  # type: ignore[arg-type]
    return FeaturesJob(str(phantom.path), out, str(model), features=settings, run=CPU, tissue=TissueSettings())


def test_features_are_means_of_the_networks_maps(model: Path) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (5, 256, 256, 3), np.uint8)
    both = Embedder(model, "both", "cpu", "fp32", batch=2)
    found = both.features(tiles)
    assert found.shape == (5, both.width) == (5, sum(tiny.FEATURES) + tiny.WIDTHS[-1])
    network, _ = checkpoint.load(model)
    assert isinstance(network, checkpoint.Segmenter)
    with torch.inference_mode():
        x = torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 127.5 - 1
        maps = network.backbone.features(x)
        assert len(maps) == len(FEATURE_BLOCKS)
        constant = network.backbone.condition(torch.full((5,), 50), None)
        maps.append(network.backbone.encode(x, constant)[0])
    expected = torch.cat([m.mean(dim=(2, 3)) for m in maps], 1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    decoder, bottleneck = (
        Embedder(model, pool, "cpu", "fp32", 2).features(tiles) for pool in ("decoder", "bottleneck")
    )
    np.testing.assert_array_equal(np.hstack([decoder, bottleneck]), found)


def test_a_backbone_alone_gives_the_same(model: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(model)
    assert isinstance(network, checkpoint.Segmenter)
    checkpoint.save(tmp_path / "b.safetensors", network.backbone, checkpoint.ModelCard("b", card.backbone))
    tiles = np.random.default_rng(1).integers(0, 256, (2, 256, 256, 3), np.uint8)
    one, other = (Embedder(path, "decoder", "cpu", "fp32", 2) for path in (model, tmp_path / "b.safetensors"))
    np.testing.assert_array_equal(one.features(tiles), other.features(tiles))


def test_layout_and_places(phantom: Phantom, model: Path, tmp_path: Path) -> None:
    done = run_features(_job(phantom, tmp_path / "a.h5", model), Progress())
    with h5py.File(tmp_path / "a.h5") as file:
        assert sorted(file) == ["coords", "features"]
        features, coords, about = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
    assert features.shape == (done.tiles, done.width) and features.dtype == np.float32
    assert coords.shape == (done.tiles, 2) and coords.dtype == np.int64
    assert 0 < done.tiles < 6 * 4 and (coords % 256 == 0).all()
    assert about["patch_size"] == about["patch_size_level0"] == 256 and about["level0_width"] == 1536
    x, y = coords[0].tolist()
    raster = open_slide_raster(phantom.path, SlideSettings(), 0.5)
    tile = raster.read((x, y, x + 256, y + 256))[None]
    np.testing.assert_array_equal(Embedder(model, "decoder", "cpu", "fp32").features(tile)[0], features[0])
    run_features(_job(phantom, tmp_path / "a.zarr", model), Progress())
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(np.asarray(group["features"]), features)
    np.testing.assert_array_equal(np.asarray(group["coords"]), coords)
    assert features_made(tmp_path / "a.zarr") == features_made(tmp_path / "a.h5")


def test_an_interrupted_run_goes_on(
    phantom: Phantom, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsipipe.pipelines.features.FLUSH", 1)
    whole = run_features(_job(phantom, tmp_path / "whole.h5", model, min_tissue=0.0), Progress())
    job = _job(phantom, tmp_path / "a.h5", model, min_tissue=0.0)
    with pytest.raises(KeyboardInterrupt):
        run_features(job, Stop(9))
    assert not job.output.exists()
    again = Stop(10_000)
    assert run_features(job, again) == whole
    assert again.first == 8 and again.done == whole.tiles
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        np.testing.assert_array_equal(one["features"], other["features"])
    assert not job.work.exists()
    assert not run_features(job, Progress()).fresh
    assert run_features(_job(phantom, job.output, model, min_tissue=0.5), Progress()).fresh


class Other(Progress):
    """Starts the same job while the tiles of another are computed."""

    def __init__(self, job: FeaturesJob) -> None:
        self.job, self.said = job, list[str]()

    def advance(self, stage: str, steps: int = 1) -> None:
        if steps and not self.said:
            with pytest.raises(OutputBusy, match="works on it; wait for it") as error:
                run_features(self.job, Progress())
            self.said.append(str(error.value))


def test_a_slide_whose_name_is_not_utf8(phantom: Phantom, model: Path, tmp_path: Path) -> None:
    odd = tmp_path / "\udcff.tiff"
    shutil.copy(phantom.path, odd)
    job = replace(_job(phantom, tmp_path / "f.h5", model), source=str(odd), grid=GridSettings(target_mpp=1.0))
    assert run_features(job, Progress()).tiles
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["features"].attrs["name"] == "\\xff"


def test_two_at_once_do_not_write_one_file(phantom: Phantom, model: Path, tmp_path: Path) -> None:
    job = _job(phantom, tmp_path / "a.h5", model)
    other = Other(job)
    done = run_features(job, other)
    assert other.said
    with h5py.File(job.output) as file:
        assert len(file["features"]) == len(file["coords"]) == done.tiles
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.h5.run.json"]


def test_colours_are_those_the_model_asks_for(phantom: Phantom, model: Path, tmp_path: Path) -> None:
    network, card = checkpoint.load(model)
    card = replace(card, colours=Colours((120.0, 160.0, 110.0), (30.0, 10.0, 8.0)), normalise=True)
    checkpoint.save(tmp_path / "n.safetensors", network, card)
    asks = _job(phantom, tmp_path / "asks.h5", tmp_path / "n.safetensors")
    plain = replace(asks, output=tmp_path / "plain.h5", grid=GridSettings(stain="as-is"))
    for job in (asks, plain):
        run_features(job, Progress())
    with h5py.File(asks.output) as one, h5py.File(plain.output) as other:
        assert not np.allclose(one["features"], other["features"])
        x, y = one["coords"][0].tolist()
        first = one["features"][0]
    about = features_made(asks.output)
    raster = open_slide_raster(phantom.path, SlideSettings(), 0.5)
    tile = normalise(raster.read((x, y, x + 256, y + 256))[None], about["stain"])
    np.testing.assert_array_equal(Embedder(model, "decoder", "cpu", "fp32").features(tile)[0], first)
    assert "stain" not in features_made(plain.output)
    assert run_features(replace(asks, output=plain.output), Progress()).fresh, "other colours, other features"
    with pytest.raises(SettingsError, match="does not say which colours"):
        run_features(replace(plain, model=str(model), grid=GridSettings(stain="normalised")), Progress())


def test_out_of_memory_leads_to_smaller_batches(
    phantom: Phantom, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, sizes = Embedder._pooled, list[int]()

    def limited(self: Embedder, pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, pixels)

    monkeypatch.setattr(Embedder, "_pooled", limited)
    job, limit = _job(phantom, tmp_path / "a.h5", model), 2
    done = run_features(job, Progress())
    assert sizes[0] == 4 and set(sizes[1:]) == {2}
    with h5py.File(job.output) as file:
        assert len(file["features"]) == done.tiles
    limit = 0
    with pytest.raises(ModelError, match="not enough memory on cpu for a single tile"):
        run_features(replace(job, force=True), Progress())


@pytest.fixture
def conditioned(tmp_path: Path) -> tuple[Path, str]:
    """Return a backbone that was trained with an encoder, and that encoder."""
    encoder = str(tiny.save_encoder(tmp_path / "vit"))
    training = {"settings": {"encoder": encoder}, "encoder": encoder_name(encoder)}
    card = checkpoint.ModelCard("tiny", CMDConfig(tiny.WIDTHS, 64), training=training)
    checkpoint.save(tmp_path / "b.safetensors", tiny.shake(tiny.backbone(64)), card)
    return tmp_path / "b.safetensors", encoder


def test_a_conditioned_backbone_sees_the_surroundings_through_its_encoder(
    phantom: Phantom, conditioned: tuple[Path, str], tmp_path: Path
) -> None:
    path, encoder = conditioned
    run_features(_job(phantom, tmp_path / "a.h5", path, pool="both", encoder=encoder), Progress())
    with h5py.File(tmp_path / "a.h5") as file:
        found, (x, y) = file["features"][3], file["coords"][3].tolist()
    window = open_slide_raster(phantom.path, SlideSettings(), 0.5).read((x - 128, y - 128, x + 384, y + 384))
    z = torch.from_numpy(open_encoder(encoder, torch.device("cpu"))(torch.from_numpy(window)[None]))
    network, _ = checkpoint.load(path)
    with torch.inference_mode():
        pixels = torch.from_numpy(window[None, 128:384, 128:384]).permute(0, 3, 1, 2).float() / 127.5 - 1
        maps = [*network.features(pixels, z), network.encode(pixels, network.condition(torch.tensor([50]), z))[0]]
    expected = torch.cat([m.mean(dim=(2, 3)) for m in maps], 1).numpy()[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert features_made(tmp_path / "a.h5")["encoder"] == encoder_name(encoder)


def test_a_conditioned_backbone_is_never_asked_without_its_encoder(
    phantom: Phantom, conditioned: tuple[Path, str], tmp_path: Path
) -> None:
    path, encoder = conditioned
    with pytest.raises(SettingsError, match=f"is conditioned on an encoder: give it, --encoder {encoder}"):
        run_features(_job(phantom, tmp_path / "a.h5", path), Progress())
    other = str(tiny.save_encoder(tmp_path / "other", seed=1))
    with pytest.raises(SettingsError, match=r"--encoder other-\w+ has other weights than vit-\w+"):
        run_features(_job(phantom, tmp_path / "a.h5", path, encoder=other), Progress())
    assert not (tmp_path / "a.h5").exists()


def test_errors(phantom: Phantom, model: Path, tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    for name, said in (("a.pt", "expected a name ending in .h5 or .zarr"), ("no/a.h5", "a file where a folder is")):
        with pytest.raises(OutputError, match=said):
            run_features(_job(phantom, tmp_path / name, model), Progress())


def test_an_encoder_by_itself_over_many_slides(phantom: Phantom, tmp_path: Path) -> None:
    encoder, slides, out = tiny.save_encoder(tmp_path / "encoder"), tmp_path / "slides", tmp_path / "out"
    slides.mkdir()
    for name in ("a", "b"):
        shutil.copy(phantom.path, slides / f"{name}{phantom.path.suffix}")
    (slides / "broken.svs").write_bytes(b"no slide")
    like = FeaturesJob("", out, "", features=FeatureSettings(encoder=str(encoder)), run=CPU)
    done = {Path(one.slide).stem: one for one in run_features_many([str(slides)], out, like, Progress())}
    assert {name: one.status for name, one in done.items()} == {"a": "done", "b": "done", "broken": "failed"}
    assert done["broken"].reason and done["a"].tiles == done["b"].tiles > 0 and done["a"].width == 64
    report = json.loads((out / "report.json").read_text())
    assert report["counts"] == {"done": 2, "skipped": 0, "failed": 1, "pending": 0} and len(report["slides"]) == 3
    with h5py.File(out / "a.h5") as file:
        features = file["features"][...].reshape(-1, 64)
        x, y = file["coords"][...].reshape(-1, 2)[0].tolist()
    tile = open_slide_raster(phantom.path, SlideSettings(), 0.5).read((x, y, x + 256, y + 256))
    expected = open_encoder(str(encoder), torch.device("cpu"))(torch.from_numpy(tile)[None])[0]
    np.testing.assert_allclose(features[0], expected, rtol=1e-4, atol=1e-5)
    made = features_made(out / "a.h5")
    assert made["model"]["name"].startswith("encoder-") and made["mpp"] == [0.5, 0.5]
    again = run_features_many([str(slides)], out, like, Progress())
    assert [one.status for one in again].count("skipped") == 2
    with pytest.raises(SettingsError, match=r"-o .*all\.h5: several slides go into a folder"):
        run_features_many([str(slides)], tmp_path / "all.h5", like, Progress())


def test_an_encoder_by_itself_is_computed_in_fp32(phantom: Phantom, tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    run = RunSettings(device="cpu", precision="bf16")
    job = FeaturesJob(str(phantom.path), tmp_path / "a.h5", "", features=FeatureSettings(encoder=str(encoder)), run=run)
    with pytest.raises(SettingsError, match="--precision bf16: foundation models are computed in fp32"):
        run_features(job, Progress())
