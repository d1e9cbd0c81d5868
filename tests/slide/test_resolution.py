"""Where the resolution comes from, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsipipe.errors import ImplausibleMpp, MissingMpp, SettingsError
from wsipipe.phantom.slide import PhantomSettings, write_phantom
from wsipipe.settings import SlideSettings
from wsipipe.slide import ArraySlide, MppSource, SlideInfo, open_slide, require_mpp
from wsipipe.slide.resolution import choose_mpp, concerns, pair, tiff_mpp


def info(mpp: float | tuple[float, float] | None, source: MppSource | None = MppSource.VENDOR) -> SlideInfo:
    with ArraySlide([np.zeros((8, 8, 3), np.uint8)], mpp, objective=20.0) as slide:
        return SlideInfo(**{**vars(slide.info), "mpp_source": None if mpp is None else source})


def test_order_of_sources() -> None:
    assert choose_mpp((0.25, 0.25), (0.5, 0.5), 10) == ((0.25, 0.25), MppSource.VENDOR)
    assert choose_mpp(None, (0.5, 0.4), 10) == ((0.5, 0.4), MppSource.TIFF)
    assert choose_mpp(None, None, 40) == ((0.25, 0.25), MppSource.OBJECTIVE)
    assert choose_mpp(None, None, None) == (None, None)


def test_numbers_are_parsed_with_care() -> None:
    assert pair("0.25", 0.5) == (0.25, 0.5)
    for x, y in ((None, 1), ("", 1), ("abc", 1), (0, 1), (-1, 1), ("nan", 1), ("inf", 1)):
        assert pair(x, y) is None
    assert tiff_mpp(40_000, 20_000, "CENTIMETER") == (0.25, 0.5)
    assert tiff_mpp(25_400, 25_400, "inch") == (1.0, 1.0)
    assert tiff_mpp(1, 1, "none") is None


def test_plausible_resolution_is_returned() -> None:
    assert require_mpp(info((0.25, 0.26))) == (0.25, 0.26)
    assert require_mpp(info(0.05)) == (0.05, 0.05)
    assert require_mpp(info(5)) == (5, 5)


def test_no_resolution() -> None:
    with pytest.raises(
        MissingMpp, match=r"memory does not state its resolution: .* `wsipipe info memory --estimate-mpp`"
    ):
        require_mpp(info(None))


@pytest.mark.parametrize("mpp", [0.00499, 0.0499, 5.01, (0.25, 352.8)])
def test_absurd_resolution(mpp: float | tuple[float, float]) -> None:
    with pytest.raises(ImplausibleMpp, match=r"expected 0\.05 to 5: .*--mpp.*--force-mpp"):
        require_mpp(info(mpp))
    assert require_mpp(info(mpp), SlideSettings(force_mpp=True))


def test_objective_is_a_warning_or_with_strict_an_error() -> None:
    inferred = info(0.5, MppSource.OBJECTIVE)
    assert require_mpp(inferred) == (0.5, 0.5)
    assert any("objective" in line for line in concerns(inferred))
    with pytest.raises(MissingMpp, match=r"objective of 20x, which --strict-mpp does not accept"):
        require_mpp(inferred, SlideSettings(strict_mpp=True))


def test_pixels_that_are_not_square() -> None:
    assert any("not square" in line for line in concerns(info((0.25, 0.3))))
    assert not concerns(info((0.25, 0.251)))


def test_real_tiff_with_absurd_tags(shared_data: Path) -> None:
    path = shared_data / "slides" / "variants" / "CMU-1-Small-Region.jpeg.tiff"
    with open_slide(path) as slide:
        assert any("implausible" in line for line in slide.info.warnings)
        with pytest.raises(ImplausibleMpp, match=r"0\.00499 x 0\.00499 µm/px \(TIFF resolution\)"):
            require_mpp(slide.info)
    with open_slide(path, mpp=0.499) as slide:
        assert require_mpp(slide.info) == (0.499, 0.499)
        assert slide.info.mpp_source is MppSource.OVERRIDE
        assert not slide.info.warnings
    with open_slide(path, force_mpp=True) as slide:
        assert require_mpp(slide.info, SlideSettings(force_mpp=True))[0] == pytest.approx(0.00499, rel=1e-4)


def test_zero_is_no_resolution() -> None:
    with pytest.raises(SettingsError, match="mpp is 0"):
        SlideSettings(mpp=0)


@pytest.mark.parametrize("backend", ["openslide", "tiffslide"])
@pytest.mark.parametrize(
    ("vendor", "mpp", "source"),
    [("aperio", 0.25, MppSource.VENDOR), ("generic", 0.25, MppSource.TIFF), ("aperio", None, None)],
)
def test_phantoms(tmp_path: Path, backend: str, vendor: str, mpp: float | None, source: MppSource | None) -> None:
    path = tmp_path / "phantom.tif"
    write_phantom(path, PhantomSettings(width=256, height=256, vendor=vendor, mpp=mpp, tissue=0))
    with open_slide(path, backend=backend) as slide:
        assert slide.info.mpp == (None if mpp is None else pytest.approx((mpp, mpp)))
        assert slide.info.mpp_source is source
