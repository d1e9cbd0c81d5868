"""From a corpus to a backbone file: the card, the pictures, the folder's owner, conditioning."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny
from tests.conftest import Phantom
from wsipipe.corpus import open_corpus
from wsipipe.errors import DatasetError, OutputError, SettingsError
from wsipipe.models import checkpoint, cmd
from wsipipe.models.cmd import CMD, CMDConfig
from wsipipe.models.conditioning import encoder_name, open_encoder
from wsipipe.models.space import InLatents
from wsipipe.models.vae import VAE, VAEConfig
from wsipipe.models.vae_files import read_vae, write_vae
from wsipipe.pipelines import autoencoder
from wsipipe.pipelines.corpus import CorpusJob, run_build_corpus
from wsipipe.pipelines.pretrain import PretrainJob, run_pretrain
from wsipipe.schedule.progress import Progress
from wsipipe.settings import CorpusSettings, FitSettings, PretrainSettings
from wsipipe.train import autoencoder as training
from wsipipe.train.fitting import new_segmenter

SETTINGS = PretrainSettings(name="mine", licence="CC0-1.0", steps=3, batch=2, lr=3e-3, split="all")


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: dict[str, int] = {}

    def advance(self, stage: str, steps: int = 1) -> None:
        self.counts[stage] = self.counts.get(stage, 0) + steps

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let size T be smaller still, and one thread do the arithmetic."""
    monkeypatch.setitem(cmd.SIZES, "T", lambda condition=0: CMDConfig((4, 4, 4, 8, 8, 16), condition))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a corpus of the phantom's patches, all for validation."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.zarr"
    settings = CorpusSettings(max_background=1, min_focus=0, duplicates=-1, val=1)
    return run_build_corpus(CorpusJob((str(phantom.path),), path, settings=settings), Progress())


def job(corpus: Path, out: Path, **changes: object) -> PretrainJob:
    return PretrainJob((str(corpus),), out, replace(SETTINGS, **changes))


def test_a_backbone_with_its_card_that_fit_takes(corpus: Path, tmp_path: Path) -> None:
    heard, known = Heard(), open_corpus(corpus)
    path = run_pretrain(job(corpus, tmp_path / "run"), heard)
    network, card = checkpoint.load(path)
    assert isinstance(network, CMD) and card.kind == "backbone"
    assert (card.name, card.licence, card.mpp) == ("mine", "CC0-1.0", 0.5)
    said = card.training
    assert said["corpus"] == {"fingerprint": known.fingerprint, "patches": len(known)}
    assert (said["steps"], said["seed"], said["settings"]["lr"]) == (3, 0, 3e-3)
    assert heard.counts["steps"] == 3 and any("3 steps of 2 samples" in line for line in heard.lines)
    fitted, _ = new_segmenter(FitSettings(head="linear", backbone=str(path)))
    for name, value in network.state_dict().items():
        assert torch.equal(value, fitted.backbone.state_dict()[name])


def test_pictures_of_fixed_patches_at_fixed_times(corpus: Path, tmp_path: Path) -> None:
    run_pretrain(job(corpus, tmp_path, picture_every=2), Progress())
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == ["step-0000002.png", "step-0000003.png"]
    first, last = (np.asarray(Image.open(tmp_path / f"pictures/step-000000{k}.png")) for k in (2, 3))
    rows = min(4, len(open_corpus(corpus)))
    assert first.shape == (20 + rows * 260, 11 * 260 - 4, 3)

    def column(picture: np.ndarray, k: int) -> np.ndarray:
        return picture[20:276, k * 260 : k * 260 + 256]

    assert np.array_equal(column(first, 0), column(last, 0)) and np.array_equal(column(first, 9), column(last, 9))
    assert not np.array_equal(column(first, 10), column(last, 10))
    grey = (column(first, 5) == 128).all(-1)  # half of the pixels are masked at t = 500
    assert grey.mean() == pytest.approx(511 / 1024, abs=0.01)


def test_the_same_command_goes_on_and_another_is_refused(corpus: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    first = run_pretrain(job(corpus, whole, steps=4, checkpoint_every=1), Progress())
    run_pretrain(job(corpus, parts, steps=2, checkpoint_every=1), Progress())
    heard = Heard()
    again = run_pretrain(job(corpus, parts, steps=4, checkpoint_every=2, workers=1), heard)
    assert heard.counts["steps"] == 4
    weights = [path.read_bytes()[-1000:] for path in (first, again)]  # the headers differ in how the work was done
    assert weights[0] == weights[1]
    assert (whole / "log.csv").read_bytes() == (parts / "log.csv").read_bytes()
    for changes in ({"seed": 1}, {"lr": 1e-3}, {"ssim": 0.5}):
        with pytest.raises(OutputError, match="holds another run"):
            run_pretrain(job(corpus, parts, steps=4, **changes), Progress())
    assert json.loads((parts / "run.json").read_text())["settings"]["steps"] == 4


def test_conditioned_on_a_local_encoder(corpus: Path, tmp_path: Path) -> None:
    encoder = tiny.save_encoder(tmp_path / "encoder")
    heard = Heard()
    path = run_pretrain(job(corpus, tmp_path / "run", encoder=str(encoder), steps=1), heard)
    known = open_corpus(corpus)
    kept = known.features(encoder_name(str(encoder)))
    assert kept is not None and kept.shape == (len(known), 64) and heard.counts["encoding"] == len(known)
    whole = open_encoder(str(encoder), torch.device("cpu"))(torch.from_numpy(known.read(1))[None])
    assert np.allclose(kept[1], whole[0], atol=1e-5)
    network, card = checkpoint.load(path)
    assert card.backbone.condition == 64 and isinstance(network, CMD)
    again = Heard()
    run_pretrain(job(corpus, tmp_path / "other", encoder=str(encoder), steps=1, seed=1), again)
    assert "encoding" not in again.counts
    assert card.training["encoder"] == encoder_name(str(encoder))
    shutil.rmtree(encoder)
    tiny.save_encoder(encoder, seed=1)
    with pytest.raises(OutputError, match=r"begun with other weights of --encoder .*; choose another -o"):
        run_pretrain(job(corpus, tmp_path / "run", encoder=str(encoder), steps=1), Progress())


def test_a_corpus_without_such_patches(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no patch of the split 'train'; try --split all"):
        run_pretrain(job(corpus, tmp_path, split="train"), Progress())


def test_snapshots_are_kept(corpus: Path, tmp_path: Path) -> None:
    path = run_pretrain(job(corpus, tmp_path, snapshots="1, 3,9"), Progress())
    found = {p.name: checkpoint.load(p) for p in tmp_path.glob("backbone*.safetensors")}
    assert set(found) == {"backbone.safetensors", "backbone-1.safetensors", "backbone-3.safetensors"}
    (one, card), (three, _), (last, _) = (found[f"backbone{end}.safetensors"] for end in ("-1", "-3", ""))
    assert card.training["steps"] == 1 and card.name == "mine"
    assert all(torch.equal(a, b) for a, b in zip(three.state_dict().values(), last.state_dict().values(), strict=True))
    assert not torch.equal(one.stem.weight, last.stem.weight) and path.name == "backbone.safetensors"
    with pytest.raises(SettingsError, match="snapshots is '1;3'; expected steps with commas"):
        job(corpus, tmp_path, snapshots="1;3")


def test_an_autoencoder_and_a_backbone_on_its_latents(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "SMALL", VAEConfig((8, 8, 16, 16), layers=1, groups=4))
    monkeypatch.setattr(training, "MEASURED", 1)
    folder = run_pretrain(job(corpus, tmp_path / "vae", autoencoder=True, steps=2, picture_every=2), Progress())
    vae = read_vae(folder)
    assert vae.config.widths == (8, 8, 16, 16) and (folder / "pictures" / "step-0000002.png").is_file()
    path = run_pretrain(job(corpus, tmp_path / "run", space="vae", vae=str(folder), steps=1), Progress())
    network, card = checkpoint.load(path)
    assert isinstance(network, InLatents) and card.space is not None and card.space.vae == vae.config
    assert all(torch.equal(a, b) for a, b in zip(network.space.vae.parameters(), vae.parameters(), strict=True))
    other = VAE(vae.config)
    write_vae(folder, other)
    with pytest.raises(OutputError, match="holds another run"):
        run_pretrain(job(corpus, tmp_path / "run", space="vae", vae=str(folder), steps=1), Progress())
    for changes, message in (
        ({"encoder": "uni"}, "--autoencoder trains no backbone; leave --encoder, --space and --vae out"),
        ({"space": "vae", "vae": str(folder)}, "--autoencoder trains no backbone"),
    ):
        with pytest.raises(SettingsError, match=message):
            run_pretrain(job(corpus, tmp_path / "no", autoencoder=True, **changes), Progress())
    assert not (tmp_path / "no").exists()
