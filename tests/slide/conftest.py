"""One picture, as every reader sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.slide.helpers import SETTINGS, TIFF_READERS, Case, need, reduced
from wsipipe.phantom.slide import PhantomTruth, write_phantom
from wsipipe.slide import ArraySlide, MppSource, open_slide


@pytest.fixture(scope="session")
def truth() -> PhantomTruth:
    return PhantomTruth(SETTINGS)


@pytest.fixture(scope="session")
def picture(truth: PhantomTruth) -> NDArray[np.uint8]:
    """Return the phantom at level 0, (1024, 1536, 3)."""
    return truth.picture((0, 0, SETTINGS.width, SETTINGS.height))


@pytest.fixture(scope="session")
def lossless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lossless") / "phantom.svs"
    write_phantom(path, SETTINGS)
    return path


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory, picture: NDArray[np.uint8]) -> Path:
    path = tmp_path_factory.mktemp("png") / "phantom.png"
    Image.fromarray(picture).save(path)
    return path


@pytest.fixture(
    params=["memory", *TIFF_READERS, "picture", "dicom"],
)
def case(request: pytest.FixtureRequest, picture: NDArray[np.uint8]) -> Case:
    """Return the same checks' subject for each reader."""
    name = request.param
    need(name)
    if name == "memory":
        levels = [picture, np.rint(reduced(picture, 4)).astype(np.uint8)]
        return Case(
            lambda: ArraySlide(levels, 0.5), picture, ((1536, 1024), (384, 256)), 0.5, MppSource.VENDOR, file=False
        )
    if name == "picture":
        path = request.getfixturevalue("png")
        return Case(
            lambda: open_slide(path, backend="picture", mpp=0.3), picture, ((1536, 1024),), 0.3, MppSource.OVERRIDE
        )
    if name == "dicom":
        slides = request.getfixturevalue("shared_data") / "slides"
        with open_slide(slides / "CMU-1-Small-Region.svs", backend="openslide") as svs:
            pixels = svs.read_region(0, 0, 0, *svs.info.size)
        folder = slides / "variants" / "CMU-1-Small-Region-dicom"
        return Case(lambda: open_slide(folder, backend="dicom"), pixels, ((2220, 2967),), 0.499, MppSource.VENDOR)
    path = request.getfixturevalue("lossless")
    sizes = ((1536, 1024), (384, 256))
    return Case(lambda: open_slide(path, backend=name), picture, sizes, 0.5, MppSource.VENDOR)
