"""`wsipipe visualize` as a story: places, points, panels, the same bytes; what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.conftest import Phantom
from wsipipe.errors import MissingMpp, ModelError, OutputError, SettingsError
from wsipipe.figure.panels import nucleus
from wsipipe.figure.places import Places
from wsipipe.figure.regions import MARGIN
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import ModelCard
from wsipipe.models.cmd import CMDConfig
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.pipelines.visualize import VisualizeJob, as_network_sees, regions, run_visualize
from wsipipe.schedule.progress import Progress
from wsipipe.settings import CorpusSettings, SlideSettings, VisualizeSettings
from wsipipe.stain import Colours, colours_of

FAST = VisualizeSettings(maps="64,all", times="300", panel=128)


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny backbone with an output layer that is not zero, at 0.5 µm/px."""
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    checkpoint.save(path, tiny.shake(tiny.backbone()), ModelCard("tiny", CMDConfig(tiny.WIDTHS)))
    return path


@pytest.fixture(scope="module")
def corpus(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> str:
    settings = CorpusSettings(max_background=1, min_focus=0, threads=1)
    out = tmp_path_factory.mktemp("corpus") / "corpus.zarr"
    return str(run_build_corpus(CorpusJob((str(phantom.path),), out, settings=settings), Progress()))


@pytest.fixture
def job(phantom: Phantom, backbone: Path, tmp_path: Path) -> Callable[..., VisualizeJob]:
    def make(*at: tuple[float, float], **changes: object) -> VisualizeJob:
        places = changes.pop("places", Places((str(phantom.path),), at))
        plain = VisualizeJob(places, tmp_path / "out.png", str(backbone), settings=FAST)  # type: ignore[arg-type]
        return replace(plain, **changes)  # type: ignore[arg-type]

    return make


def test_a_backbone_shows_all_panels_and_the_same_bytes_again(job: Callable[..., VisualizeJob], tmp_path: Path) -> None:
    one = job((500, 400), (900, 500))
    done = run_visualize(one, Progress())
    assert done.regions == 2 and done.panels == ("clusters", "similarity", "reconstruction")
    first = one.output.read_bytes()
    with Image.open(one.output) as image:
        assert image.size == done.size and image.mode == "RGB"
        assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 500
    assert run_visualize(one, Progress()) == done and one.output.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_the_network_sees_the_colours_of_its_card(job: Callable[..., VisualizeJob], tiny_model: Path) -> None:
    asks = replace(checkpoint.read_card(tiny_model), colours=Colours((120, 160, 110), (30, 10, 8)), normalise=True)
    (region,) = regions(job((500, 400)).places, 0.5, Progress())
    seen = as_network_sees(region, asks, "auto")
    found = colours_of([seen.pixels])
    assert found is not None and found.mean == pytest.approx((120, 160, 110), abs=6)
    for card, stain in ((asks, "as-is"), (replace(asks, colours=None, normalise=False), "auto")):
        assert (as_network_sees(region, card, stain).window == region.window).all()


def test_a_segmenter_shows_two_panels_and_says_why(job: Callable[..., VisualizeJob], tiny_model: Path) -> None:
    heard = Heard()
    done = run_visualize(job((500, 400), model=str(tiny_model)), heard)
    assert done.panels == ("clusters", "similarity")
    (line,) = heard.lines
    assert "reconstructions are left out" in line and "is a segmenter" in line and "wsipipe pretrain" in line


def test_reconstructions_of_a_segmenter_are_doubted_and_of_a_fresh_backbone_refused(
    job: Callable[..., VisualizeJob], tiny_model: Path, tmp_path: Path
) -> None:
    only, heard = replace(FAST, panels="reconstruction"), Heard()
    done = run_visualize(job((500, 400), model=str(tiny_model), settings=only), heard)
    assert done.panels == ("reconstruction",) and "unlearnt" in heard.lines[0]
    fresh = tmp_path / "fresh.safetensors"
    checkpoint.save(fresh, tiny.backbone(), ModelCard("fresh", CMDConfig(tiny.WIDTHS)))
    with pytest.raises(ModelError, match=r"never learnt to reconstruct: .* `wsipipe pretrain` writes it"):
        run_visualize(job((500, 400), model=str(fresh), settings=only), Progress())
    heard = Heard()
    assert run_visualize(job((500, 400), model=str(fresh)), heard).panels == ("clusters", "similarity")
    assert "never pretrained" in heard.lines[0]


def test_tokens_of_an_encoder_are_one_column_more(job: Callable[..., VisualizeJob], tmp_path: Path) -> None:
    settings, encoder = replace(FAST, panels="similarity"), str(tiny.save_encoder(tmp_path / "vit"))
    without = run_visualize(job((500, 400), settings=settings), Progress())
    assert run_visualize(job((500, 400), settings=settings, encoder=encoder), Progress()).size[0] > without.size[0]


def test_large_regions_and_each_region_by_itself(job: Callable[..., VisualizeJob], phantom: Phantom) -> None:
    settings = replace(FAST, size=512, clusters=2, panels="clusters,reconstruction")
    places = Places((str(phantom.path),), ((500, 400),), size=512)
    assert run_visualize(job(places=places, settings=settings), Progress()).regions == 1
    small = replace(settings, panels="clusters", maps="32", joint=True)
    assert run_visualize(job((500, 400), (900, 500), settings=small), Progress()).regions == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": Path("out.jpg")}, r"out\.jpg: expected a name that ends in \.png"),
        (
            {"points": ((1.0, 1.0),)},
            r"--point 1,1 lies outside the region at 500,400: phantom.tiff, .* 372,272 to 628,528",
        ),
        ({"points": ((500.0, 400.0),) * 2}, "--point is given 2 times for 1 regions"),
    ],
)
def test_bad_jobs_are_refused(job: Callable[..., VisualizeJob], changes: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        run_visualize(job((500, 400), **changes), Progress())


def test_a_folder_that_is_not_there_is_found_before_the_work(job: Callable[..., VisualizeJob], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        run_visualize(job((500, 400), output=tmp_path / "file" / "out.png", model="nothing"), Progress())


def test_a_given_point_counts(job: Callable[..., VisualizeJob]) -> None:
    settings = replace(FAST, panels="similarity")
    one = job((500, 400), settings=settings)
    run_visualize(one, Progress())
    before = one.output.read_bytes()
    run_visualize(replace(one, points=((400.0, 300.0),)), Progress())
    assert one.output.read_bytes() != before


def test_the_point_is_in_a_nucleus_where_none_is_given(phantom: Phantom) -> None:
    import shapely

    (region,) = regions(Places((str(phantom.path),), ((700, 500),)), 0.5, Progress())
    x, y = nucleus(region)
    point = shapely.Point(*(c + share * 256 * s for c, share, s in zip(region.corner_base, (x, y), region.scale)))
    _, polygons = phantom.truth.polygons((572, 372, 828, 628))
    assert any(polygon.contains(point) for polygon in polygons)
    assert 0.25 <= x < 0.75 and 0.25 <= y < 0.75


def test_regions_show_the_slide_at_the_models_resolution(phantom: Phantom) -> None:
    from wsipipe.slide import open_slide

    fine, coarse = (regions(Places((str(phantom.path),), ((600, 500),)), mpp, Progress())[0] for mpp in (0.5, 1.0))
    with open_slide(phantom.path) as slide:
        assert (fine.window == slide.read_region(0, 344, 244, 512, 512)).all()
    assert fine.corner_base == (472, 372) and fine.mpp == (0.5, 0.5)
    assert coarse.corner_base == (344, 244) and coarse.scale == (2.0, 2.0) and coarse.side == 256
    small = fine.window.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    assert np.abs(coarse.pixels[:, :, 0] - small[:, :, 0]).mean() < 3, "the same place, half as fine"


def test_a_region_at_the_edge_is_moved_inside_and_one_beyond_refused(phantom: Phantom) -> None:
    (region,) = regions(Places((str(phantom.path),), ((3, 1020),)), 0.5, Progress())
    assert region.corner_base == (0, 1024 - 256) and region.place((3, 1020))[1] < 1
    with pytest.raises(SettingsError, match=r"--at 2000,5 lies outside .*phantom\.tiff, which has 1536 x 1024 px"):
        regions(Places((str(phantom.path),), ((2000, 5),)), 0.5, Progress())


def test_without_a_place_a_slide_shows_tissue(phantom: Phantom) -> None:
    (region,) = regions(Places((str(phantom.path),)), 0.5, Progress())
    assert region.pixels.mean() < 235, "no glass"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    write_phantom(tmp_path / "x.tiff", PhantomSettings(width=512, height=512, mpp=0.5, corrupt_tiles=4))
    heard = Heard()
    regions(Places((str(tmp_path / "x.tiff"),), ((256, 256),)), 0.5, heard)
    (line,) = heard.lines
    assert line.startswith("warning: ") and "areas cannot be read, and are shown in the background colour" in line


def test_pictures_without_resolution_are_taken_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    heard = Heard()
    found = regions(Places((str(tmp_path / "a.png"), str(tmp_path / "b.png"))), 0.5, heard)
    assert len(found) == 2 and found[0].mpp is None and len(heard.lines) == 2 and "--mpp says it" in heard.lines[0]
    assert (found[0].pixels == pixels[22:278, 72:328]).all()
    (stated,) = regions(Places((str(tmp_path / "a.png"),), slide=SlideSettings(mpp=0.25)), 0.5, Progress())
    assert stated.mpp == (0.5, 0.5) and stated.scale == (2.0, 2.0)
    assert (stated.window[MARGIN + 53 + 10, MARGIN + 28 + 5] == stated.window[MARGIN + 53 - 10, MARGIN + 28 + 5]).all()


def test_a_slide_without_resolution_is_refused(tmp_path: Path) -> None:
    from wsipipe.phantom.slide import PhantomSettings, write_phantom

    write_phantom(tmp_path / "x.tiff", PhantomSettings(width=512, height=512, mpp=0))
    with pytest.raises(MissingMpp):
        regions(Places((str(tmp_path / "x.tiff"),), slide=SlideSettings(backend="tiffslide")), 0.5, Progress())


def test_patches_of_a_corpus_by_number(corpus: str) -> None:
    from wsipipe.corpus import open_corpus

    opened = open_corpus(corpus)
    (region,) = regions(Places((corpus,), indices=(1,)), 0.25, Progress())
    assert (region.window == opened.read(1)).all() and region.mpp == (0.5, 0.5)
    assert len(regions(Places((corpus,)), 0.5, Progress())) == min(4, len(opened))
    for places, said in (
        (Places((corpus,), indices=(99,)), "--index 99: .* holds the patches 0 to"),
        (Places((corpus,), ((5, 5),)), "is a corpus, whose patches have numbers; give --index 0"),
        (Places((corpus,), size=1024), "are 512 px; --size 1024 is more"),
        (Places((corpus, corpus), indices=(0,)), "--index names a place in one source, and there are 2"),
        (Places((corpus,), indices=(0,) * 25), "25 regions are too many"),
    ):
        with pytest.raises(SettingsError, match=said):
            regions(places, 0.5, Progress())


def test_a_slide_has_no_patches_by_number(phantom: Phantom) -> None:
    with pytest.raises(SettingsError, match="is no corpus; give --at x,y"):
        regions(Places((str(phantom.path),), indices=(0,)), 0.5, Progress())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": 300}, "size is 300; expected 256, 512, 768 or 1024 px"),
        ({"panels": "clusters,tokens"}, "panels: no 'tokens'; expected some of clusters, similarity"),
        ({"maps": ""}, "maps: no ''; expected some of 16, 32"),
        ({"times": "0"}, "times are '0'; expected whole numbers from 1 to 1000"),
        ({"times": "a"}, "times are 'a'"),
        ({"clusters": 9}, "clusters is 9; expected 2 to 8"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        VisualizeSettings(**settings)  # type: ignore[arg-type]
