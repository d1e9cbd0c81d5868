"""`wsipipe fit` at the command line, and the shipped recipe."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests import tiny
from tests.conftest import ROOT, Phantom
from wsipipe.cli.main import main
from wsipipe.cli.options import read_config
from wsipipe.formats.parquet import read_cells
from wsipipe.labels import DatasetSpec
from wsipipe.models import checkpoint
from wsipipe.models.checkpoint import read_card
from wsipipe.models.zoo import resolve
from wsipipe.pipelines.fit import FitJob, run_fit
from wsipipe.schedule.progress import Progress
from wsipipe.settings import FitSettings, LoopSettings
from wsipipe.train import fitting as fitting


@pytest.fixture
def annotated(phantom: Phantom, tmp_path: Path) -> Path:
    """Return a folder with two annotated pictures, cut from the phantom."""
    for name, x in (("p1_a", 400), ("p2_a", 600)):
        box = x, 400, x + 160, 560
        for kind, array in (("images", phantom.truth.picture(box)), ("labels", phantom.truth.instance_map(box))):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype("uint16") if kind == "labels" else array).save(
                tmp_path / "set" / kind / f"{name}.png"
            )
    return tmp_path / "set"


SMALL = ["--crop", "64", "--batch", "1", "--final-share", "0", "--warmup", "1"]


def test_fits_a_model_that_segment_takes(annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "2", *SMALL]
    assert main([*command, "--name", "mine"]) == 0
    card = read_card(tmp_path / "run" / "model.safetensors")
    assert card.name == "mine" and card.head is not None and card.head.kind == "cisca"
    assert card.training["datasets"][0]["images"] == 2
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2
    assert main([*command, "--name", "another"]) == 6
    assert "holds another run" in capfd.readouterr().err


def test_a_frozen_backbone_from_a_checkpoint(annotated: Path, tmp_path: Path) -> None:
    import safetensors.torch

    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "1", *SMALL]
    assert main([*command, "--head", "linear", "--backbone", "cmd-t"]) == 0
    before = safetensors.torch.load_file(resolve("cmd-t"))
    after = safetensors.torch.load_file(tmp_path / "run" / "model.safetensors")
    kept = [name for name in before if name.startswith("backbone.")]
    assert kept and all((after[name].float() == before[name].float()).all() for name in kept)


def test_progress_of_a_resumed_run_counts_the_steps_before(annotated: Path, tmp_path: Path) -> None:
    class Counted(Progress):
        def __init__(self) -> None:
            self.shown: list[int] = []

        def advance(self, stage: str, steps: int = 1) -> None:
            self.shown.append(sum(self.shown[-1:]) + steps)

    loop = LoopSettings(steps=4, warmup=1, schedule="plateau", cooldown=2)
    settings = FitSettings(head="linear", crop=64, batch=1, loop=loop)
    job = FitJob((DatasetSpec(str(annotated), mpp=0.5),), tmp_path, tmp_path / "run", settings)
    first, longer = Counted(), Counted()
    run_fit(job, first)
    run_fit(replace(job, settings=replace(settings, loop=replace(loop, steps=5))), longer)
    assert first.shown == [1, 2, 3, 4] and longer.shown == [3, 4, 5]


def test_a_run_is_not_resumed_with_other_weights_in_the_same_file(
    annotated: Path, tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copy(tiny_model, tmp_path / "m.safetensors"))
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "1", *SMALL]
    command += ["--head", "linear", "--backbone", str(model)]
    assert main(command) == 0 and main(command) == 0
    checkpoint.save(model, tiny.segmenter(seed=4), tiny.card())
    assert main(command) == 6
    assert f"begun with other weights of --backbone {model}; choose another -o" in capfd.readouterr().err


def test_an_assumed_resolution_is_told_and_recorded(
    annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(annotated), "--steps", "1", "--head", "linear", *SMALL]
    assert main([*command, "-o", str(tmp_path / "a")]) == 0
    assert "2 of 2 images state no resolution and are taken to be at 0.25 µm/px" in " ".join(
        capfd.readouterr().err.split()
    )
    assert json.loads((tmp_path / "a" / "run.json").read_text())["assumed_mpp"] == {str(annotated): 0.25}
    assert main([*command, "--mpp", "0.5", "-o", str(tmp_path / "b")]) == 0
    assert "no resolution" not in capfd.readouterr().err
    assert json.loads((tmp_path / "b" / "run.json").read_text())["assumed_mpp"] == {}
    for path in (annotated / "labels").iterdir():
        Image.fromarray(np.zeros((160, 160), np.uint16)).save(path)
    assert main([*command, "-o", str(tmp_path / "c")]) == 5
    assert "none of the training images has an annotated nucleus" in capfd.readouterr().err


def test_bad_sets(annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = ["-o", str(tmp_path / "run")]
    assert main(["fit", *out]) == 2
    assert main(["fit", str(tmp_path / "nowhere"), *out]) == 5
    shutil.copy(annotated / "images" / "p1_a.png", annotated / "images" / "p3_a.png")
    assert main(["fit", str(annotated), *out]) == 5
    assert main(["fit", str(annotated), "--mpp", "abc", *out]) == 2
    said = capfd.readouterr().err
    assert said.count("wsipipe: error:") == 4 and "p3_a has only an image" in said


@pytest.mark.parametrize(("model", "stages"), [("cmd-t", ["wide", "types"]), ("cmd-t-open", ["open-polish"])])
def test_the_shipped_recipe_is_the_models(model: str, stages: list[str]) -> None:
    training = read_card(resolve(model)).training
    parts = [*training.get("mean of", [training]), *([training["types"]] if "types" in training else [])]
    for stage, said in zip(stages, parts, strict=True):
        path = ROOT / f"workflows/default-model/{stage}.toml"
        recipe, config = tomllib.loads(path.read_text()), read_config(path)
        assert [DatasetSpec(**table).path for table in config.datasets] == [d["path"] for d in said["datasets"]]
        assert said["settings"]["loop"]["steps"] == recipe["loop"]["steps"]
        assert said["settings"]["seed"] == recipe["fit"]["seed"]


KINDS = ("epithelial", "stromal", "lymphocyte")


@pytest.fixture
def typed(phantom: Phantom, tmp_path: Path) -> Path:
    """Return a HoVer-Net set cut from the phantom, with the types of its nuclei, and its split."""
    for k in range(4):
        box = 300 + 170 * k, 400, 460 + 170 * k, 560
        save = tmp_path / "typed"
        for folder in ("Images", "Labels"):
            (save / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(phantom.truth.picture(box)).save(save / "Images" / f"p{k}_a.png")
        labels = phantom.truth.instance_map(box)
        kinds = {int(n["id"]): int(n["kind"]) + 1 for n in phantom.truth.nuclei(box)}
        types = np.array([[kinds[i]] for i in np.unique(labels[labels > 0])])
        content = {
            "inst_map": labels.astype(np.float64),
            "inst_type": types,
            "inst_centroid": np.zeros((len(types), 2)),
        }
        scipy.io.savemat(save / "Labels" / f"p{k}_a.mat", content)
    (save / "split.json").write_text('{"train": ["p0_a", "p1_a"], "val": ["p2_a"], "test": ["p3_a"]}')
    return save


def test_types_from_labels_to_cells_and_scores(typed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    of_set = [str(typed), "--mpp", "0.5", "--classes", ",".join(KINDS), "--split", str(typed / "split.json")]
    run, out = tmp_path / "run", tmp_path / "scores"
    command = ["fit", *of_set, "-o", str(run), "--steps", "3", "--validate-every", "2", *SMALL, "--head", "linear"]
    assert main([*command, "--backbone", str(resolve("cmd-t"))]) == 0
    card = read_card(run / "model.safetensors")
    assert card.head is not None and card.head.types == tuple(sorted(KINDS)) == tuple(sorted(card.classes))
    assert [line.split(",")[0] for line in (run / "validation.csv").read_text().splitlines()] == ["step", "2", "3"]
    assert card.training["validation"]["step"] in (2, 3)
    model = str(run / "model.safetensors")
    picture = str(typed / "Images" / "p3_a.png")
    assert main(["segment", picture, "--mpp", "0.5", "--tissue", "none", "--model", model, "--threshold", "0.05",
                 "-o", str(tmp_path / "cells.parquet")]) == 0  # fmt: skip
    cells = read_cells(tmp_path / "cells.parquet")
    assert len(cells) and set(cells["class"]) <= set(KINDS)
    assert main(["evaluate", *of_set, "--model", model, "-o", str(out), "--resamples", "5"]) == 0
    rows = (out / "types.csv").read_text().splitlines()
    shown = [row.split(",")[0] for row in rows[1:]]
    assert rows[0].startswith("type,annotated,found,DQ") and shown == sorted(shown) and set(shown) <= set(KINDS)
    assert "mPQ+" in (out / "scores.md").read_text() and "mPQ+" in (out / "scores.json").read_text()


def test_a_plateau_goes_on_when_it_is_given_more_steps(
    annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(run), "--head", "linear", *SMALL]
    command += ["--backbone", str(resolve("cmd-t")), "--schedule", "plateau", "--cooldown", "1"]
    assert main([*command, "--steps", "2"]) == 0 and main([*command, "--steps", "4"]) == 0
    rates = [line.split(",")[2] for line in (run / "log.csv").read_text().splitlines()[-4:]]
    assert len(set(rates[2:])) == 1 and (run / "plateau.safetensors").exists()
    capfd.readouterr()
    assert main([*command, "--steps", "4", "--seed", "1"]) != 0
    assert "holds another run" in capfd.readouterr().err


def test_few_shots_and_kept_features(annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(run), "--steps", "2", "--crop", "64", "--batch", "2"]
    command += ["--head", "linear", "--backbone", str(resolve("cmd-t")), "--cache-features", "1"]
    assert main([*command, "--shots", "1", "--seed", "1"]) == 0
    (names,) = json.loads((run / "run.json").read_text())["images"].values()
    training = read_card(run / "model.safetensors").training
    assert len(names) == 1 and training["datasets"][0]["names"] == names
    assert training["settings"]["loop"]["steps"] == 2 and (run / "features" / "about.json").exists()
    assert main([*command, "--shots", "3"]) == 5
    assert main([*command, "--shots", "1", "--seed", "1", "--validate-every", "1"]) == 6
    assert main([*command[:4], "-o", str(tmp_path / "new"), *command[6:], "--validate-every", "1"]) == 5
    said = capfd.readouterr().err
    assert "--shots 3: the training split holds 2 images" in said and "holds another run" in said
    assert "no image belongs to the validation split" in said


def test_a_loss_that_is_no_number_is_one_line_and_keeps_the_work(
    annotated: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(annotated), "--mpp", "0.5", "-o", str(tmp_path / "run"), "--steps", "9", *SMALL]
    command += ["--head", "linear", "--backbone", str(resolve("cmd-t")), "--lr", "1", "--checkpoint-every", "1"]
    real, steps = fitting.head_loss, list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fitting, "head_loss", lambda *a: real(*a) * (float("nan") if len(steps) > 2 else steps.append(1) or 1)
        )
        assert main(command) == 5
    said = capfd.readouterr().err
    assert said.count("error:") == 1 and "the loss is nan at step 3; lower --lr (last checkpoint:" in said
    assert (tmp_path / "run" / "state.safetensors").exists()
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 3
