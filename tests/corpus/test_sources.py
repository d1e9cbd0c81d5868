"""Slides and pictures, named one by one, by folder, or in a CSV."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsipipe.corpus.sources import Naming, Source, find_sources
from wsipipe.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/x_1.png", "a/x_2.JPG", "a/deep/y_1.svs", "a/notes.txt", "a/.hidden.png", "b/x_1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_a_folder_gives_its_slides_and_pictures_to_any_depth(folder: Path) -> None:
    assert names(find_sources([folder / "a"])) == ["a/deep/y_1.svs", "a/x_1.png", "a/x_2.JPG"]


def test_a_file_named_twice_counts_once_and_order_does_not_matter(folder: Path) -> None:
    one, two = (
        find_sources([folder / "a", folder / "a/x_1.png"]),
        find_sources([folder / "a" / "x_1.png", folder / "a"]),
    )
    assert len(one) == len(two) == 3
    assert [s.path for s in find_sources([folder / "b", folder / "a"])] == [
        s.path for s in find_sources([folder / "a", folder / "b"])
    ]


def test_two_slides_of_one_name_are_two_slides(folder: Path) -> None:
    assert names(find_sources([folder / "a/x_1.png", folder / "b/x_1.png"])) == ["a/x_1.png", "b/x_1.png"]


def test_a_link_back_to_a_folder_above_is_not_followed(folder: Path) -> None:
    before = names(find_sources([folder]))
    for name in ("one", "two", "three"):  # each leads to all of them, and so on
        (folder / name).symlink_to(folder, target_is_directory=True)
    assert names(find_sources([folder])) == before


def test_a_dicom_folder_is_one_slide(tmp_path: Path) -> None:
    (tmp_path / "set/one").mkdir(parents=True)
    for i in range(3):
        (tmp_path / f"set/one/{i}.dcm").touch()
    assert names(find_sources([tmp_path / "set"])) == ["set/one"]


def test_a_csv_names_files_folders_and_patterns(folder: Path) -> None:
    table = folder / "slides.csv"
    table.write_text(
        "organ, path,mpp,patient,scanner\nskin,a/x_1.png,0.25,P1,Z\n,a/deep,,P2,Z\nbreast,b/x_?.png,0.5,,Z\n",
        encoding="utf-8",
    )
    found = {s.name: (s.mpp, s.organ, s.patient) for s in find_sources([table])}
    assert found == {
        "a/x_1.png": (0.25, "skin", "P1"),
        "a/deep/y_1.svs": (None, "unknown", "P2"),
        "b/x_1.png": (0.5, "breast", "b/x_1.png"),
    }
    assert find_sources([table]) == find_sources([table], root=folder)


def test_a_csv_may_name_what_is_not_there(folder: Path) -> None:
    (folder / "s.csv").write_text("path\nnowhere.svs\n")
    assert names(find_sources([folder / "s.csv"])) == ["nowhere.svs"]  # it fails in its turn, not the whole run


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,mpp\na,1\n", "no column 'path' among file, mpp"),
        ("path\n", "no row"),
        ("path,mpp\na/x_1.png,quarter\n", "line 2: mpp is 'quarter'"),
        ("path,mpp\na/x_1.png,-1\n", "mpp is '-1'"),
        ("path,mpp\n,1\n", "line 2: the path is empty"),
        ("path\nb/none_*.png\n", "nothing matches 'b/none_"),
        ("", "no column 'path' among none"),
        ("path\n/\n", "line 2: path is '/'; expected a file"),
        ("path\na\0b.svs\n", r"line 2: path is 'a\\x00b.svs'; expected a file"),
    ],
)
def test_bad_csv(folder: Path, text: str, says: str) -> None:
    (folder / "s.csv").write_text(text)
    with pytest.raises(DatasetError, match=says):
        find_sources([folder / "s.csv"])


def test_bad_inputs(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        find_sources([tmp_path / "nowhere"])
    with pytest.raises(DatasetError, match="no slide or picture"):
        find_sources([tmp_path])
    with pytest.raises(DatasetError, match="not a readable CSV"):
        find_sources([tmp_path / "nowhere.csv"])


def test_patient_and_organ_are_read_from_names(folder: Path) -> None:
    found = find_sources([folder / "b"], naming=Naming(r"x_(\d)", r"(z)"))
    assert [(s.patient, s.organ) for s in found] == [("1", "unknown")]
    for pattern, says in ((r"q(.)", "does not match 'x_1'"), (r"x_1", "no group"), (r"(", "not a regular expression")):
        with pytest.raises(DatasetError, match=says):
            find_sources([folder / "b"], naming=Naming(pattern))


def test_a_name_that_is_not_utf8_is_written_out(tmp_path: Path) -> None:
    (tmp_path / "\udcff.png").touch()
    (source,) = find_sources([tmp_path])
    assert source.name == source.patient == f"{tmp_path.name}/\\xff.png" and Path(source.path).exists()
