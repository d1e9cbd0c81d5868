"""Annotated sets are read as they are, or refused in one line; splits never share a patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from wsipipe.errors import DatasetError
from wsipipe.labels import DatasetSpec, assign, nuclear_mpp, patient, read_image, read_labels, read_set

SPEC = DatasetSpec("set", patient=r"(P\d+)_")


def write_pair(root: Path, stem: str, labels: NDArray[np.generic], suffix: str = ".png") -> None:
    for name in ("images", "labels"):
        (root / "set" / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*labels.shape[:2], 3), 200, np.uint8)).save(root / f"set/images/{stem}.png")
    path = root / f"set/labels/{stem}{suffix}"
    np.save(path, labels) if suffix == ".npy" else Image.fromarray(labels).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    labels = np.zeros((6, 8), np.uint8)
    labels[1:3, 1:3], labels[4, 4:7] = 5, 9
    for stem in ("P1_a", "P1_b", "P2_a", "P3_a"):
        write_pair(tmp_path, stem, labels)
    return tmp_path


def refusal(spec: DatasetSpec, root: Path, split: str = "train") -> str:
    with pytest.raises(DatasetError) as error:
        read_set(spec, split, root)
    assert "\n" not in str(error.value)
    return str(error.value)


def split_file(root: Path, content: object) -> DatasetSpec:
    (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return DatasetSpec("set", patient=SPEC.patient, split="split.json")


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("uint8", ".png"), ("uint16", ".png"), ("int32", ".npy"), ("int32", ".tif")]
)
def test_a_set_is_read_in_order_with_renumbered_labels(root: Path, dtype: str, suffix: str) -> None:
    labels = np.zeros((6, 8), dtype)
    labels[0, 0], labels[5, 5:8] = 3, 120
    (root / "set/labels/P2_a.png").unlink()
    write_pair(root, "P2_a", labels, suffix)
    images = read_set(SPEC, "train", root)
    assert [(a.name, a.patient, a.mpp) for a in images] == [
        ("P1_a", "P1", 0.25),
        ("P1_b", "P1", 0.25),
        ("P2_a", "P2", 0.25),
        ("P3_a", "P3", 0.25),
    ]
    one = images[2]
    assert one.image.shape == (6, 8, 3) and one.image.dtype == np.uint8 and (one.image == 200).all()
    assert one.labels.dtype == np.int32 and np.array_equal(one.labels, (labels == 3) + 2 * (labels == 120))


def test_labels_without_background_start_at_one(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.array([[7, 7], [9, 9]]))
    assert read_labels(tmp_path / "l.npy").tolist() == [[1, 1], [2, 2]]


def test_splits_by_patient_and_by_name(root: Path) -> None:
    spec = split_file(root, {"train": ["P1"], "val": ["P2_a.png"], "test": ["P3_a"]})
    names = {split: [a.name for a in read_set(spec, split, root)] for split in ("train", "val", "test")}
    assert names == {"train": ["P1_a", "P1_b"], "val": ["P2_a"], "test": ["P3_a"]}
    spec = split_file(root, {"test": ["P3"]})
    assert [a.name for a in read_set(spec, "train", root)] == ["P1_a", "P1_b", "P2_a"]


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["P1", "P2", "P3", "P1_a", "P1_b", "P2_a.png", "P3_c"]), st.sampled_from("012")),
    st.sampled_from(["train", "val", "test"]),
)
def test_no_patient_is_in_two_splits(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[str, str], default: str
) -> None:
    folder = tmp_path_factory.mktemp("split")
    listed = {name: [e for e, k in entries.items() if k == str(i)] for i, name in enumerate(("train", "val", "test"))}
    (folder / "s.json").write_text(json.dumps(listed))
    spec = DatasetSpec("set", patient=SPEC.patient, split="s.json", default_split=default)
    stems = ["P1_a", "P1_b", "P2_a", "P2_b", "P3_c"]
    try:
        splits = assign(spec, stems, folder)
    except DatasetError as error:
        assert "is in" in str(error)
        return
    assert list(splits) == stems
    by_patient = {p: {splits[s] for s in stems if patient(spec, s) == p} for p in ("P1", "P2", "P3")}
    assert all(len(found) == 1 for found in by_patient.values())


def test_a_patient_in_two_splits_is_refused(root: Path) -> None:
    message = refusal(split_file(root, {"train": ["P1_a"], "test": ["P1_b"]}), root)
    assert "patient P1 is in" in message and "train" in message and "test" in message


def test_an_entry_in_two_splits_is_refused(root: Path) -> None:
    assert "P2 is in train and test" in refusal(split_file(root, {"train": ["P2"], "test": ["P2"]}), root)


@pytest.mark.parametrize("content", ["not json", "[1, 2]", '{"train": 3}', '{"training": ["P1"]}'])
def test_a_split_file_of_another_form_is_refused(root: Path, content: str) -> None:
    assert "split.json" in refusal(split_file(root, content), root)


def test_a_missing_split_file_is_refused(root: Path) -> None:
    assert "nothing.json" in refusal(DatasetSpec("set", split="nothing.json"), root)


@pytest.mark.parametrize(
    ("pattern", "said"), [(r"(X\d+)", "does not match 'P1_a'"), (r"P\d+", "group"), (r"(P\d+", "not a regular")]
)
def test_a_pattern_that_names_no_patient_is_refused(root: Path, pattern: str, said: str) -> None:
    assert said in refusal(DatasetSpec("set", patient=pattern), root)


def test_missing_folders_are_refused(root: Path) -> None:
    assert "is not a folder" in refusal(DatasetSpec("elsewhere"), root)
    for path in (root / "set/labels").iterdir():
        path.unlink()
    (root / "set/labels").rmdir()
    assert "labels is not a folder" in refusal(SPEC, root)


@pytest.mark.parametrize("gone", ["images/P1_b.png", "labels/P2_a.png"])
def test_an_image_without_labels_and_labels_without_image_are_refused(root: Path, gone: str) -> None:
    (root / "set" / gone).unlink()
    assert f"{Path(gone).stem} has only an image or only a label map" in refusal(SPEC, root)


def test_two_files_of_one_name_are_refused(root: Path) -> None:
    (root / "set/images/P1_a.jpg").write_bytes((root / "set/images/P1_a.png").read_bytes())
    assert "P1_a" in refusal(SPEC, root)


def test_sizes_that_differ_are_refused(root: Path) -> None:
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(root / "set/labels/P3_a.png")
    assert "label map is (6, 9), its image (6, 8)" in refusal(SPEC, root)


def test_an_unknown_resolution_is_refused(root: Path) -> None:
    assert "mpp is 'forty'" in refusal(DatasetSpec("set", mpp="forty"), root)


def test_files_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    for path in (text, cut, tmp_path / "missing.png"):
        with pytest.raises(DatasetError, match="not a readable picture"):
            read_image(path)
        with pytest.raises(DatasetError, match="not a readable label map"):
            read_labels(path)


def test_arrays_that_are_no_label_maps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.npy"
    for content in (b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="not a readable label map"):
            read_labels(path)
    np.save(path, np.array([[{}]]), allow_pickle=True)
    with pytest.raises(DatasetError, match="not a readable label map"):
        read_labels(path)
    for wrong in (np.zeros((4, 4, 3), int), np.zeros(4, int)):
        np.save(path, wrong)
        with pytest.raises(DatasetError, match="expected \\(height, width\\)"):
            read_labels(path)
    for wrong in (np.full((4, 4), 0.5), np.full((4, 4), -1)):
        np.save(path, wrong)
        with pytest.raises(DatasetError, match="expected"):
            read_labels(path)


def test_resolution_from_the_median_nucleus(root: Path) -> None:
    labels = np.zeros((100, 100), np.int32)
    y, x = np.mgrid[:100, :100]
    labels[np.hypot(x - 30, y - 30) <= 13] = 1
    assert nuclear_mpp(labels) == pytest.approx(0.25, rel=0.03)
    assert nuclear_mpp(np.zeros((5, 5), np.int32)) == pytest.approx(0.25)
    assert [a.mpp for a in read_set(DatasetSpec("set", mpp="nuclei"), "train", root)] == [0.6] * 4


def test_masks_tell_nucleus_from_background_alone(root: Path) -> None:
    (root / "set/labels").rename(root / "set/masks")
    images = read_set(SPEC, "train", root)
    assert all(a.merged and set(np.unique(a.labels)) == {0, 1} for a in images)
    assert not any(a.merged for a in read_set(replace(SPEC, path="plain"), "train", _plain(root)))


def _plain(root: Path) -> Path:
    (root / "plain").mkdir()
    (root / "set/images").rename(root / "plain/images")
    (root / "set/masks").rename(root / "plain/labels")
    return root


def test_outside_the_outlines_of_a_partly_annotated_set_nothing_is_known(root: Path) -> None:
    (one, *_) = read_set(replace(SPEC, partial=True, merged=True), "train", root)
    assert set(np.unique(one.labels)) == {-1, 1, 2} and one.merged


def test_types_beside_labels_are_read_and_renamed(root: Path) -> None:
    (root / "set/types").mkdir()
    (root / "set/types/P1_a.csv").write_text("id,class\n9,tumour\n5,stroma\n")
    typed, untyped, *_ = read_set(replace(SPEC, classes=("tumour=Tumor",)), "train", root)
    assert typed.types == ("stroma", "Tumor") and untyped.types == ()


@pytest.mark.parametrize("content", ["number,class\n5,a\n", "id,class\nfive,a\n", "id,class\n5\n"])
def test_a_table_that_names_no_types_is_refused(root: Path, content: str) -> None:
    (root / "set/types").mkdir()
    (root / "set/types/P1_a.csv").write_text(content)
    message = refusal(SPEC, root)
    assert "P1_a.csv: not a table of types" in message and "id and class" in message


def test_a_label_map_whose_header_is_cut_within_a_bracket(tmp_path: Path) -> None:
    np.save(tmp_path / "l.npy", np.ones((4, 5), np.int32))
    raw = (tmp_path / "l.npy").read_bytes()
    (tmp_path / "l.npy").write_bytes(raw.replace(b"(4, 5), }", b"(4, 5 , }"))
    with pytest.raises(DatasetError, match="not a readable label map"):
        read_labels(tmp_path / "l.npy")
