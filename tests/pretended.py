"""A device that is pretended: tensors on it have no values, and may not be mixed with those of the CPU.

torch's ``meta`` device computes shapes and types of every operation. It lets some mixtures pass that a GPU refuses, so
each operation is looked at: all its tensors must lie on one device, as they must on a GPU (but for single numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")
COPIES = "aten.copy_", "aten._to_copy", "aten._foreach_copy_"


class OneDevice(TorchDispatchMode):
    """Refuses every operation on tensors of two devices, but copies."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        devices = {str(x.device) for x in tensors}
        if len(devices) > 1 and not str(func).startswith(COPIES):
            raise RuntimeError(f"{func} on tensors of two devices: {', '.join(sorted(devices))}")
        return func(*args, **(kwargs or {}))


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Return the device, on which everything runs in the block without values and unmixed."""
    with pytest.MonkeyPatch.context() as patch, OneDevice():
        patch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # meta has none
        yield META
