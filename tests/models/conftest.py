"""timm, where it is installed."""

from __future__ import annotations

import sys
import warnings
from types import ModuleType

import pytest
import torch

_LACKING: list[torch.library.Library] = []


@pytest.fixture
def timm() -> ModuleType:
    """The library; a torchvision whose compiled part does not fit this torch lacks operators that nobody calls here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import timm
        except ImportError:
            pytest.skip("timm is not installed")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
            for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm")]:
                del sys.modules[name]
            _LACKING.append(torch.library.Library("torchvision", "DEF"))
            for name in ("nms", "qnms"):
                _LACKING[0].define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
            import timm
    return timm
