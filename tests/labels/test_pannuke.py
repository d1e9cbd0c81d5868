"""PanNuke's folds, in their own layout and flat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.labels.scene import HEIGHT, KINDS, WIDTH, by_number, expected, instance_map, picture, refusal
from wsipipe.labels import DatasetSpec, read_set
from wsipipe.labels.pannuke import CHANNELS


def masks() -> NDArray[np.float64]:
    """Return the scene as six channels; instance numbers start anew in every channel."""
    out = np.zeros((HEIGHT, WIDTH, 6))
    for number, kind in KINDS.items():
        channel = out[..., CHANNELS.index(kind)]
        channel[instance_map() == number] = 1 if kind != "Neoplastic" else number
    out[..., 5] = instance_map() == 0
    return out


def write(images: Path, labels: Path, count: int = 2) -> None:
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    np.save(images / "images.npy", np.stack([picture().astype(np.float64)] * count))
    np.save(images / "types.npy", np.array(["Breast", "Bile-duct"] * count)[:count])
    np.save(labels / "masks.npy", np.stack([np.zeros((HEIGHT, WIDTH, 6))] * (count - 1) + [masks()]))


def test_folds_in_their_own_layout(tmp_path: Path) -> None:
    for k in (1, 2):
        write(tmp_path / f"Fold {k}/images/fold{k}", tmp_path / f"Fold {k}/masks/fold{k}")
    items = read_set(DatasetSpec(str(tmp_path)), "train")
    assert [i.name for i in items] == [
        "fold1_00000_Breast", "fold1_00001_Bile-duct", "fold2_00000_Breast", "fold2_00001_Bile-duct"
    ]  # fmt: skip
    assert by_number(items[1]) == expected() and items[1].mpp == 0.25 and (items[1].image == picture()).all()
    assert not items[0].labels.any() and items[0].types == ()


def test_one_flat_fold_without_tissues(tmp_path: Path) -> None:
    write(tmp_path, tmp_path)
    (tmp_path / "types.npy").unlink()
    items = read_set(DatasetSpec(str(tmp_path)), "train")
    assert [i.name for i in items] == ["fold1_00000", "fold1_00001"] and by_number(items[1]) == expected()


def test_folds_are_splits(tmp_path: Path) -> None:
    for k in (1, 2, 3):
        write(tmp_path / f"fold{k}", tmp_path / f"fold{k}", 1)
    (tmp_path / "split.json").write_text(json.dumps({"train": ["fold1"], "val": ["fold2"], "test": ["fold3"]}))
    spec = DatasetSpec(str(tmp_path), patient="(fold.)", split=str(tmp_path / "split.json"))
    assert [[i.name for i in read_set(spec, part)] for part in ("train", "val", "test")] == [
        ["fold1_00000_Breast"], ["fold2_00000_Breast"], ["fold3_00000_Breast"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("masks", np.zeros((2, HEIGHT, WIDTH)), "masks have shape (2, 40, 50); expected (images, height, width, 6)"),
        ("masks", np.zeros((2, HEIGHT, WIDTH, 3)), "masks have shape"),
        ("masks", np.full((2, HEIGHT, WIDTH, 6), 0.5), "no instance numbers"),
        ("images", np.zeros((3, HEIGHT, WIDTH, 3)), "as many of a size"),
        ("images", np.zeros((2, HEIGHT, WIDTH, 1)), "has shape (40, 50, 1); expected (height, width, 3)"),
        ("images", np.full((2, HEIGHT, WIDTH, 3), 900, np.uint16), "values reach 900; expected 8-bit"),
        ("types", np.array(["Breast"]), "types have shape (1,); expected (2,)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, name: str, array: NDArray[np.generic], said: str) -> None:
    write(tmp_path, tmp_path)
    np.save(tmp_path / f"{name}.npy", array)
    assert said in refusal(tmp_path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, tmp_path)
    whole = (tmp_path / "masks.npy").read_bytes()
    (tmp_path / "masks.npy").write_bytes(whole[:-100])
    assert "masks.npy: not a readable NPY file" in refusal(tmp_path)
    (tmp_path / "masks.npy").write_bytes(whole)
    (tmp_path / "images.npy").unlink()
    assert "no images.npy beside it" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../../up", "a\0b", "a\nb", "beyond"])
def test_names_of_tissues_that_are_none(tmp_path: Path, name: str) -> None:
    """They become part of the names of files."""
    write(tmp_path, tmp_path)
    names = np.array(["Breast", name])
    if name == "beyond":
        names.view(np.uint32)[3] = 0x1000074
    np.save(tmp_path / "types.npy", names)
    assert "types.npy: holds <U" in refusal(tmp_path) and "no names of tissues" in refusal(tmp_path)
