"""``wsipipe models`` lists what is shipped and shows what each model says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests import tiny
from wsipipe.cli.models import models
from wsipipe.errors import ModelNotFound, SettingsError
from wsipipe.models import checkpoint, zoo
from wsipipe.models.checkpoint import ModelCard, model_hash
from wsipipe.models.cmd import CMDConfig, cmd_t
from wsipipe.models.heads import HeadConfig


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of shipped models: a segmenter with a model card, and a backbone of a size of its own."""
    head = HeadConfig("linear", (64, 64, 32, 32, 32, 32), ("tumor", "other"))
    about = {"data": "kumar", "steps": 3}
    card = ModelCard(zoo.DEFAULT, cmd_t(), head, 0.5, licence="CC-BY-NC-SA-4.0", training=about)
    checkpoint.save(tmp_path / f"{zoo.DEFAULT}.safetensors", checkpoint.build(card), card)
    (tmp_path / f"{zoo.DEFAULT}.md").write_text("# The default model\n\nTrained on little.\n")
    tiny = ModelCard("tiny", CMDConfig((8, 8, 8, 16, 16, 32)), mpp=0.25, licence="CC0-1.0")
    checkpoint.save(tmp_path / "tiny.safetensors", checkpoint.build(tiny), tiny)
    monkeypatch.setattr(zoo, "weights_folder", lambda: tmp_path)
    monkeypatch.setattr(zoo, "SHA256", {})
    return tmp_path


def run(*args: str) -> str:
    done = CliRunner().invoke(models, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_list(shelf: Path) -> None:
    lines = [line.split() for line in run().splitlines()]
    assert lines[0] == ["name", "head", "µm/px", "backbone", "size", "licence"]
    assert lines[1][:5] == [zoo.DEFAULT, "(default)", "linear", "0.5", "CMD-T"] and lines[1][-1] == "CC-BY-NC-SA-4.0"
    assert lines[2][:2] == ["tiny", "none"] and "width" in lines[2]


def test_an_empty_shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "weights_folder", lambda: tmp_path)
    said = run()
    assert said.startswith("no model is shipped with this copy of wsipipe; make one with `wsipipe fit`\n")
    assert "other networks" in said


def test_a_card(shelf: Path) -> None:
    text = run("show", zoo.DEFAULT)
    facts = dict(line.split("  ", 1) for line in text.split("\n\n")[0].splitlines())
    facts = {key: value.strip() for key, value in facts.items()}
    assert facts["SHA-256"] == model_hash(shelf / f"{zoo.DEFAULT}.safetensors")
    assert (facts["head"], facts["types"], facts["resolution"]) == ("linear", "tumor, other", "0.5 µm/px")
    assert (facts["licence"], facts["training: steps"], facts["threshold"]) == ("CC-BY-NC-SA-4.0", "3", "0.5")
    assert text.endswith("# The default model\n\nTrained on little.\n")


def test_a_file_and_a_backbone(shelf: Path) -> None:
    text = run("show", str(shelf / "tiny.safetensors"))
    assert "CMD of width 8" in text and "kind        backbone" in text and "threshold" not in text


def test_a_wrong_name(shelf: Path) -> None:
    with pytest.raises(ModelNotFound, match="did you mean tiny"):
        run("show", "tinny")


def test_export_changes_what_is_asked_and_nothing_else(shelf: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    said = run(
        "export", zoo.DEFAULT, "-o", str(out), "--name", "mine", "--threshold", "0.4", "--growth-um", "3", "--half"
    )
    before, after = checkpoint.read_card(zoo.resolve(zoo.DEFAULT)), checkpoint.read_card(out)
    rules = replace(before.rules, threshold=0.4, growth_um=3.0)
    assert after == replace(before, name="mine", rules=rules) and str(out) in said
    assert out.stat().st_size < 0.55 * zoo.resolve(zoo.DEFAULT).stat().st_size
    weights, halved = (checkpoint.load(path)[0].state_dict() for path in (zoo.resolve(zoo.DEFAULT), out))
    assert all(torch.allclose(weights[k], halved[k], atol=1e-3) for k in weights)


def test_export_onto_itself_is_refused(shelf: Path) -> None:
    path = str(zoo.resolve("tiny"))
    with pytest.raises(SettingsError, match="the model itself; choose another -o"):
        run("export", "tiny", "-o", path)


def test_foundation_models_are_listed_and_made_backbones(tmp_path: Path) -> None:
    listed = run("encoders")
    assert "virchow2" in listed and "ViT 24 x 1024 / 16" in listed and "(licence to be accepted)" in listed
    folder, out = tiny.save_encoder(tmp_path / "w"), tmp_path / "uni.safetensors"
    said = run("import", f"uni={folder}", "-o", str(out), "--grid", "16", "--blocks", "mixed")
    assert "use it with: wsipipe fit DATASET --backbone" in said
    shown = run("show", str(out))
    assert "ViT of width 64" in shown and "CC-BY-NC-ND-4.0" in shown and "training: imported" in shown
