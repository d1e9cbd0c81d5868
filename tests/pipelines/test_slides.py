"""Which slides a command means, and what their results are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsipipe.errors import SettingsError, SlideNotFound, UnreadableSlide
from wsipipe.segmentation.job import SegmentJob
from wsipipe.segmentation.slides import Entry, is_batch, list_slides
from wsipipe.settings import SlideSettings
from wsipipe.slide import open_slide


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of files with the names of slides, and others."""
    for name in (
        *("a/x.svs", "b/x.svs", "b/x.tiff", "top.NDPI", "c/tma.ome.tif", ".hidden.svs", "notes.txt", "photo.png"),
        *("series/1.dcm", "series/2.dcm", "mixed/one.dcm", "mixed/two.svs", "m/s.mrxs", "m/s/Data0000.dat"),
    ):
        (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / name).touch()
    return tmp_path / "slides"


def names(*sources: object, **options: object) -> list[str]:
    return [entry.name for entry in list_slides([str(s) for s in sources], **options)]  # type: ignore[arg-type]


def test_a_folder(folder: Path) -> None:
    expected = {"a/x", "b/x.svs", "b/x.tiff", "top", "c/tma", "series", "mixed/one", "mixed/two", "m/s"}
    assert set(names(folder)) == expected and len(names(folder)) == len(expected)
    assert set(names(folder, recursive=False)) == {"top", "series"}


def test_a_pattern_and_several_paths(folder: Path) -> None:
    assert names(f"{folder}/**/*.svs") == ["a/x", "b/x", "mixed/two"]
    assert names(f"{folder}/*.png") == ["photo"]
    assert names(folder / "a/x.svs", folder / "b/x.svs", folder / "a/x.svs") == ["a/x", "b/x"]
    assert names(folder / "a/x.svs") == ["x"]
    assert names(folder / "a/x.svs", root=str(folder)) == ["a/x"]
    assert names("s3://bucket/p/x.svs", "s3://bucket/q/x.svs") == ["p/x", "q/x"]


def test_what_is_one_slide_and_what_are_many(folder: Path) -> None:
    assert is_batch([str(folder)]) and is_batch([f"{folder}/*.svs"]) and is_batch(["a.svs", "b.svs"])
    assert is_batch(["cohort.csv"])
    assert not is_batch([str(folder / "a/x.svs")]) and not is_batch([str(folder / "series")])
    assert not is_batch(["missing.svs"]) and not is_batch(["s3://bucket/x.svs"])


def test_nothing_there(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlideNotFound, match="no slides in"):
        list_slides([str(tmp_path / "empty")])
    with pytest.raises(SlideNotFound, match="no slide matches"):
        list_slides([f"{folder}/*.xyz"])


def test_slides_that_are_not_below_the_root(folder: Path) -> None:
    with pytest.raises(SettingsError, match="not below --root"):
        list_slides([str(folder / "top.NDPI")], root=str(folder / "a"))


def test_a_path_that_names_no_file(folder: Path) -> None:
    (table := folder / "t.csv").write_text("path\n/\n")
    for sources in ([str(table)], ["s3://", "a.svs"]):
        with pytest.raises(SettingsError, match="names no file; expected a slide"):
            list_slides(sources)
    assert names(folder / "series", root=str(folder / "series")) == ["series"]


def test_a_table(folder: Path) -> None:
    table = folder / "cohort.csv"
    table.write_text(
        "\ufeffpath;mpp;model;patient;Target-MPP;strict_mpp;bounds;name\n"
        "a/x.svs;0.25;;p1;;yes;1 2 30 40;\n"
        "b/x.svs;;other;p2;0.5;;;second/b\n"
        ";;;;;;;\n"
    )
    first, second = list_slides([str(table)])
    assert (first.source, first.name) == (str(folder / "a/x.svs"), "a/x")
    assert first.special == {"mpp": 0.25, "strict_mpp": True, "bounds": (1, 2, 30, 40)}
    assert (second.name, second.special) == ("second/b", {"model": "other", "target_mpp": 0.5})
    like = SegmentJob("", (), slide=SlideSettings(backend="openslide"))
    job = first.job(like)
    assert job.slide == SlideSettings(backend="openslide", mpp=0.25, strict_mpp=True) and job.bounds == (1, 2, 30, 40)
    assert second.job(like).model == "other" and second.job(like).slide == like.slide
    assert second.job(like).grid.target_mpp == 0.5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("slide,mpp\na,1\n", "no column path; found slide, mpp"),
        ("path,mppp\na.svs,1\n", "unknown column 'mppp'; did you mean 'mpp'"),
        ("path,mpp\na.svs,half\n", "line 2: mpp is 'half'; expected a number"),
        ("path,bounds\na.svs,1 2 3\n", "line 2: bounds is '1 2 3'; expected four whole numbers"),
        ("path,strict_mpp\na.svs,maybe\n", "expected true or false"),
        ("path,name\na.svs,../up\n", "expected a relative path below the output folder"),
        ("path,mpp\n,0.5\n", "line 2: no path"),
        ("path,model\na.svs,one\na.svs,two\n", "two slides would have the results a"),
        ("", "no column path"),
        ("path,mpp\n", "names no slide; expected a line for each below the header"),
    ],
)
def test_tables_that_are_not_usable(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SettingsError, match=says):
        list_slides([str(tmp_path / "t.csv")])


def test_a_value_out_of_range_names_itself() -> None:
    with pytest.raises(SettingsError, match="mpp is -1"):
        Entry("a.svs", "a", {"mpp": -1.0}).job(SegmentJob("", ()))


def test_a_link_back_to_a_folder_above_lists_no_slide_twice(folder: Path) -> None:
    (folder / "a" / "up").symlink_to("..")
    (folder / "other").symlink_to("b")
    expected = ["a/x", "b/x.svs", "mixed/two", "other/x.svs"]
    assert [name for name in names(folder) if name in expected] == expected
    assert len(names(folder)) == 11, "each once, and once more under another name"
    assert names(f"{folder}/**/*.svs") == ["a/x", "b/x", "mixed/two", "other/x"]


def test_an_empty_folder_with_the_name_of_a_slide_fails_alone(folder: Path) -> None:
    (folder / "a" / "lost.svs").mkdir()
    (folder / "a" / "rooms").mkdir()
    (folder / "a" / "kept.svs").mkdir()
    (folder / "a" / "kept.svs" / "y.tiff").touch()
    assert {"a/lost", "a/kept.svs/y", "a/x"} <= set(names(folder)) and "a/rooms" not in names(folder)
    with pytest.raises(UnreadableSlide, match=r"lost\.svs is a folder without DICOM files"):
        open_slide(folder / "a" / "lost.svs")


def test_a_folder_that_may_not_be_read_fails_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "a")
    assert "a" in names(folder) and "b/x.svs" in names(folder)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.svs,.", "name is"),
        ("a.svs,./", "name is"),
        ("a.svs,x\0y", "name is"),
        ("a\0.svs,", "path is"),
        ("a.svs," + "x" * 200_000, "cannot be read as a CSV table"),
    ],
)
def test_hostile_rows(tmp_path: Path, row: str, message: str) -> None:
    table = tmp_path / "t.csv"
    table.write_text(f"path,name\n{row}\n")
    with pytest.raises(SettingsError, match=f"line 2: .*{message}"):
        list_slides([str(table)])
