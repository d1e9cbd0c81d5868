"""Corrections of cells: what is kept, what is refused, and what every command makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from tests.conftest import Phantom
from tests.masters import CLASSES, truth_master, write_master
from wsipipe.cli.main import main
from wsipipe.errors import SettingsError, StoreError
from wsipipe.formats.corrections import (
    ADDED,
    DELETED,
    RELABELLED,
    Correction,
    Corrections,
    path_beside,
    read_corrections,
    write_corrected,
    write_corrections,
)
from wsipipe.formats.imported import read_drawn
from wsipipe.formats.labelled import read_labels
from wsipipe.formats.parquet import metadata, read_cells

N = 300
XY = np.random.default_rng(6).uniform((20, 20), (1180, 780), (N, 2))
NEW = "11111111-1111-5111-8111-111111111111"
OUTLINE = shapely.Polygon([(500, 300), (520, 300), (525, 318), (510, 330), (498, 316)])


@pytest.fixture
def master(tmp_path: Path) -> Path:
    return write_master(tmp_path / "cells.parquet", XY, np.arange(N) % 3 - 1, bounds=[10, 20, 1000, 700])


def made(master: Path) -> Corrections:
    """Return a cell that is deleted, two of another class (one of a new one), one of none, and one that is drawn."""
    cells = read_cells(master)
    done = [
        (0, DELETED, ""),
        (1, RELABELLED, "Mitosis"),
        (2, RELABELLED, "Dead"),
        (3, RELABELLED, ""),
    ]
    found = {}
    for row, what, kind in done:
        cell = cells.iloc[row]
        found[cell.cell_id] = Correction(
            cell.cell_id, what, cell.geometry, kind, (pd.notna(cell["class"]) and cell["class"]) or ""
        )
    found[NEW] = Correction(NEW, ADDED, OUTLINE, "Mitosis")
    return Corrections(found, {"Mitosis": (1, 2, 3)})


def test_what_is_written_is_read_again(master: Path) -> None:
    corrections, path = made(master), path_beside(master)
    before = master.read_bytes()
    write_corrections(path, master, corrections)
    assert path.name == "cells.corrections.geojson" and master.read_bytes() == before
    again = read_corrections(path, master)
    assert list(again.by_id) == list(corrections.by_id) and again.colours["Mitosis"] == (1, 2, 3)
    for id_, one in corrections.by_id.items():
        other = again.by_id[id_]
        assert (one.what, one.kind, one.was) == (other.what, other.kind, other.was)
        assert shapely.equals_exact(one.shape, other.shape, 0.011)
    assert again.told() == "1 added, 3 relabelled, 1 deleted"
    write_corrections(path, master, Corrections())
    assert not path.exists()


def test_others_read_the_file(master: Path) -> None:
    """QuPath's pixels, QuPath's classes; and labels for `classify --fit`."""
    path = path_beside(master)
    write_corrections(path, master, made(master))
    drawn = {d.id: d for d in read_drawn(path)}
    assert drawn[NEW].shape.bounds[:2] == (488, 280) and drawn[NEW].role == "detection", "from where QuPath counts"
    labels = read_labels(path, master)
    assert sorted(labels.by_id.values()) == ["Dead", "Mitosis", "Mitosis"]


def test_cells_are_as_they_were_corrected(master: Path, tmp_path: Path) -> None:
    corrections, out = made(master), tmp_path / "out.parquet"
    write_corrected(master, corrections, out)
    before, after = read_cells(master).set_index("cell_id"), read_cells(out).set_index("cell_id")
    gone, new, dead, none = list(corrections.by_id)[:4]
    assert gone not in after.index and len(after) == N
    assert after.loc[[new, dead], "class"].tolist() == ["Mitosis", "Dead"] and pd.isna(after.loc[none, "class"])
    assert after.loc[new, "class_probability"] == 1 and np.isnan(after.loc[none, "class_probability"])
    drawn = after.loc[NEW]
    assert drawn.geometry.equals(OUTLINE) and drawn["class"] == "Mitosis" and not drawn.oversize
    assert drawn.area_um2 == pytest.approx(OUTLINE.area * 0.25) and np.isnan(drawn.eosin_od_mean)
    same = [id_ for id_ in before.index if id_ not in corrections.by_id]
    pd.testing.assert_frame_equal(pd.DataFrame(after.loc[same]), pd.DataFrame(before.loc[same]))
    about = metadata(out)
    assert about["cells"] == N and set(about["classes"]) == {"Mitosis", *CLASSES}
    assert about["corrected"]["added"] == 1 and about["corrected"]["deleted"] == 1


def test_refuses_what_belongs_to_other_cells(master: Path, tmp_path: Path) -> None:
    path = path_beside(master)
    write_corrections(path, master, made(master))
    other = write_master(tmp_path / "other.parquet", XY[1:], 0)
    with pytest.raises(SettingsError, match=r"corrections of other cells \(digest .*move that file away or delete it"):
        read_corrections(path, other)
    lost = made(master)
    lost.by_id["gone"] = Correction("gone", DELETED, OUTLINE)
    with pytest.raises(StoreError, match="1 of 5 corrected cells are not in"):
        write_corrected(master, lost, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_cells_found_anew_go_on_without_the_old_corrections(
    master: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, out = path_beside(master), tmp_path / "out.csv"
    write_corrections(path, master, made(master))
    write_master(master, XY[1:], 0)
    assert main(["convert", str(master), "-o", str(out)]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and f"{path} holds corrections of other cells" in told
    assert "if the cells were found anew since, move that file away or delete it" in told and not out.exists()
    path.rename(tmp_path / "old.geojson")
    assert main(["convert", str(master), "-o", str(out)]) == 0 and out.exists()
    assert "corrections" not in capfd.readouterr().err


@pytest.mark.parametrize("change", ["{}", "[]", '{"type": "FeatureCollection", "features": []}', "what", "id", "nan"])
def test_refuses_what_is_no_such_file(master: Path, change: str) -> None:
    path = path_beside(master)
    write_corrections(path, master, made(master))
    content = json.loads(path.read_text())
    if change == "what":
        content["features"][0]["properties"]["correction"] = "eaten"
    elif change == "id":
        del content["features"][0]["id"]
    elif change == "nan":
        content["features"][0]["geometry"]["coordinates"] = []
    path.write_text(change if change[0] in "{[" else json.dumps(content))
    with pytest.raises(StoreError, match="no corrections as the viewer writes them"):
        read_corrections(path, master)


def test_commands_take_them(phantom: Phantom, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`convert`, `measure` and `classify` take what lies beside the cells, say so, and can leave it out."""
    master = truth_master(tmp_path / "cells.parquet", phantom)
    corrections = made(master)
    write_corrections(path_beside(master), master, corrections)
    count, gone = metadata(master)["cells"], next(iter(corrections.by_id))
    out = tmp_path / "out.parquet"
    assert main(["convert", str(master), "-o", str(out)]) == 0
    assert "taken with cells.corrections.geojson (1 added, 3 relabelled, 1 deleted)" in capfd.readouterr().err
    assert NEW in set(read_cells(out)["cell_id"]) and gone not in set(read_cells(out)["cell_id"])
    assert main(["convert", str(master), "-o", str(out), "--corrections", "none"]) == 0
    assert "corrections" not in capfd.readouterr().err and metadata(out)["cells"] == count
    assert gone in set(read_cells(out)["cell_id"])
    measured = tmp_path / "measured.parquet"
    assert main(["measure", str(master), "--slide", str(phantom.path), "-o", str(measured)]) == 0
    drawn = read_cells(measured).set_index("cell_id").loc[NEW]
    assert drawn["class"] == "Mitosis" and np.isfinite(drawn.hematoxylin_od_mean), (
        "a drawn cell is measured like others"
    )
    typed, labels = tmp_path / "typed.parquet", str(path_beside(master))
    extra = read_cells(master).iloc[5]
    corrections.by_id[extra.cell_id] = Correction(extra.cell_id, RELABELLED, extra.geometry, "Dead")
    write_corrections(path_beside(master), master, corrections)
    assert main(["classify", str(master), "--fit", labels, "-o", str(typed)]) == 0
    kinds = read_cells(typed).set_index("cell_id")["class"]
    assert kinds[NEW] == "Mitosis" and kinds[extra.cell_id] == "Dead" and gone not in kinds.index
    write_master(tmp_path / "cells.parquet", XY, 0)
    assert main(["convert", str(master), "-o", str(out)]) == 2
    assert "corrections of other cells" in capfd.readouterr().err
    assert main(["convert", str(master), "-o", str(out), "--corrections", str(tmp_path / "no.geojson")]) == 2
    assert "no such file; expected auto, none, or a file that" in capfd.readouterr().err
