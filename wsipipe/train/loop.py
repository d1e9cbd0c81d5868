"""The optimisation loop that every training shares: AdamW, warm-up and cosine, EMA, checkpoints that resume exactly."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsipipe.artifacts import atomic_write
from wsipipe.errors import DatasetError, ModelError
from wsipipe.models.device import out_of_memory
from wsipipe.settings import LoopSettings
from wsipipe.train.distributed import ALONE, World
from wsipipe.train.log import Log


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Return the rate of *step*: linear warm-up, then to zero, or a plateau whose end goes to zero."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "plateau":
        return settings.lr * min(1.0, (settings.steps - step) / settings.cooldown)
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    if settings.schedule == "poly":
        return float(settings.lr * (1 - done) ** 0.9)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def _optimiser(groups: list[dict[str, Any]], settings: LoopSettings) -> torch.optim.Optimizer:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.lr)


STATE = "state.safetensors"
"""Name of the checkpoint."""
PLATEAU = "plateau.safetensors"
"""Name of the checkpoint from which a finished plateau goes on."""


class EMA:
    """Exponential moving average of a network's floating-point weights and buffers."""

    def __init__(self, network: nn.Module, limit: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.limit = limit

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards *network*; the decay warms up as (1 + s) / (10 + s)."""
        decay = min(self.limit, (1 + step) / (10 + step))
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(means, values, 1 - decay)  # on a GPU a few kernels in place of one for each tensor
        for mean, value in pairs:
            if not mean.is_floating_point():
                mean.copy_(value)


def constant_rate(step: int, settings: LoopSettings) -> float:
    """Return the rate of *step*: linear warm-up, then constant."""
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup))


class Loop:
    """Weights, their average, the optimiser and the step count of one training, saved and restored together.

    Parameters
    ----------
    network : nn.Module
    settings : LoopSettings
    folder : Path
        Where the checkpoint and the log go.
    rate : (step, settings) -> float
        Course of the learning rate.
    log : Log, optional
    world : World
        The processes that train together; the first one writes.
    share : name -> float
        Learning rate of a parameter, as a share of *rate*.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: LoopSettings,
        folder: Path,
        rate: Callable[[int, LoopSettings], float] = learning_rate,
        log: Log | None = None,
        world: World = ALONE,
        share: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        self.network, self.settings, self.folder, self.rate, self.world = network, settings, folder, rate, world
        self.log = log or Log(folder / "log.csv")
        self.trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
        groups: list[dict[str, Any]] = [
            {"params": [p for n, p in self.trainable.items() if share(n) == part and (p.ndim > 1) == matrices],
             "weight_decay": settings.weight_decay if matrices else 0.0, "share": part}
            for part in sorted({share(name) for name in self.trainable}, reverse=True)
            for matrices in (True, False)
        ]  # fmt: skip
        self.optimiser = _optimiser(groups, settings)
        self.ema = EMA(network, settings.ema)
        self.step = 0

    def run(
        self,
        batch: Callable[[int], Any],
        loss_of: Callable[[Any], Tensor],
        report: Callable[[int, float], None] = lambda step, loss: None,
        split: Callable[[Any], Sequence[Any]] = lambda batch: (batch,),
        alone: Callable[[], AbstractContextManager[Any]] = nullcontext,
        rescue: Callable[[Any], str] = lambda batch: "",
    ) -> nn.Module:
        """Optimise to the last step and return the averaged network.

        Parameters
        ----------
        batch : step -> anything
            The batch of a step, a function of the step alone. Called once a step, in order, in another thread.
        loss_of : part of a batch -> scalar Tensor
        report : (step, loss) -> None
            Called after every step.
        split : batch -> parts
            Parts of equal size whose gradients are averaged.
        alone : () -> context
            Surrounds the passes of all parts but the last: processes need not exchange gradients there.
        rescue : batch -> str
            Keeps the batch whose loss is not finite, and returns where.

        Raises
        ------
        DatasetError
            When the loss or the gradient is not finite; the last checkpoint is kept.
        """
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(batch, self.step)
            while self.step < self.settings.steps:
                current = ahead.result()
                if self.step + 1 < self.settings.steps:
                    ahead = pool.submit(batch, self.step + 1)
                with self._memory_watched():
                    mine = self._gradient(split(current), loss_of, alone)
                    loss, norm = self._checked(mine, partial(rescue, current))
                    self._update(loss, norm)
                report(self.step - 1, loss)
                if self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps:
                    self.save(self.path)
                if self.settings.schedule == "plateau" and self.step == self.settings.steps - self.settings.cooldown:
                    self.save(self.folder / PLATEAU)
        return self.ema.network

    @contextmanager
    def _memory_watched(self) -> Iterator[None]:
        """Say how to go on when a step runs out of memory: nothing of it is kept, so a smaller batch may go on."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise ModelError(
                f"out of memory at step {self.step} ({str(error).splitlines()[0]}); give a smaller --batch or "
                f"backbone, to pretrain also --accumulate or --checkpoint-activations (last checkpoint: {self.path})"
            ) from error

    def _gradient(
        self,
        parts: Sequence[Any],
        loss_of: Callable[[Any], Tensor],
        alone: Callable[[], AbstractContextManager[Any]],
    ) -> Tensor:
        """Compute the gradient of the mean over *parts* and return that mean."""
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for k, part in enumerate(parts, 1):
            with alone() if k < len(parts) else nullcontext():
                loss = loss_of(part) / len(parts)
                loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() + total.to(loss.device)
        return total

    def _checked(self, mine: Tensor, rescue: Callable[[], str]) -> tuple[float, float]:
        """Return the loss over all processes and the norm of the gradient, which is scaled down to the limit."""
        norm = nn.utils.clip_grad_norm_(self.trainable.values(), self.settings.clip or math.inf)
        loss, size = torch.stack((self.world.mean(mine), norm.to(mine.device))).tolist()
        if not math.isfinite(loss) or not math.isfinite(size):
            what, value = ("gradient", size) if math.isfinite(loss) else ("loss", loss)
            places = "; ".join(filter(None, (f"last checkpoint: {self.path}", rescue())))
            raise DatasetError(f"the {what} is {value} at step {self.step}; lower --lr ({places})")
        return loss, size

    def _update(self, loss: float, norm: float) -> None:
        """Take the step, move the average, log."""
        rate = self.rate(self.step, self.settings)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        self.optimiser.step()
        self.ema.update(self.network, self.step)
        self.step += 1
        if self.world.main:
            self.log.write({"step": self.step, "loss": loss, "lr": rate, "gradient": norm})

    @property
    def path(self) -> Path:
        """The checkpoint file."""
        return self.folder / STATE

    def save(self, path: Path) -> None:
        """Write weights, average and optimiser state."""
        if not self.world.main:
            return
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.network.state_dict().items()}
        for name, parameter in self.trainable.items():
            tensors |= {f"adam.{name}.{k}": v for k, v in self.optimiser.state.get(parameter, {}).items()}
        header = {"loop": json.dumps({"step": self.step, "steps": self.settings.steps})}
        with atomic_write(path) as file:
            file.write(safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, header))

    def restore(self) -> bool:
        """Load the checkpoint if there is one, and cut the log to it; return whether there was.

        A plateau that has come down, and is now to last longer, goes on from where it left the plateau.
        """
        if not self.path.exists():
            if self.world.main:
                self.log.rewind(0)
            return False
        path, plateau = self.path, self.folder / PLATEAU
        if plateau.exists() and _header(path).get("steps", 0) != self.settings.steps:
            path = plateau
        tensors, self.step = safetensors.torch.load_file(path), _header(path)["step"]
        self.network.load_state_dict(_under(tensors, "network."))
        self.ema.network.load_state_dict(_under(tensors, "ema."))
        for name, parameter in self.trainable.items():
            state = _under(tensors, f"adam.{name}.")
            self.optimiser.state[parameter] = {k: _placed(v, parameter) for k, v in state.items()}
        if self.world.main:
            self.log.rewind(self.step)
        return True


def _header(path: Path) -> dict[str, int]:
    """Return what a checkpoint says of itself: the step, and how many there were to be."""
    with safetensors.safe_open(str(path), "pt") as file:
        found: dict[str, int] = json.loads(file.metadata()["loop"])
    return found


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _placed(value: Tensor, parameter: Tensor) -> Tensor:
    """Return optimiser state *value* where and as *parameter* lies in memory; AdamW keeps its step count on the CPU."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape and value.ndim else value
