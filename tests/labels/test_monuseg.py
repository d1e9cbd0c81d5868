"""Aperio ImageScope outlines as MoNuSeg and MoNuSAC have them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.labels.scene import BOXES, HOLE, KINDS, by_number, expected, only, picture, refusal, ring, save

Point = tuple[float, float]
PLAIN = dict.fromkeys(KINDS, "")


def region(number: int, points: Sequence[Point], negative: int = 0) -> str:
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)
    return (
        f'<Region Id="{number}" Type="0" Zoom="1" Text="" NegativeROA="{negative}" Analyze="1" DisplayId="{number}">'
        f"<Attributes/><Vertices>{vertices}</Vertices></Region>"
    )


def annotation(number: int, regions: str, name: str = "", attribute: str = "Description") -> str:
    return (
        f'<Annotation Id="{number}" Name="{name}" ReadOnly="0" LineColor="65535" Visible="1" Type="4">'
        f'<Attributes><Attribute Name="{attribute}" Id="0" Value=""/></Attributes>'
        '<Regions><RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>'
        f"</RegionAttributeHeaders>{regions}</Regions><Plots/></Annotation>"
    )


def write(path: Path, *annotations: str, mpp: str = "0.252100") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0"?>\n<Annotations MicronsPerPixel="{mpp}">{"".join(annotations)}</Annotations>')
    return path


def scene() -> str:
    return "".join(region(k, ring(box)) for k, box in BOXES.items()) + region(9, ring(HOLE), negative=1)


def test_outlines_and_holes_to_the_pixel(tmp_path: Path) -> None:
    save(tmp_path / "Tissue Images" / "TCGA-18-5592-01Z-00-DX1.tif", picture())
    write(tmp_path / "Annotations" / "TCGA-18-5592-01Z-00-DX1.xml", annotation(1, scene()))
    item = only(tmp_path, patient="(TCGA-..-....)")
    assert by_number(item) == expected(PLAIN) and item.types == ()
    assert (item.patient, item.mpp) == ("TCGA-18-5592", 0.2521)
    assert (item.image == picture()).all()


def test_types_are_the_names_of_the_annotations(tmp_path: Path) -> None:
    save(tmp_path / "P1" / "P1_1.tif", picture())
    (tmp_path / "P1" / "P1_1.svs").write_bytes(b"not read, the TIFF is taken")
    write(
        tmp_path / "P1" / "P1_1.xml",
        annotation(1, region(1, ring(BOXES[1])) + region(2, ring(BOXES[3])) + region(3, ring(HOLE), 1), "Neoplastic"),
        annotation(2, region(1, ring(BOXES[2])), attribute="Dead"),  # as MoNuSAC has it
        annotation(3, region(1, ring(BOXES[4])), attribute="Epithelial"),
    )
    assert by_number(only(tmp_path)) == expected()
    renamed = only(tmp_path, classes=("Dead=", "Neoplastic=tumour"))
    assert by_number(renamed) == expected({1: "tumour", 3: "tumour", 4: "Epithelial"})


def test_ambiguous_areas_are_not_annotated(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture())
    write(tmp_path / "a.xml", annotation(1, region(1, ring(BOXES[1])), "Epithelial"),
          annotation(2, region(1, ring(BOXES[2])), "Ambiguous"))  # fmt: skip
    item = only(tmp_path)
    assert (item.labels[2:12, 9:20] == -1).all() and item.types == ("Epithelial",) and item.labels.max() == 1


def test_overlapping_outlines_keep_every_nucleus(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture())
    write(tmp_path / "a.xml", annotation(1, region(1, ring((10, 10, 14, 14))) + region(2, ring((5, 5, 30, 30)))))
    labels = only(tmp_path).labels
    assert (labels == labels[12, 12]).sum() == 16 and (labels == labels[6, 6]).sum() == 25 * 25 - 16


def test_degenerate_outlines_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png", picture())
    bad = region(2, []), region(3, [(1, 1)]), region(4, [(1, 1), (5, 5)]), region(5, [(2, 2), (2, 9), (2, 4)])
    write(tmp_path / "a.xml", annotation(1, region(1, ring(BOXES[1])) + "".join(bad)))
    with caplog.at_level(logging.WARNING):
        item = only(tmp_path)
    assert item.labels.max() == 1 and "4 outlines enclose nothing" in caplog.text


def test_outlines_beyond_the_edge_are_cut(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture())
    write(tmp_path / "a.xml", annotation(1, region(1, ring((-5, -5, 3, 4))) + region(2, ring((48, 38, 99, 99)))))
    assert np.bincount(only(tmp_path).labels.ravel()).tolist()[1:] == [12, 4]


def test_a_picture_without_outlines_is_all_background(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture())
    write(tmp_path / "a.xml", annotation(1, ""))
    item = only(tmp_path)
    assert not item.labels.any() and item.types == ()


@pytest.mark.parametrize("mpp", ["", "0", "many"])
def test_a_resolution_that_is_not_stated_is_forty_fold(tmp_path: Path, mpp: str) -> None:
    save(tmp_path / "a.png", picture())
    write(tmp_path / "a.xml", annotation(1, scene()), mpp=mpp)
    assert only(tmp_path).mpp == 0.25 and only(tmp_path, mpp=0.4).mpp == 0.4


def test_bad_files(tmp_path: Path) -> None:
    xml = write(tmp_path / "a.xml", annotation(1, scene()))
    assert "no picture a.png" in refusal(tmp_path)
    save(tmp_path / "a.png", picture())
    xml.write_text(xml.read_text()[:400])
    assert "a.xml: not a readable XML file" in refusal(tmp_path)
    xml.write_text("<annotation><object/></annotation>")
    assert "its root is <annotation>; expected <Annotations>" in refusal(tmp_path)
    write(xml, annotation(1, '<Region Id="7"><Vertices><Vertex X="1"/></Vertices></Region>'))
    assert "region 7 has a vertex without X and Y" in refusal(tmp_path)
