"""Write the mean of the weights of models that went on from one another.

python average.py OUT MODEL MODEL...

The card is the last model's, with what each says of its training. Outputs that only the last one has, the types of
cells, are taken from it.
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
    (network, card), states = loaded[-1], [found.state_dict() for found, _ in loaded]
    for name, value in network.state_dict().items():  # the tensors are those of the network
        of_all = [state[name].double() for state in states]
        if value.ndim:
            shared = min(map(len, of_all))
            value, of_all = value[:shared], [tensor[:shared] for tensor in of_all]
        value.copy_(torch.stack(of_all).mean(0))
    checkpoint.save(out, network, replace(card, training={"mean of": [c.training for _, c in loaded]}))


if __name__ == "__main__":
    average(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
