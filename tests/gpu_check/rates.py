"""Tiles per second of the networks: as they are, captured as a CUDA graph, compiled; and from host memory and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.gpu_check.context import Context
from wsipipe.infer.predict import Predictor
from wsipipe.models.device import free_memory, out_of_memory
from wsipipe.raster.tiling import TILE

Row = dict[str, Any]


def forward_rates(context: Context) -> Iterator[Row]:
    """Yield tiles per second of each network and batch: eager, as a graph, and through ``Predictor.maps``."""
    for name in context.sizes.networks:
        for batch in context.sizes.batches:
            try:
                yield _rates(context, name, batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                yield {"network": name, "batch": batch, "note": "does not fit the memory"}
            free_memory(context.device)


def _rates(context: Context, name: str, batch: int) -> Row:
    context.peak()
    predictor = Predictor(context.model(name), str(context.device), "auto", batch)
    x = _batch(context, batch)
    row: Row = {"network": name, "batch": batch, "dtype": predictor.recipe.dtype}
    with torch.inference_mode():
        row["eager"] = round(batch / context.seconds_of(lambda: predictor.network(x)), 1)
        if context.on_gpu:
            replay, same = captured(predictor.network, x)
            row["graph"], row["graph gives the same"] = round(batch / context.seconds_of(replay), 1), same
    tiles = np.random.default_rng(0).integers(0, 256, (3 * batch, TILE, TILE, 3), np.uint8)
    row["host to host"] = round(len(tiles) / context.seconds_of(lambda: predictor.maps(tiles), 1), 1)
    return row | {"peak MiB": context.peak()}


def _batch(context: Context, batch: int) -> Tensor:
    x = torch.rand(batch, 3, TILE, TILE, device=context.device, dtype=context.dtype) * 2 - 1
    return x.contiguous(memory_format=torch.channels_last)


def captured(network: torch.nn.Module, x: Tensor) -> tuple[Callable[[], None], bool]:
    """Return what replays the forward pass of *x* as a CUDA graph, and whether it gives what the network gives."""
    stream = torch.cuda.Stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        for _ in range(3):
            plain = network(x)
    torch.cuda.current_stream(x.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = network(x)
    graph.replay()
    torch.cuda.synchronize(x.device)
    return graph.replay, bool(torch.equal(out, plain))


def compiled_rates(context: Context) -> Iterator[Row]:
    """Yield tiles per second of the first network under ``--engine compile``, at the batch that is the default."""
    name, batch = next(iter(context.sizes.networks)), context.sizes.batches[-1]
    plain, quick = (Predictor(context.model(name), str(context.device), "auto", batch, e) for e in ("torch", "compile"))
    x = _batch(context, batch)
    with torch.inference_mode():
        rates = [batch / context.seconds_of(lambda f=p.forward: f(x), 3) for p in (plain, quick)]
        apart = float((plain.forward(x) - quick.forward(x)).abs().max())
    yield {
        "network": name,
        "batch": batch,
        "eager": round(rates[0], 1),
        "compiled": round(rates[1], 1),
        "maps differ by at most": round(apart, 4),
    }
