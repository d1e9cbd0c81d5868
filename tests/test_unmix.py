"""Stains told apart: amounts, files, estimates, guesses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import ROOT
from wsipipe.errors import SettingsError
from wsipipe.phantom.slide import write_phantom
from wsipipe.settings import PhantomSettings
from wsipipe.slide import open_slide
from wsipipe.stain.unmix import (
    DAB,
    HDAB,
    HE,
    HEMATOXYLIN,
    StainVectors,
    angle,
    contradicts,
    estimate,
    guess,
    read_vectors,
    write_vectors,
)

DATA = ROOT.parent / "shared" / "data"


def painted(vectors: StainVectors, amounts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return pixels (h, w, 3) of known amounts (h, w, 2)."""
    od = amounts @ np.array([vector for _, vector in vectors.stains])
    return np.rint(np.array(vectors.background) * 10**-od).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("vectors", [HE, HDAB], ids=["he", "hdab"])
def test_amounts_come_back(vectors: StainVectors) -> None:
    amounts = np.random.default_rng(0).uniform(0, 0.9, (60, 60, 2))
    assert vectors.amounts(painted(vectors, amounts)) == pytest.approx(amounts, abs=0.03)


def test_brown_is_no_haematoxylin() -> None:
    """Pure DAB of growing density has none of the other stain, and nothing is below zero by more than rounding."""
    amounts = np.stack([np.zeros(50), np.linspace(0, 1.2, 50)], -1)[None]
    found = HDAB.amounts(painted(HDAB, amounts))
    assert np.abs(found[..., 0]).max() < 0.02 and found.min() > -0.02
    assert HE.amounts(painted(HDAB, amounts))[..., 1].max() > 1, "by the wrong vectors, all of it is eosin"


def test_vectors_are_those_of_qupath() -> None:
    """The defaults that QuPath prints, of unit length, and its background."""
    said = HDAB.as_dict()
    assert said["Values 1"].split() == ["0.65111", "0.70119", "0.29049"]
    assert said["Values 2"].split() == ["0.26917", "0.56824", "0.77759"]
    assert HE.as_dict()["Values 2"].split() == ["0.2159", "0.8012", "0.5581"]
    for vectors in (HE, HDAB):
        assert np.linalg.norm([v for _, v in vectors.stains], axis=1) == pytest.approx(1, abs=1e-5)
    for plain, vector in (((0.65, 0.70, 0.29), HEMATOXYLIN), ((0.27, 0.57, 0.78), DAB)):
        assert angle(plain, vector) < 0.1


def test_a_file_is_read_back_and_qupaths_too(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.groovy", HDAB)
    assert read_vectors(tmp_path / "a.groovy") == HDAB
    (tmp_path / "b.json").write_text(
        '{"Name": "mine", "Stain 1": "Hematoxylin", "Values 1": "0.65 0.70 0.29", "Stain 2": "DAB", '
        '"Values 2": "0.27 0.57 0.78", "Stain 3": "Residual", "Values 3": "1 0 0", "Background": " 240 241 242"}'
    )
    mine = read_vectors(tmp_path / "b.json")
    assert mine.background == (240, 241, 242) and mine.keys == ("hematoxylin", "dab")
    assert mine.amounts(np.full((1, 1, 3), (240, 241, 242), np.uint8)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "not a file of stain vectors"),
        ('{"Stain 1": "A", "Values 1": "p.5 0 0", "Stain 2": "B", "Values 2": "0 1 0"}', r"\('p.5' is no number\)"),
        ('{"Stain 1": "A", "Values 1": "1 0 0"}', "two or three stains"),
        ('{"Stain 1": "A", "Values 1": "1 0 0", "Stain 2": "B", "Values 2": "1 0.01 0"}', "degrees apart"),
        ('{"Stain 1": "A", "Values 1": "1 0", "Stain 2": "B", "Values 2": "0 1 0"}', "not a file of stain vectors"),
        (
            '{"Stain 1": "A", "Values 1": "1 0 0", "Stain 2": "B", "Values 2": "0 1 0", "Background": "0 1 2"}',
            "1 to 255",
        ),
    ],
)
def test_bad_files_are_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(SettingsError, match=said) as error:
        read_vectors(tmp_path / "a.json")
    assert "a.json" in str(error.value)


def test_an_estimate_finds_turned_vectors() -> None:
    """Stains that differ from the defaults by 5 to 10 degrees are found to 3, whichever comes first in the plane."""
    turned = StainVectors("x", (("Hematoxylin", (0.75, 0.62, 0.25)), ("DAB", (0.35, 0.55, 0.75))))
    rng = np.random.default_rng(1)
    mixed = np.where(rng.random((200, 200, 1)) < 0.5, [1.0, 0.03], [0.03, 1.0])
    amounts = mixed * rng.uniform(0.2, 0.7, (200, 200, 1)) + rng.uniform(0, 0.03, (200, 200, 2))
    found = estimate(painted(turned, amounts), HDAB)
    for (_, vector), (_, true), (_, default) in zip(found.stains, turned.stains, HDAB.stains):
        assert angle(vector, true) < 3 < angle(true, default)
    with pytest.raises(SettingsError, match="neither faint, dark nor grey"):
        estimate(np.full((100, 100, 3), 240, np.uint8), HDAB)


def test_the_guess_minds_both_stains() -> None:
    rng = np.random.default_rng(2)
    strength, brown = rng.uniform(0.2, 0.8, (100, 100, 1)), rng.random((100, 100, 1)) < 0.15
    stained = painted(HDAB, np.where(brown, [0.1, 1.0], [1.0, 0.05]) * strength)
    assert guess(stained) is HDAB
    crowded = painted(HE, np.where(rng.random((100, 100, 1)) < 0.9, [1.0, 0.1], [0.1, 1.0]) * strength)
    assert guess(crowded) is HE, "H&E of almost nothing but nuclei"
    assert guess(np.full((9, 9, 3), 255, np.uint8)) is HE


@pytest.mark.parametrize("positive", [0.1, 0.5, 1.0])
def test_the_guess_on_drawn_slides(positive: float, tmp_path: Path) -> None:
    for staining, wanted in (("hdab", HDAB), ("he", HE)):
        settings = PhantomSettings(width=1536, height=1024, seed=3, staining=staining, positive=positive, tissue=0.9)
        write_phantom(tmp_path / "slide.tiff", settings)
        with open_slide(tmp_path / "slide.tiff") as slide:
            assert guess(slide.read_region(0, 0, 0, 1536, 1024)[::2, ::2]) is wanted


@pytest.mark.parametrize("staining", ["he", "hdab"])
def test_stains_that_are_not_there_are_told(staining: str, tmp_path: Path) -> None:
    """Of a slide drawn with one staining and called the other; one of a negative marker is not accused."""
    settings = PhantomSettings(width=1536, height=1024, seed=3, staining=staining, tissue=0.9)
    write_phantom(tmp_path / "slide.tiff", settings)
    with open_slide(tmp_path / "slide.tiff") as slide:
        rgb = slide.read_region(0, 0, 0, 1536, 1024)
    right, wrong = (HE, HDAB) if staining == "he" else (HDAB, HE)
    assert not contradicts(right, rgb)
    told = contradicts(wrong, rgb)
    assert f"but it looks like {'H&E' if staining == 'he' else 'H-DAB'}: " in told and "\n" not in told
    write_phantom(tmp_path / "slide.tiff", PhantomSettings(width=1024, height=768, staining="hdab", positive=0.0))
    with open_slide(tmp_path / "slide.tiff") as slide:
        assert not contradicts(HDAB, slide.read_region(0, 0, 0, 1024, 768))


SETS = ("kumar-train16", "tnbc", "consep-train27", "monusac-69-half")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", [*SETS, "ihc-deepliif2"])
def test_the_guess_on_real_pictures(name: str) -> None:
    paths = sorted((DATA / name / "images").glob("*"))
    pictures = [cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in paths]  # type: ignore[arg-type]
    wanted = HDAB if name.startswith("ihc") else HE
    halved = [
        p if name == "monusac-69-half" else cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=3) for p in pictures
    ]
    together = np.concatenate([np.asarray(p, np.uint8).reshape(-1, 3)[::7] for p in halved])
    assert guess(together) is wanted
    wrong = [path.name for path, p in zip(paths, halved) if guess(np.asarray(p, np.uint8)) is not wanted]
    assert not wrong
