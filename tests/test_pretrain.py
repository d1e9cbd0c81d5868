"""Pretraining: it learns, resumes bit by bit after a kill, and several processes train as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import tiny
from wsipipe.errors import DatasetError, OutputError, SettingsError
from wsipipe.models import cmd
from wsipipe.models.cmd import CMD, CMDConfig
from wsipipe.models.conditioning import open_encoder
from wsipipe.settings import PretrainSettings
from wsipipe.train.distributed import World
from wsipipe.train.features import features_of as features_of
from wsipipe.train.feed import Steps
from wsipipe.train.pretraining import Objective, Source, loop_settings, new_backbone, prepare, pretrain, samples_here

SETTINGS = PretrainSettings(steps=6, batch=2, lr=3e-3, checkpoint_every=2, seed=3)
SINGLE = replace(SETTINGS, batch=1)
CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]
RUN = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests import test_pretrain as t, tiny
from wsipipe.models import cmd
from wsipipe.train.distributed import joined, ranks
cmd.SIZES["T"] = t.smallest
"""


def smallest(condition: int = 0) -> CMDConfig:
    return CMDConfig((4, 4, 4, 8, 8, 16), condition)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let size T be smaller still, and one thread do the arithmetic, here as in the processes started here."""
    monkeypatch.setitem(cmd.SIZES, "T", smallest)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def source(features: bool = False, count: int = 5) -> Source:
    z = np.random.default_rng(0).normal(size=(count, 12)).astype(np.float32) if features else None
    return Source(tiny.Patches(count), np.arange(count), z)


class OnDisk(tiny.Patches):
    """Patches whose features other processes find too."""

    def __init__(self, folder: Path) -> None:
        super().__init__(5)
        self.folder = folder

    def features(self, name: str) -> np.ndarray | None:
        path = self.folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    def add_features(self, name: str, array: np.ndarray) -> None:
        np.save(self.folder / f"{name}.npy", array)


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False
    )


def test_it_learns_and_gives_the_average(tmp_path: Path) -> None:
    losses: list[float] = []
    settings = replace(SETTINGS, steps=12, lr=1e-2)
    averaged = pretrain(source(count=2), settings, tmp_path, report=lambda step, loss, net: losses.append(loss))
    assert len(losses) == 12 and np.mean(losses[-3:]) < 0.8 * losses[0]
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert rows[0] == "step,loss,lr,gradient" and len(rows) == 13 and rows[-1].startswith("12,")
    state = safetensors.torch.load_file(tmp_path / "state.safetensors")
    assert all(torch.equal(value, state[f"ema.{name}"]) for name, value in averaged.state_dict().items())
    assert any(not torch.equal(value, state[f"network.{name}"]) for name, value in averaged.state_dict().items())


def test_killed_and_resumed_is_uninterrupted_to_the_last_byte(tmp_path: Path) -> None:
    whole, parts = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    pretrain(source(features=True), SINGLE, whole)
    kill = "lambda step, loss, net: os.kill(os.getpid(), 9) if step == 4 else None"
    done = run("-c", f"{RUN}\nt.pretrain(t.source(features=True), t.SINGLE, Path({str(parts)!r}), report={kill})")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len((parts / "log.csv").read_text().splitlines()) == 6  # five rows: one more than the checkpoint knows
    steps: list[int] = []
    pretrain(source(features=True), SINGLE, parts, report=lambda step, loss, net: steps.append(step))
    assert steps == [4, 5]
    for name in ("state.safetensors", "log.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_more_steps_go_on_with_a_finished_run_and_fewer_are_refused(tmp_path: Path) -> None:
    whole, parts = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    pretrain(source(), SINGLE, whole)
    pretrain(source(), replace(SINGLE, steps=4), parts)
    pretrain(source(), SINGLE, parts)
    assert (whole / "state.safetensors").read_bytes() == (parts / "state.safetensors").read_bytes()
    with pytest.raises(SettingsError, match="is at step 6 already; expected --steps"):
        pretrain(source(), replace(SINGLE, steps=5), parts)


def test_two_processes_train_as_one_with_the_same_batch(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    pretrain(source(features=True), replace(SETTINGS, steps=3, batch=4), one)
    script = tmp_path / "train.py"
    encoder = tiny.save_encoder(tmp_path / "encoder")
    script.write_text(
        f"{RUN}\nwith joined(ranks(), t.CPU) as world:\n"
        "    settings = t.replace(t.SETTINGS, steps=3, batch=4, accumulate=2)\n"
        f"    t.pretrain(t.source(features=True), settings, Path({str(two)!r}), world)\n"
        f"    t.features_of(t.OnDisk(Path({str(two)!r})), {str(encoder)!r}, t.CPU, world)\n"
    )
    done = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    assert done.returncode == 0, done.stderr
    a, b = (np.loadtxt(path / "log.csv", delimiter=",", skiprows=1) for path in (one, two))
    assert a.shape == b.shape == (3, 4)
    assert a[:, 1] == pytest.approx(b[:, 1], rel=1e-4) and a[:, 3] == pytest.approx(b[:, 3], rel=1e-3)
    (kept,) = two.glob("*.npy")  # the encoder's features, half of them from each process
    assert np.allclose(np.load(kept), open_encoder(str(encoder), CPU)(torch.from_numpy(OnDisk(two).pixels)), atol=1e-5)


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"checkpoint_activations": True}])
def test_saving_memory_changes_nothing_but_rounding(changes: dict[str, int], tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    settings = replace(SETTINGS, steps=3)
    pretrain(source(), settings, one)
    pretrain(source(), replace(settings, **changes), two)
    a, b = (np.loadtxt(path / "log.csv", delimiter=",", skiprows=1) for path in (one, two))
    assert a[:, 1] == pytest.approx(b[:, 1], rel=1e-5)


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients = []
    for recomputed in (False, True):
        network = tiny.shake(new_backbone(SETTINGS, 0))
        prepare(network, replace(SETTINGS, checkpoint_activations=recomputed), CPU)
        batch = Steps(tiny.Patches(2), np.arange(2), 0, 2, range(2), 0.8)[0]
        Objective(network, source(), SETTINGS, CPU)(batch).backward()
        gradients.append([p.grad for p in network.parameters()])
    assert all(a is not None and torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_gradients_reach_every_parameter(tmp_path: Path) -> None:
    network = tiny.shake(new_backbone(SETTINGS, 12))
    batch = Steps(tiny.Patches(5), np.arange(5), 0, 2, range(2), 0.8)[0]
    Objective(network, source(features=True), SETTINGS, CPU)(batch).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_feature_is_that_of_the_patch() -> None:
    objective = Objective(new_backbone(SETTINGS, 12), known := source(features=True), SETTINGS, CPU)
    batch = Steps(known.patches, known.indices, 0, 4, range(4), 0.8)[1]
    z = objective.condition(batch)
    assert z is not None and np.array_equal(z.numpy(), known.features[batch.indices.numpy()])


def test_a_loss_is_computed_on_one_device() -> None:
    """The meta device has shapes and no memory, and mixes with no other, as a GPU."""
    meta, settings = torch.device("meta"), replace(SETTINGS, ssim=0.5)
    network = new_backbone(settings, 12).to(meta)
    known = source(features=True)
    objective = Objective(network, known, settings, meta)
    objective.arithmetic = nullcontext  # type: ignore[assignment]
    objective(Steps(known.patches, known.indices, 0, 2, range(2), 0.8)[0]).backward()
    assert {p.grad.device for p in network.parameters() if p.grad is not None} == {meta}


def test_a_loss_that_is_not_finite_keeps_the_batch_and_the_checkpoint(tmp_path: Path) -> None:
    def spoil(step: int, loss: float, averaged: CMD) -> None:
        if step == 2:
            known.features[:] = np.nan

    known = source(features=True)
    with pytest.raises(
        DatasetError, match=r"the loss is nan at step 3; .*state\.safetensors; the batch: .*bad-batch-0"
    ):
        pretrain(known, SINGLE, tmp_path, report=spoil)
    kept = safetensors.torch.load_file(tmp_path / "bad-batch-0.safetensors")
    expected = Steps(known.patches, known.indices, SINGLE.seed, 1, range(1), 0.8)[3]
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected._asdict().items())
    state = safetensors.torch.load_file(tmp_path / "state.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    pretrain(source(), replace(SINGLE, steps=2), tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*state\.safetensors"):
            pretrain(source(), SINGLE, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "state.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "state.safetensors"]


def test_a_batch_must_be_shared_evenly() -> None:
    settings = replace(SETTINGS, batch=12, accumulate=3)
    assert samples_here(settings, World(1, 2)) == range(6, 12)
    with pytest.raises(SettingsError, match="--batch 12 cannot be shared by 3 processes x 3 passes"):
        samples_here(settings, World(0, 3))


def test_the_defaults_are_the_papers() -> None:
    settings = PretrainSettings()
    loop = loop_settings(settings)
    assert (loop.lr, loop.weight_decay, loop.ema, loop.steps) == (3e-5, 0, 0.9999, 50_000)
    assert (settings.crop_share, settings.l1, settings.ssim, settings.schedule) == (0.8, 1, 0, "constant")


@pytest.mark.parametrize("start", [0, 1])
def test_weights_follow_the_seed(start: int) -> None:
    a, b, c = (new_backbone(replace(SETTINGS, seed=seed), 0) for seed in (start, start, start + 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.stem.weight, c.stem.weight)
