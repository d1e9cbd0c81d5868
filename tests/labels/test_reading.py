"""Forms are recognised, pictures are what they should be, few shots are of many patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.labels import test_coco, test_hovernet, test_monuseg, test_pannuke, test_qupath
from tests.labels.scene import instance_map, only, picture, refusal, save
from wsipipe.errors import DatasetError
from wsipipe.labels import Annotated, detect, few, read_image
from wsipipe.labels.annotated import numbered
from wsipipe.settings import SET_FORMS


def folders(path: Path) -> None:
    save(path / "images" / "a.png", picture())
    save(path / "labels" / "a.png", instance_map().astype(np.uint16))


def monuseg(path: Path) -> None:
    save(path / "a.png", picture())
    test_monuseg.write(path / "a.xml", test_monuseg.annotation(1, test_monuseg.scene()))


def coco(path: Path) -> None:
    test_coco.write(path, test_coco.content("polygons"))


def qupath(path: Path) -> None:
    save(path / "a.png", picture())
    test_qupath.write(path / "a.geojson", test_qupath.WHOLE, *test_qupath.nuclei())


WRITERS: dict[str, Callable[[Path], object]] = {
    "folders": folders,
    "monuseg": monuseg,
    "hovernet": lambda path: test_hovernet.write(path, **test_hovernet.consep()),
    "pannuke": lambda path: test_pannuke.write(path, path, 1),
    "coco": coco,
    "qupath": qupath,
}


@pytest.mark.parametrize("form", SET_FORMS)
def test_every_form_is_recognised(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path)
    assert detect(tmp_path) == form
    other = SET_FORMS[SET_FORMS.index(form) - 1]
    assert refusal(tmp_path, format=other) and refusal(tmp_path, format="yolo")


@pytest.mark.parametrize("form", SET_FORMS)
def test_the_form_may_be_given(form: str, tmp_path: Path) -> None:
    for name in ("monuseg", form):
        WRITERS[name](tmp_path)
    if form not in ("monuseg", "qupath"):
        assert only(tmp_path, format=form).labels.shape == ((256, 256) if form == "x" else (40, 50))


def test_nothing_that_looks_like_a_set(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    assert "is not a folder; an annotated set has images/ and labels/" in refusal(tmp_path)
    assert "readme.txt: not an annotated set" in refusal(tmp_path / "readme.txt")


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 5), np.uint8), "the picture is grey"),
        (np.zeros((4, 5, 2), np.uint8), "the picture is grey"),
        (np.zeros((4, 5), np.uint16), "the picture is 16-bit grey"),
        (np.zeros((4, 5), bool), "the picture is black and white"),
    ],
)
def test_pictures_that_are_not_colour_are_refused(pixels: np.ndarray, said: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", pixels)
    with pytest.raises(DatasetError, match=f"a.png: {said}; expected 8-bit RGB colour"):
        read_image(path)


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    layered = np.dstack([picture(), np.full((40, 50), 255, np.uint8)])
    layered[0, 0, 3] = 0
    read = read_image(save(tmp_path / "a.png", layered))
    assert read[0, 0].tolist() == [255] * 3 and (read[1:] == picture()[1:]).all()


def test_colours_by_palette(tmp_path: Path) -> None:
    few_colours = np.where(instance_map()[..., None] > 0, (90, 40, 120), (240, 220, 230)).astype(np.uint8)
    Image.fromarray(few_colours).quantize(4).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == few_colours).all()


@given(st.lists(st.integers(-1, 9), min_size=1, max_size=30))
def test_renumbering_keeps_background_and_unknown(values: list[int]) -> None:
    labels, numbers = numbered(np.array([values]))
    back = np.array([-1, 0, *numbers])[labels + 1]
    assert labels.dtype == np.int32 and (back == values).all()
    assert set(labels[labels > 0].tolist()) == set(range(1, len(numbers) + 1))


def images(*patients: str) -> list[Annotated]:
    nothing = np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.int32)
    return [Annotated(f"{who}_{i}", who, *nothing, 0.25) for i, who in enumerate(patients)]


@pytest.mark.parametrize("seed", range(5))
def test_few_shots_are_of_as_many_patients_as_possible(seed: int) -> None:
    pool = images("a", "a", "a", "a", "b", "b", "c")
    for shots in range(1, 8):
        chosen = few(pool, shots, seed)
        assert len(chosen) == shots and [i.name for i in pool if i in chosen] == [i.name for i in chosen]
        assert len({i.patient for i in chosen}) == min(shots, 3)
        assert few(pool, shots, seed) == chosen
    with pytest.raises(DatasetError, match="--shots 8: the training split holds 7 images"):
        few(pool, 8, seed)


def test_seeds_choose_differently() -> None:
    pool = images(*"aabbccddee")
    assert len({few(pool, 1, seed)[0].name for seed in range(20)}) > 5
