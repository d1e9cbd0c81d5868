"""Whether weights are those that were saved: finite, and of the digest that the file carries.

A network with damaged weights runs all the same, and finds nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from wsipipe.errors import NotAModel

log = logging.getLogger(__name__)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values, whatever their order and device."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_digest(path: Path, tensors: Mapping[str, Tensor], stated: str | None) -> None:
    """Refuse *tensors* whose digest is not the one *stated* in their file; a file that states none is told of once.

    Raises
    ------
    NotAModel
    """
    if stated is None:
        _note(path)
    elif stated != (found := digest_of(tensors)):
        raise NotAModel(
            f"{path}: its weights are not those that were saved (their digest is {found[:16]}…, the file states "
            f"{stated[:16]}…); it was changed or damaged: copy it again"
        )


@cache
def _note(path: Path) -> None:
    log.warning(
        "%s carries no digest of its weights, so that damage to them would not be noticed; "
        "`wsipipe models export` makes a copy that has one",
        path,
    )


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse *tensors*, read from or to be written to *path*, with values that are NaN or infinite.

    Raises
    ------
    NotAModel
    """
    wrong = {k: int((~torch.isfinite(v)).sum()) for k, v in tensors.items() if v.is_floating_point()}
    if count := sum(wrong.values()):
        first = next(name for name, some in wrong.items() if some)
        many = f"{count:,} of its weights are no finite numbers"
        what = "1 of its weights is no finite number" if count == 1 else many
        raise NotAModel(
            f"{path}: {what}, the first in {first}; the file is damaged (copy it again), its training has diverged "
            "(train again with a lower --lr), or the weights are too large for 16 bits (export without --half)"
        )
