"""The optimisation loop that every training shares: AdamW, warm-up and cosine, EMA, checkpoints that resume exactly."""

from __future__ import annotations

import copy
import csv
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsipipe.artifacts import atomic_write
from wsipipe.errors import DatasetError
from wsipipe.settings import LoopSettings


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Return the rate of *step*: linear warm-up, then cosine to zero."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


class EMA:
    """Exponential moving average of a network's floating-point weights and buffers."""

    def __init__(self, network: nn.Module, limit: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.limit = limit

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards *network*; the decay warms up as (1 + s) / (10 + s)."""
        decay = min(self.limit, (1 + step) / (10 + step))
        for mean, value in zip(self.network.state_dict().values(), network.state_dict().values()):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


class Loop:
    """Weights, their average, the optimiser and the step count of one training, saved and restored together."""

    def __init__(self, network: nn.Module, settings: LoopSettings, folder: Path) -> None:
        self.network, self.settings, self.folder = network, settings, folder
        self.trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
        decayed = [p for p in self.trainable.values() if p.ndim > 1]
        plain = [p for p in self.trainable.values() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.lr)
        self.ema = EMA(network, settings.ema)
        self.step = 0

    def run(
        self,
        batch: Callable[[int], Any],
        loss_of: Callable[[Any], Tensor],
        report: Callable[[int, float], None] = lambda step, loss: None,
    ) -> nn.Module:
        """Optimise to the last step and return the averaged network.

        Parameters
        ----------
        batch : step -> anything
            The batch of a step, a function of the step alone.
        loss_of : batch -> scalar Tensor
        report : (step, loss) -> None
            Called after every step.

        Raises
        ------
        DatasetError
            When the loss is not finite; the last checkpoint is kept.
        """
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(batch, self.step)
            while self.step < self.settings.steps:
                current = ahead.result()
                if self.step + 1 < self.settings.steps:
                    ahead = pool.submit(batch, self.step + 1)
                report(self.step, self._one(loss_of(current)))
                if self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps:
                    self.save()
        return self.ema.network

    def _one(self, loss: Tensor) -> float:
        if not torch.isfinite(loss):
            kept = f"last checkpoint: {self.path}"
            raise DatasetError(f"the loss is {loss.item()} at step {self.step}; lower --lr ({kept})")
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.trainable.values(), self.settings.clip)
        self.optimiser.step()
        self.ema.update(self.network, self.step)
        self.step += 1
        value = loss.item()
        self._log(value)
        return value

    @property
    def path(self) -> Path:
        """The checkpoint file."""
        return self.folder / "state.safetensors"

    def _log(self, loss: float) -> None:
        with (self.folder / "log.csv").open("a", newline="") as file:
            csv.writer(file).writerow([self.step, f"{loss:.6f}", f"{learning_rate(self.step - 1, self.settings):.3e}"])

    def save(self) -> None:
        """Write weights, average and optimiser state."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.network.state_dict().items()}
        for name, parameter in self.trainable.items():
            tensors |= {f"adam.{name}.{k}": v for k, v in self.optimiser.state.get(parameter, {}).items()}
        header = {"loop": json.dumps({"step": self.step})}
        with atomic_write(self.path) as file:
            file.write(safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, header))

    def restore(self) -> bool:
        """Load the checkpoint if there is one; return whether there was."""
        if not self.path.exists():
            return False
        tensors = safetensors.torch.load_file(self.path)
        with safetensors.safe_open(str(self.path), "pt") as file:
            self.step = json.loads(file.metadata()["loop"])["step"]
        self.network.load_state_dict(_under(tensors, "network."))
        self.ema.network.load_state_dict(_under(tensors, "ema."))
        for name, parameter in self.trainable.items():
            self.optimiser.state[parameter] = _under(tensors, f"adam.{name}.")
        return True


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
