from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsipipe.geometry import Grid
from wsipipe.raster import CHUNK, SlideRaster, open_slide_raster, slide_grid
from wsipipe.raster.resample import resample, whole_factor
from wsipipe.settings import SlideSettings
from wsipipe.slide import ArraySlide

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (1300, 1700, 3), np.uint8)


def raster_at(target: float | None, pixels: np.ndarray = PICTURE, **slide: object) -> SlideRaster:
    """Return the raster at *target* µm/px of a picture of 0.25 µm/px."""
    opened = ArraySlide([pixels], mpp=0.25, **slide)  # type: ignore[arg-type]
    return SlideRaster(opened, slide_grid(opened.info, (0.25, 0.25), target), fingerprint="f")


def area_mean(pixels: np.ndarray, scale: float, size: tuple[int, int]) -> np.ndarray:
    """Return *pixels* averaged over areas, in float64, by running sums."""
    out = pixels.astype(np.float64)
    for axis, side in ((0, size[1]), (1, size[0])):
        sums = np.concatenate([np.zeros_like(out.take([0], axis)), out.cumsum(axis)], axis)
        edges = np.minimum(np.arange(side + 1) * scale, out.shape[axis])
        low = np.minimum(edges.astype(int), out.shape[axis] - 1)
        shape = [-1 if a == axis else 1 for a in range(3)]
        integral = sums.take(low, axis) + (edges - low).reshape(shape) * (
            sums.take(low + 1, axis) - sums.take(low, axis)
        )
        out = np.diff(integral, axis=axis) / np.diff(edges).reshape(shape)
    return out


def test_level_used_as_it_is() -> None:
    raster = raster_at(0.25)
    assert raster.grid.size == (1700, 1300)
    assert np.array_equal(raster.read((0, 0, 1700, 1300)), PICTURE)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_whole_factor_is_the_exact_mean_rounded_half_up(factor: int) -> None:
    raster = raster_at(0.25 * factor)
    width, height = raster.grid.size
    whole = PICTURE[: 1300 // factor * factor, : 1700 // factor * factor].astype(int)
    sums = whole.reshape(1300 // factor, factor, 1700 // factor, factor, 3).sum(axis=(1, 3))
    n = factor * factor
    expected = (2 * sums + n) // (2 * n)
    assert np.array_equal(raster.read((0, 0, 1700 // factor, 1300 // factor)), expected)
    assert (width, height) == (-(-1700 // factor), -(-1300 // factor))


@pytest.mark.parametrize("target", [0.31, 0.5, 0.7771, 1.1])
def test_area_filter(target: float) -> None:
    raster = raster_at(target)
    found = raster.read((0, 0, *raster.grid.size))
    expected = area_mean(PICTURE, target / 0.25, raster.grid.size)
    assert np.abs(found - expected).max() <= 0.5 + 1e-3


def test_upsampling_is_linear_and_registered() -> None:
    ramp = np.broadcast_to((np.arange(200) + 20)[None, :, None], (150, 200, 3)).astype(np.uint8)
    raster = raster_at(0.15, ramp)
    found = raster.read((0, 0, *raster.grid.size))[10, :, 0]
    positions = np.clip((np.arange(len(found)) + 0.5) * 0.6 - 0.5, 0, 199)
    assert np.abs(found - (positions + 20)).max() <= 0.5 + 1e-3


def test_a_last_pixel_beyond_the_level_repeats_the_edge() -> None:
    pixels = RNG.integers(0, 256, (10, 9, 3), np.uint8)
    out = resample(lambda b: pixels[b[1] : b[3], b[0] : b[2]], (0, 0, 6, 5), (2.0, 2.0), (6, 5), (9, 10))
    assert np.array_equal(out[:, 5], (pixels[:, 8].reshape(5, 2, 3).astype(int).sum(1) + 1) // 2)


coordinate = st.integers(-700, 1500)
side = st.integers(1, 700)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([0.25, 0.4, 0.5, 0.777]), coordinate, coordinate, side, side)
def test_a_pixel_never_depends_on_the_box(target: float, x: int, y: int, width: int, height: int) -> None:
    raster, fresh = WHOLE[target]
    pad = 1600
    mode = "reflect"
    padded = np.pad(raster, ((pad, pad), (pad, pad), (0, 0)), mode=mode)  # type: ignore[call-overload]
    box = x, y, x + width, y + height
    if max(box[2] - raster.shape[1], box[3] - raster.shape[0]) > pad:
        return
    expected = padded[y + pad : y + pad + height, x + pad : x + pad + width]
    assert np.array_equal(fresh.read(box), expected)


WHOLE = {}
for _target in (0.25, 0.4, 0.5, 0.777):
    _raster = raster_at(_target)
    WHOLE[_target] = (_raster.read((0, 0, *_raster.grid.size)), raster_at(_target))


def test_chunk_borders_are_invisible() -> None:
    raster = raster_at(0.4)
    whole = resample(
        lambda b: PICTURE[b[1] : b[3], b[0] : b[2]],
        (0, 0, *raster.grid.size),
        raster.grid.level_scale,
        raster.grid.size,
        (1700, 1300),
    )
    assert np.array_equal(raster.read((0, 0, *raster.grid.size)), whole)


def test_threads_and_pickles_give_the_same_pixels() -> None:
    raster = raster_at(0.4)
    boxes = [(x, y, x + 256, y + 256) for y in range(-100, 800, 192) for x in range(-100, 1000, 192)]
    expected = [raster_at(0.4).read(box) for box in boxes]
    copy = pickle.loads(pickle.dumps(raster))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(raster.read, boxes))
    for a, b, box in zip(expected, found, boxes, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, copy.read(box))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 40)])
def test_tiny_slides_are_reflected_again_and_again(shape: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*shape, 3), np.uint8)
    found = raster_at(0.25, pixels).read((0, 0, 256, 256))
    assert found.shape == (256, 256, 3)
    for axis in (0, 1):
        if shape[axis] == 1:
            assert (found == found.take([0], axis)).all()
    rows = np.pad(pixels, ((0, 256 - shape[0]), (0, 0), (0, 0)), mode="reflect" if shape[0] > 1 else "edge")
    expected = np.pad(rows, ((0, 0), (0, 256 - shape[1]), (0, 0)), mode="reflect" if shape[1] > 1 else "edge")
    assert np.array_equal(found, expected)


def test_an_empty_box_has_no_pixels() -> None:
    assert raster_at(0.25).read((5, 5, 5, 9)).shape == (4, 0, 3)
    assert raster_at(0.25).read((-5, -5, -5, -5)).shape == (0, 0, 3)


def test_what_cannot_be_read_has_the_background_colour_and_is_noted() -> None:
    background = (240, 241, 242)
    raster = raster_at(0.25, bad=[(600, 700, 610, 705)], background=background)
    whole = raster.read((0, 0, *raster.grid.size))
    assert raster.bad == ((576, 640, 640, 704), (576, 704, 640, 768))
    expected = PICTURE.copy()
    expected[640:768, 576:640] = background
    assert np.array_equal(whole, expected)
    small = raster_at(0.25, bad=[(600, 700, 610, 705)], background=background)
    assert np.array_equal(small.read((590, 650, 700, 720)), expected[650:720, 590:700])


def test_what_can_be_read_beside_damage_is_unchanged() -> None:
    sound, damaged = raster_at(0.4), raster_at(0.4, bad=[(900, 700, 905, 705)])
    box = (0, 0, *sound.grid.size)
    a, b = sound.read(box), damaged.read(box)
    assert len(damaged.bad) >= 1
    for x0, y0, x1, y1 in damaged.bad:
        assert (x1 - x0, y1 - y0) == (64, 64)
        b[y0:y1, x0:x1] = a[y0:y1, x0:x1]
    assert np.array_equal(a, b)


def test_the_cache_stays_small() -> None:
    raster = SlideRaster(
        ArraySlide([PICTURE], mpp=0.25), Grid((1700, 1300), (1, 1), (0.25, 0.25), 0, (1.0, 1.0)), "f", 3
    )
    raster.read((0, 0, 1700, 1300))
    assert len(raster._chunks) == 3
    assert set(raster._chunks) == {(1, 2), (2, 2), (3, 2)}


def test_fingerprint_of_a_slide_in_memory_is_of_its_pixels() -> None:
    def of(pixels: np.ndarray) -> str:
        slide = ArraySlide([pixels], mpp=0.25)
        return SlideRaster(slide, slide_grid(slide.info, (0.25, 0.25), None)).fingerprint

    changed = PICTURE.copy()
    changed[700, 700] ^= 1
    assert of(PICTURE) == of(PICTURE.copy()) != of(changed)


def test_whole_factors() -> None:
    assert whole_factor(2.0, 100_000) == 2
    assert whole_factor(2.00000001, 100_000) == 2
    assert whole_factor(2.00001, 100_000) == 0
    assert whole_factor(0.5, 100) == 0


def test_real_slide_halved(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    fine, coarse = (open_slide_raster(path, SlideSettings(), mpp) for mpp in (0.499, 0.998))
    assert coarse.grid.level_scale == (2.0, 2.0)
    pixels = fine.read((1000, 1000, 1600, 1600)).astype(int)
    expected = (pixels.reshape(300, 2, 300, 2, 3).sum(axis=(1, 3)) + 2) // 4
    assert np.array_equal(coarse.read((500, 500, 800, 800)), expected)
    assert fine.fingerprint == coarse.fingerprint
    assert CHUNK == 512
