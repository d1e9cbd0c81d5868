"""The sheet: every picture where it belongs, readable type, colours that can be told apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFont

from wsipipe.errors import OutputError
from wsipipe.figure.regions import Region, cut
from wsipipe.figure.sheet import COLOURS, EDGE, GAP, Section, coloured, heated, picture, ringed, write_sheet


def flat(colour: tuple[int, int, int], side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), colour, np.uint8)


def test_pictures_stand_in_their_rows_and_columns(tmp_path: Path) -> None:
    red, green, blue = (220, 0, 0), (0, 200, 0), (0, 0, 220)
    section = Section("Title", "note", ["a", "b"], [(flat(red), flat(green)), (None, flat(blue))], ["one", "two"])
    size = write_sheet(tmp_path / "sheet.png", "what it is", [section, section], 64)
    with Image.open(tmp_path / "sheet.png") as image:
        found = np.asarray(image.convert("RGB"))
    assert found.shape == (size[1], size[0], 3) and size[0] == 2 * EDGE + 2 * 64 + GAP
    for colour, column in ((red, 0), (green, 1), (blue, 1)):
        rows, columns = np.nonzero((found == colour).all(axis=-1))
        assert len(rows) == 2 * 64 * 64
        assert (columns.min(), columns.max()) == (EDGE + column * (64 + GAP), EDGE + column * (64 + GAP) + 63)
    assert np.nonzero((found == blue).all(axis=-1))[0].min() > np.nonzero((found == red).all(axis=-1))[0].min()
    assert (found[-EDGE // 2 :] == 255).all(), "nothing is cut off below"


def test_a_long_label_is_cut_and_not_written_over_its_neighbour(tmp_path: Path) -> None:
    section = Section("T", "n" * 400, ["caption " * 9, "b"], [(flat((9, 9, 9)),) * 2], ["label " * 20])
    size = write_sheet(tmp_path / "sheet.png", "t" * 400, [section], 64)
    with Image.open(tmp_path / "sheet.png") as image:
        found = np.asarray(image.convert("L"))
    assert found.shape == size[::-1]
    assert (found[:, -EDGE + 2 :] == 255).all() and (found[:, EDGE + 64 + 2 : EDGE + 64 + GAP - 2] == 255)[-60:].all()


def test_type_has_every_sign_that_is_written() -> None:
    """The font that comes with Pillow lacks some, which would be boxes."""
    missing = ImageFont.load_default(16).getmask("\U0010fffd")
    for sign in "abzAZ019=%:,.()-_#/'…&":
        assert bytes(ImageFont.load_default(16).getmask(sign)) != bytes(missing), sign


def test_a_sheet_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_sheet(tmp_path / "no" / "sheet.png", "", [Section("", "", ["a"], [(flat((0, 0, 0)),)], [""])], 64)


def test_clusters_are_squares_of_their_colours() -> None:
    found = coloured(np.array([[0, 1], [2, 3]]), 64)
    assert found.shape == (64, 64, 3)
    assert [tuple(found[y, x]) for y, x in ((0, 0), (31, 32), (32, 31), (63, 63))] == list(COLOURS[:4])


def test_colours_differ_also_in_grey_or_hue() -> None:
    lab = cv2.cvtColor(np.array([COLOURS], np.uint8), cv2.COLOR_RGB2LAB)[0].astype(float)
    gaps = [np.linalg.norm(a - b) for k, a in enumerate(lab) for b in lab[:k]]
    assert min(gaps) > 25


def test_the_greatest_similarity_is_the_brightest() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    found = heated(values, flat((128, 128, 128), 256), 256, (0.5, 0.5)).astype(int).sum(axis=-1)
    assert found[0, 0] < found[255, 0] < found[255, 255]
    same = heated(np.ones((4, 4), np.float32), flat((128,) * 3, 256), 256, (0.5, 0.5))
    assert len(np.unique(same[:64].reshape(-1, 3), axis=0)) == 1


def test_the_ring_is_around_the_point() -> None:
    found = ringed(flat((128, 128, 128), 256), (0.25, 0.75))
    rows, columns = np.nonzero((found != 128).any(axis=-1))
    assert (rows.mean(), columns.mean()) == pytest.approx((192, 64), abs=1)
    assert (found[192, 64] == 128).all(), "the point itself is not covered"


@pytest.mark.parametrize(("mpp", "bar"), [((0.5, 0.5), True), (None, False)])
def test_a_scale_bar_stands_where_the_resolution_is_known(mpp: tuple[float, float] | None, bar: bool) -> None:
    region = Region("x", cut(flat((200, 150, 180), 512), (256, 256), 256), mpp=mpp)
    found = picture(region, 512)
    assert found.shape == (512, 512, 3) and (found != (200, 150, 180)).any() == bar
