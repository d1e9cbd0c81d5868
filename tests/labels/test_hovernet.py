"""MATLAB label files as HoVer-Net, CoNSeP and Lizard have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from tests.labels.scene import KINDS, by_number, expected, instance_map, only, picture, refusal, save

NUMBERS = {1: 4, 2: 2, 3: 4, 4: 7}
NAMES = ("", "Dead", "", "Neoplastic", "", "", "Epithelial")


def write(folder: Path, **content: Any) -> Path:
    save(folder / "Images" / "test_1.png", picture())
    save(folder / "Overlay" / "test_1.png", picture())
    (folder / "Labels").mkdir(exist_ok=True)
    scipy.io.savemat(folder / "Labels" / "test_1.mat", content)
    return folder / "Labels" / "test_1.mat"


def consep(**changes: Any) -> dict[str, Any]:
    """Return what a CoNSeP label file holds."""
    labels = instance_map()
    centroids = np.array([np.argwhere(labels == k).mean(0)[::-1] for k in NUMBERS])
    types = np.array([NUMBERS[k] for k in NUMBERS], np.float64)[:, None]
    type_map = np.array([0, *NUMBERS.values()])[labels]
    content = {"inst_map": labels.astype(np.float64), "type_map": type_map.astype(np.float64),
               "inst_type": types, "inst_centroid": centroids}  # fmt: skip
    return {key: value for key, value in (content | changes).items() if value is not None}


def test_consep(tmp_path: Path) -> None:
    write(tmp_path, **consep())
    item = only(tmp_path, classes=NAMES)
    assert by_number(item) == expected() and item.mpp == 0.25 and (item.image == picture()).all()
    assert by_number(only(tmp_path)) == expected({k: f"type {n}" for k, n in NUMBERS.items()})


def test_types_may_be_merged(tmp_path: Path) -> None:
    write(tmp_path, **consep())
    merged = only(tmp_path, classes=("x", "other", "x", "other", "x", "x", "x"))
    assert set(merged.types) == {"other", "x"} and merged.types == ("other", "other", "other", "x")


def test_without_types_as_kumar_and_cpm(tmp_path: Path) -> None:
    write(tmp_path, inst_map=instance_map().astype(np.uint16))
    item = only(tmp_path)
    assert by_number(item) == expected(dict.fromkeys(KINDS, "")) and item.types == ()


def test_lizard_names_instances_by_number(tmp_path: Path) -> None:
    shuffled = [3, 1, 4, 2]
    content = {"id": np.array([shuffled]).T, "class": np.array([[NUMBERS[k] for k in shuffled]]).T}
    write(tmp_path, inst_map=instance_map(), **content, bbox=np.zeros((4, 4)), centroid=np.zeros((4, 2)))
    assert by_number(only(tmp_path, classes=NAMES)) == expected()


def test_gaps_in_the_numbers(tmp_path: Path) -> None:
    labels = instance_map()
    labels[labels == 2] = 60_000_0
    for types in (np.array([[4], [4], [7], [2]]),):
        write(tmp_path, inst_map=labels, inst_type=types)
        assert by_number(only(tmp_path, classes=NAMES)) == expected()
    write(tmp_path, inst_map=np.where(instance_map() == 2, 0, instance_map()), inst_type=np.array([[4, 2, 4, 7]]))
    assert only(tmp_path, classes=NAMES).types == ("Neoplastic", "Neoplastic", "Epithelial")


def test_types_from_a_type_map_are_the_majority(tmp_path: Path) -> None:
    content = consep(inst_type=None)
    content["type_map"][2:4, 3:9] = 1
    write(tmp_path, **content)
    assert by_number(only(tmp_path, classes=NAMES)) == expected()


def test_an_empty_image_has_no_nuclei(tmp_path: Path) -> None:
    write(tmp_path, inst_map=np.zeros((40, 50)), inst_type=np.zeros((0, 1)))
    assert not only(tmp_path).labels.any()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"mask": np.zeros((40, 50))}, "holds mask; expected inst_map"),
        ({"inst_map": np.zeros((40, 49))}, "label map is (40, 49), its image (40, 50)"),
        ({"inst_map": np.zeros((40, 50, 3))}, "label map has shape (40, 50, 3)"),
        ({"inst_map": np.full((40, 50), 0.5)}, "no instance numbers"),
        (consep(inst_type=np.array([[1], [2]])), "2 types in inst_type for 4 instances"),
        (consep(inst_type=None, type_map=np.zeros((4, 5))), "type_map is (4, 5) and inst_map (40, 50)"),
    ],
)
def test_content_that_cannot_be_used(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    write(tmp_path, **content)
    assert said in refusal(tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, **consep())
    whole = path.read_bytes()
    for broken in (b"", b"text" * 100, whole[:200], whole[:-300]):
        path.write_bytes(broken)
        assert "test_1.mat: not a readable MATLAB file" in refusal(tmp_path)
    scipy.io.savemat(path, consep(), do_compression=True)
    packed = path.read_bytes()
    for place in (140, len(packed) // 2):
        path.write_bytes(packed[:place] + bytes(16) + packed[place + 16 :])
        assert "test_1.mat: not a readable MATLAB file" in refusal(tmp_path)
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(400))
    assert "a MATLAB 7.3 file; expected version 7" in refusal(tmp_path)
    path.write_bytes(whole)
    (tmp_path / "Images" / "test_1.png").unlink()
    assert "no picture test_1.png" in refusal(tmp_path)
