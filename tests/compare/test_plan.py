"""Plans: read or refused in one line; cells, folds and keys; statistics that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests import tiny
from wsipipe.errors import SettingsError
from wsipipe.evaluate.compare import plots
from wsipipe.evaluate.compare.folds import cells_of
from wsipipe.evaluate.compare.plan import Plan, read_plan
from wsipipe.evaluate.compare.plots import write_plots
from wsipipe.evaluate.compare.tables import (
    COUNTS,
    differences,
    draws,
    group_of,
    latex,
    markdown,
    mean_of,
    pooled_of,
    summary,
)
from wsipipe.evaluate.metrics import count, scores

PLAN = """
title = "T"
criterion = "Only where the interval excludes 0."
seeds = [0, 1]
shots = [0, 2]
pairs = [["a", "b"]]
[fit]
unfreeze = false
[loop]
steps = 7
[[sets]]
name = "s"
path = "set"
mpp = 0.5
patient = '(p.)'
folds = "patient"
[[arms]]
name = "a"
backbone = "T"
head = "light"
lr = 2
[[arms]]
name = "b"
backbone = "dit-T"
steps = 9
scale_high = 2
[[arms]]
name = "c"
predictions = "out"
"""


def plan(tmp_path: Path, text: str = PLAN) -> Plan:
    (tmp_path / "plan.toml").write_text(text.replace("lr = 2", "lr = 0.5"))
    return read_plan(tmp_path / "plan.toml")


def make_set(root: Path, patients: int = 3, images: int = 2) -> Path:
    """Write a set of small pictures, two of every patient."""
    for kind in ("images", "labels"):
        (root / "set" / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for p in range(patients):
        for k in range(images):
            labels = tiny.disc_labels(96, (30, 30 + p, 12), (70, 60 + k, 14))
            image = (np.where(labels[..., None] > 0, 70, 210) + rng.integers(0, 30, (96, 96, 3))).astype(np.uint8)
            Image.fromarray(image).save(root / "set" / "images" / f"p{p}-{k}.png")
            Image.fromarray(labels.astype(np.uint16)).save(root / "set" / "labels" / f"p{p}-{k}.png")
    return root


def test_arms_share_settings_and_have_their_own(tmp_path: Path) -> None:
    found = plan(tmp_path)
    a, b, c = found.arms
    assert (a.settings.head, a.settings.loop.steps, a.settings.loop.lr, a.settings.unfreeze) == ("light", 7, 0.5, False)
    assert (b.settings.backbone, b.settings.loop.steps, b.settings.augment.scale_high) == ("dit-T", 9, 2.0)
    assert c.predictions == "out" and found.pairs == (("a", "b"),) and found.metrics == ("mDice", "PQ")


def test_every_patient_is_left_out_once(tmp_path: Path) -> None:
    cells = list(cells_of(plan(tmp_path), make_set(tmp_path)))
    assert len(cells) == 3 * 3 * 2 * 2  # arms, patients, shots, seeds
    assert {(c.test, c.train) for c in cells} == {
        (("p0",), ("p1", "p2")), (("p1",), ("p0", "p2")), (("p2",), ("p0", "p1"))
    }  # fmt: skip
    assert cells[0].name == "a, s, fold 0, seed 0"
    two = plan(tmp_path, PLAN.replace('folds = "patient"', "folds = 2"))
    assert {c.test for c in cells_of(two, tmp_path)} == {("p0", "p1"), ("p2",)}
    with pytest.raises(SettingsError, match="s: 3 patients; expected at least 4, one for each fold"):
        list(cells_of(plan(tmp_path, PLAN.replace('folds = "patient"', "folds = 4")), tmp_path))


def test_a_key_follows_from_what_scores_depend_on(tmp_path: Path) -> None:
    cells = list(cells_of(plan(tmp_path), make_set(tmp_path)))
    keys = {c.key("w", ["x"]) for c in cells}
    assert len(keys) == len(cells)
    one = cells[0]
    same = replace(one, arm=replace(one.arm, settings=replace(one.arm.settings, device="cpu")))
    assert one.key("w", ["x"]) == same.key("w", ["x"])
    other = replace(one, arm=replace(one.arm, settings=replace(one.arm.settings, batch=3)))
    assert len({one.key("w", ["x"]), one.key("v", ["x"]), one.key("w", ["y"]), other.key("w", ["x"])}) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('criterion = "Only where the interval excludes 0."', 'criterion = " "', "the criterion is empty"),
        ('criterion = "Only where the interval excludes 0."', "", "no 'criterion'; expected one"),
        ('title = "T"', 'titel = "T"', "unknown key 'titel'; did you mean 'title'"),
        ('head = "light"', 'head = "heavy"', "a: head is 'heavy'; expected one of"),
        ('head = "light"', 'haed = "light"', "unknown key 'haed'; did you mean 'head'"),
        ('head = "light"', "head = 3", "a: head is 3; expected str"),
        ("seeds = [0, 1]", "seeds = [-1]", "expected whole numbers from 0"),
        ('["a", "b"]', '["a", "d"]', "pairs: no arm 'd'"),
        ('name = "b"', 'name = "a"', "two have one name"),
        ('folds = "patient"', "", "neither split nor folds"),
        ('folds = "patient"', "folds = 1", 'folds is 1; expected "patient", or a number from 2'),
        ('path = "set"', "", "no 'path'; expected one"),
        ("[[arms]]", "[[arm]]", "unknown key 'arm'"),
        ('head = "light"', 'curve = "x"', "a: curve 'x' at 0; expected a name and a number above 0, or neither"),
        ('head = "light"', 'curve = "x"\nat = -3', "a: curve 'x' at -3; expected a name and a number above 0"),
        ("[fit]", "[fit", "not a TOML file"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PLAN
    with pytest.raises(SettingsError) as caught:
        plan(tmp_path, PLAN.replace(old, new))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_plan_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read .*; expected a plan, a TOML file"):
        read_plan(tmp_path / "none.toml")


def rows(shift: dict[str, int], seeds: int = 2, images: int = 12) -> pd.DataFrame:
    """Return the scores of arms whose found discs are moved by so many pixels."""
    found = []
    for arm, by in shift.items():
        for seed in range(seeds):
            for p in range(images):
                truth = tiny.disc_labels(64, (20, 20, 9), (45, 40 + p % 3, 10))
                counts = count(truth, np.roll(truth, by + seed, axis=1))
                place = {"arm": arm, "set": "s", "shots": 0, "seed": seed, "fold": 0}
                found.append(place | {"image": f"i{p}", "patient": f"p{p // 2}"} | vars(counts))
    return pd.DataFrame(found)


def test_means_and_pooled_scores_are_those_of_the_metrics(tmp_path: Path) -> None:
    table = rows({"a": 1}, seeds=1)
    group, whole = group_of(table), table[list(COUNTS)].sum()
    drawn = draws(group.patients, 200)
    each = [scores(type(group.counts)(**{n: row[n] for n in COUNTS}))["PQ"] for _, row in table.iterrows()]
    assert mean_of(group, "PQ", drawn).value == pytest.approx(np.mean(each))
    pooled = scores(type(group.counts)(**{n: whole[n] for n in COUNTS}))["PQ"]
    assert pooled_of(group, "PQ", drawn).value == pytest.approx(pooled)
    assert drawn.shape == (200, 12) and (drawn[:, 0] == drawn[:, 1]).all(), "images of a patient come together"
    assert (drawn.sum(1) == 12).all()


def test_a_difference_is_called_one_only_where_the_interval_excludes_none(tmp_path: Path) -> None:
    asked = replace(plan(tmp_path), pairs=(("a", "b"), ("b", "a"), ("a", "a")), resamples=200)
    found = {(d.a, d.b, d.metric): d for d in differences(asked, rows({"a": 0, "b": 5}))}
    assert found["a", "b", "mDice"].verdict == "a scores more" and found["b", "a", "mDice"].verdict == "a scores more"
    assert found["a", "b", "mDice"].value.value == -found["b", "a", "mDice"].value.value > 0
    assert found["a", "a", "PQ"].verdict == "no difference shown"
    assert (found["a", "b", "PQ"].images, found["a", "b", "PQ"].patients) == (12, 6)


def test_few_patients_say_nothing(tmp_path: Path) -> None:
    asked = replace(plan(tmp_path), resamples=100)
    few = rows({"a": 0, "b": 5}, images=8)
    assert {d.verdict for d in differences(asked, few)} == {"fewer than 5 patients: nothing said"}
    assert "An interval over 4 patients says little." in markdown(asked, summary(asked, few), [], [])


def test_tables_and_plots(tmp_path: Path) -> None:
    asked = replace(plan(tmp_path), resamples=100)
    table = rows({"a": 0, "b_2": 5})
    few = table.assign(shots=2)
    table = pd.concat([table, few])
    found = summary(asked, table)
    text = markdown(asked, found, differences(asked, table), [("c, s", "no file")])
    assert text.startswith("# T\n\n**Criterion, written before the run.** Only where")
    assert "12 images of 6 patients, 2 seeds; 95 % by patient." in text and "says little" not in text
    assert "## s, 2 shots: pooled" in text and "- c, s: no file" in text
    assert r"b\_2" in latex(asked, found) and latex(asked, found).count(r"\begin{tabular}") == 2
    written = write_plots(tmp_path / "plots", asked, found)
    assert sorted(p.name for p in written) == sorted(
        f"s-{m}{end}.png" for m in ("mDice", "PQ") for end in ("", "-2-shots", "-by-shots")
    )
    for path in written:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape[0] > 100 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 3


def test_curves_over_the_plans_axis_and_over_costs(tmp_path: Path) -> None:
    text = PLAN.replace('backbone = "T"', 'backbone = "T"\ncurve = "CMD"\nat = 1000').replace("[fit]", "[fit]", 1)
    text = text.replace('backbone = "dit-T"', 'backbone = "dit-T"\ncurve = "CMD"\nat = 20_000')
    asked = replace(plan(tmp_path, text.replace("shots = [0, 2]", 'axis = "steps"')), resamples=50, metrics=("PQ",))
    assert asked.axis == "steps" and [(a.curve, a.at) for a in asked.arms] == [("CMD", 1e3), ("CMD", 2e4), ("", 0)]
    found = summary(asked, rows({"a": 0, "b": 5}))
    cells = pd.DataFrame({"arm": ["a", "a", "b"], "trainable": [1e3, 1e3, 2e6], "seconds": [10.0, 12.0, 11.0]})
    written = write_plots(tmp_path / "plots", asked, found, cells)
    names = {"s-PQ.png", "s-PQ-by-axis.png", "s-PQ-by-trainable.png", "s-PQ-by-seconds.png"}
    assert {p.name for p in written} == names
    assert {p.name for p in write_plots(tmp_path / "few", asked, found)} == {"s-PQ.png", "s-PQ-by-axis.png"}


def test_numbers_on_axes_are_short() -> None:
    assert [plots._short(v) for v in (3.0, 950.0, 1000.0, 2500.0, 127_539_971.0)] == ["3", "950", "1k", "2.5k", "128M"]
