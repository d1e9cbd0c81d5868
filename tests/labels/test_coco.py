"""COCO JSON: polygons, run lengths as numbers and as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.labels.scene import (
    BOXES,
    HEIGHT,
    HOLE,
    KINDS,
    WIDTH,
    by_number,
    expected,
    instance_map,
    only,
    picture,
    refusal,
    ring,
    save,
)
from wsipipe.labels.coco import run_length_mask


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return COCO's counts of *mask*: down the columns, beginning with zeros."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    return np.diff([0, *edges]).astype(int).tolist()


def as_text(counts: list[int]) -> str:
    """Compress counts as COCO's reference code does."""
    out = ""
    for i, count in enumerate(counts):
        x, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits, x = x & 0x1F, x >> 5
            more = x != -1 if bits & 0x10 else x != 0
            out += chr((bits | (0x20 if more else 0)) + 48)
    return out


def flat(box: tuple[int, int, int, int]) -> list[float]:
    return [v for point in ring(box) for v in point]


def content(form: str) -> dict[str, Any]:
    categories = [
        {"id": i * 10, "name": name, "supercategory": "nucleus"} for i, name in enumerate(sorted(set(KINDS.values())))
    ]
    number = {c["name"]: c["id"] for c in categories}
    annotations = []
    for k, box in BOXES.items():
        counts = run_lengths(instance_map() == k)
        shown: Any = {"size": [HEIGHT, WIDTH], "counts": counts if form == "numbers" else as_text(counts)}
        if form == "polygons":
            shown = [flat(box)] + ([flat(HOLE)] if k == 3 else [])
        annotations.append({"id": k, "image_id": 7, "category_id": number[KINDS[k]], "segmentation": shown,
                            "iscrowd": int(form != "polygons"), "bbox": [0, 0, 1, 1], "area": 1})  # fmt: skip
    images = [{"id": 7, "file_name": "one.png", "width": WIDTH, "height": HEIGHT}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def write(folder: Path, told: Any, where: str = "images") -> Path:
    save(folder / where / "one.png", picture())
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / "instances.json").write_text(json.dumps(told))
    return folder / "annotations" / "instances.json"


@pytest.mark.parametrize("form", ["polygons", "numbers", "text"])
def test_every_encoding_to_the_pixel(tmp_path: Path, form: str) -> None:
    file = write(tmp_path, content(form))
    (tmp_path / "split.json").write_text('{"train": ["one"]}')
    for path in (tmp_path, file):
        item = only(path)
        assert by_number(item) == expected() and (item.image == picture()).all()


def test_one_category_is_no_type(tmp_path: Path) -> None:
    told = content("polygons")
    told["categories"] = [{"id": 0, "name": "nucleus"}]
    for annotation in told["annotations"]:
        annotation["category_id"] = 0
    write(tmp_path, told)
    assert only(tmp_path).types == ()


@given(st.lists(st.booleans(), min_size=1, max_size=400), st.integers(1, 20))
def test_run_lengths_there_and_back(bits: list[bool], height: int) -> None:
    width = -(-len(bits) // height)
    mask = np.resize(np.array(bits), (height, width))
    counts = run_lengths(mask)
    for coded in (counts, as_text(counts)):
        assert (run_length_mask({"size": [height, width], "counts": coded}, (height, width)) == mask).all()


@pytest.mark.parametrize(("counts", "text"), [([0, 6, 1, 3], "061M"), ([0, 6, 1, 6], "0610"), ([0, 1024], "0PP1")])
def test_text_as_others_write_it(counts: list[int], text: str) -> None:
    assert as_text(counts) == text
    shape = sum(counts), 1
    plain = run_length_mask({"size": list(shape), "counts": counts}, shape)
    assert (run_length_mask({"size": list(shape), "counts": text}, shape) == plain).all()


def test_many_nuclei(tmp_path: Path) -> None:
    """More than 16 bits can number."""
    side = 265
    save(tmp_path / "big.png", picture(side, side))
    boxes = [(x, y, x + 1, y + 1) for y in range(side) for x in range(side)][:70_000]
    drawn = [{"id": k, "image_id": 1, "segmentation": [flat(box)]} for k, box in enumerate(boxes)]
    told = {"images": [{"id": 1, "file_name": "big.png"}], "categories": [], "annotations": drawn}
    (tmp_path / "big.json").write_text(json.dumps(told))
    assert only(tmp_path).labels.max() == 70_000


def test_nothing_annotated_is_all_background(tmp_path: Path) -> None:
    write(tmp_path, content("polygons") | {"annotations": []})
    assert not only(tmp_path).labels.any()


def test_bad_files(tmp_path: Path) -> None:
    told = content("polygons")
    file = write(tmp_path, told)
    cases: list[tuple[Any, str]] = [
        (told | {"annotations": [{"id": 1, "image_id": 99}]}, "not COCO as it should be (99 is missing)"),
        (told | {"images": [{"id": 7}]}, "not COCO as it should be ('file_name' is missing)"),
        (told | {"images": [told["images"][0] | {"width": 51}]}, "one.png is 50 x 40 px; the file says 51 x 40"),
        (told | {"images": [told["images"][0] | {"file_name": "none.png"}]}, "no picture none.png"),
    ]
    for segmentation, said in (
        ([[1, 2, 3]], "no usable segmentation"),
        ({"size": [40, 51], "counts": [40 * 51]}, "its size is [40, 51], the image's [40, 50]"),
        ({"size": [40, 50], "counts": [5, 5]}, "its runs add up to 10 px, the image has 2000"),
        ({"counts": [5, 5]}, "no usable segmentation ('size' is missing)"),
    ):
        cases.append((told | {"annotations": [{"id": 3, "image_id": 7, "segmentation": segmentation}]}, said))
    for changed, said in cases:
        file.write_text(json.dumps(changed))
        assert said in refusal(tmp_path, format="coco")
    file.write_text(json.dumps(told)[:-20])
    assert "instances.json: not a readable JSON file" in refusal(tmp_path)
