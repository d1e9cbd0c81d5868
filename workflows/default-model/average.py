"""Write the mean of the weights of models that went on from one another.

python average.py OUT MODEL MODEL...

The card is the first model's, with what each says of its training.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

from wsipipe.models import checkpoint


def average(out: Path, models: list[Path]) -> None:
    """Write the mean of *models*, computed in fp64, to *out*."""
    loaded = [checkpoint.load(path) for path in models]
    (network, card), states = loaded[0], [found.state_dict() for found, _ in loaded]
    mean = {name: torch.stack([s[name].double() for s in states]).mean(0).to(v.dtype) for name, v in states[0].items()}
    network.load_state_dict(mean)
    checkpoint.save(out, network, replace(card, training={"mean of": [c.training for _, c in loaded]}))


if __name__ == "__main__":
    average(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
