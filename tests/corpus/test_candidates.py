"""Which patches a slide could give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import Phantom
from tests.corpus.conftest import Pixels
from wsipipe.corpus.candidates import Candidates, find_candidates, grid_corners, refuse
from wsipipe.corpus.sources import Source
from wsipipe.errors import MissingMpp, SettingsError, UnsupportedSlide
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings


def candidates(path: Path, settings: CorpusSettings, mpp: float | None = None, tissue: str = "auto") -> Candidates:
    return find_candidates(Source(str(path), path.name, mpp), settings, SlideSettings(), TissueSettings(tissue=tissue))


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([32, 100, 256]), st.floats(0, 0.95))
def test_corners_stay_inside_and_overlap_only_at_the_far_edge(w: int, h: int, side: int, overlap: float) -> None:
    corners = grid_corners((w, h), side, overlap)
    if min(w, h) < 0.98 * side:
        assert not len(corners)
        return
    assert len(np.unique(corners, axis=0)) == len(corners)
    for axis, length in ((0, w), (1, h)):
        starts = np.unique(corners[:, axis])
        assert starts[0] == 0 and starts[-1] <= max(0, length - side)
        gaps = np.diff(starts)
        assert (gaps[:-1] == side).all() and (gaps >= (1 - overlap) * side - 1e-9).all()
        left = length - (starts[-1] + side)
        assert left <= 0 or left < (1 - overlap) * side  # nothing is lost that could have been kept


def test_the_lines_of_a_plain_grid() -> None:
    assert grid_corners((1000, 512), 512, 0.5).tolist() == [[0, 0], [488, 0]]
    assert grid_corners((1000, 512), 512, 0.0).tolist() == [[0, 0]]


def test_pixels_are_the_slides_own_and_glass_is_left_out(phantom: Phantom, tissue: Pixels) -> None:
    found = candidates(phantom.path, CorpusSettings(patch=128))
    assert found.outside > 0 and found.outside + len(found.corners) == 12 * 8
    for number in range(0, len(found.corners), 7):
        x, y = found.base_corner(number)
        assert np.array_equal(found.read(number), tissue[y : y + 128, x : x + 128])
    assert found.mpp == pytest.approx(0.5)
    everything = candidates(phantom.path, CorpusSettings(patch=128), tissue="none")
    assert len(everything.corners) == 96
    field = candidates(phantom.path, CorpusSettings(patch=512))  # few enough for one look: not searched
    assert field.outside == 0 and len(field.corners) == 6


def test_a_cap_draws_by_seed(phantom: Phantom) -> None:
    def drawn(cap: int, seed: int) -> list[list[int]]:
        return candidates(phantom.path, CorpusSettings(patch=128, cap=cap, seed=seed)).corners.tolist()

    assert drawn(5, 0) == drawn(5, 0) != drawn(5, 1)
    assert sorted(drawn(5, 1)) == sorted(drawn(0, 0)) and drawn(1000, 3) == drawn(0, 0)


def test_resolutions(tissue: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    Image.fromarray(tissue[:300, :400]).save(path)
    assert candidates(path, CorpusSettings(patch=128), 0.5).mpp == pytest.approx(0.5)
    half = candidates(path, CorpusSettings(patch=128), 0.25)
    assert half.mpp == pytest.approx(0.5) and half.base_corner(0) == (0, 0) and half.raster.grid.size == (200, 150)
    assert candidates(path, CorpusSettings(patch=128, mpp=0.0), 0.31).mpp == pytest.approx(0.31)
    with pytest.raises(MissingMpp, match="--image-mpp, or the column mpp"):
        candidates(path, CorpusSettings(patch=128))
    given = find_candidates(Source(str(path), "t"), CorpusSettings(patch=128), SlideSettings(), TissueSettings(), 0.5)
    assert given.mpp == pytest.approx(0.5)
    with pytest.raises(SettingsError, match="coarser"):
        candidates(path, CorpusSettings(patch=128, mpp=0.5), 1.2)


def test_a_small_picture_is_taken_finer_where_allowed(tissue: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "t.png"
    Image.fromarray(tissue[:100, :110]).save(path)
    with pytest.raises(UnsupportedSlide, match=r"smaller than a patch.*--max-zoom 1.28"):
        candidates(path, CorpusSettings(patch=128), 0.5)
    found = candidates(path, CorpusSettings(patch=128, max_zoom=1.3), 0.5)
    assert found.mpp == pytest.approx(0.5 * 100 / 128)
    pixels = found.read(0)
    assert pixels is not None and pixels.shape == (128, 128, 3)


def test_settings_that_contradict() -> None:
    with pytest.raises(SettingsError, match="add up"):
        refuse(CorpusSettings(val=0.7, test=0.7))
    with pytest.raises(SettingsError, match=r"0\.05 to 5"):
        refuse(CorpusSettings(mpp=0.01))
