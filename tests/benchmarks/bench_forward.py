"""The forward pass on a CPU: the shipped engine beside others, alternating in one process, on one thread.

    python -m tests.benchmarks.bench_forward [--repeats 5] [--compile]

Others are timed where they are at hand: OpenVINO (`pip install openvino`), given the network as it is and written as
convolutions, and with --compile torch.compile of the blocks (needs a C++ compiler, and minutes). Printed: seconds of
CPU per 256 px tile, the shipped engine's over each, the largest difference of a map in 1/255, and the cells found.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wsipipe.cells.instances import CellRules, find_cells
from wsipipe.infer.predict import Predictor
from wsipipe.models.cmd_folded import FoldedBlock
from wsipipe.models.threads import denormals_flushed, set_threads
from wsipipe.models.unfolded import written_as_convolutions
from wsipipe.models.zoo import resolve
from wsipipe.phantom.truth import PhantomTruth
from wsipipe.raster.tiling import TILE
from wsipipe.settings import PhantomSettings

Forward = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
RULES = CellRules(0.5, 0.5, 30.0, 8, 64)


class Whole(nn.Module):
    """Tiles uint8 (B, 256, 256, 3) in, maps uint8 (B, K, 256, 256) out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        maps = self.network(x.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1)
        return (maps * 255).round().to(torch.uint8)


def openvino(predictor: Predictor, tiles: NDArray[np.uint8]) -> Forward:
    """Return the network compiled by OpenVINO, in fp32."""
    import openvino as ov

    shape = [ov.PartialShape(list(tiles.shape))]
    model = ov.convert_model(Whole(predictor.network), example_input=torch.from_numpy(tiles), input=shape)
    options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "CPU_DENORMALS_OPTIMIZATION": True}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    return lambda batch: request.infer({0: batch})[0].copy()


def engines(predictor: Predictor, tiles: NDArray[np.uint8], compile_blocks: bool) -> dict[str, Forward]:
    """Return the engines that are at hand, the shipped one first."""
    found: dict[str, Forward] = {"eager": predictor.maps}
    if importlib.util.find_spec("openvino"):
        found["openvino"] = openvino(predictor, tiles)
        with written_as_convolutions(predictor.network):
            found["openvino, conv"] = openvino(predictor, tiles)
    if compile_blocks:
        found["compiled blocks"] = compiled(predictor)
    return found


def compiled(predictor: Predictor) -> Forward:
    """Return the forward pass whose blocks are compiled."""
    shipped = FoldedBlock.forward
    quick: Any = torch.compile(shipped, dynamic=False)

    def run(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        FoldedBlock.forward = quick  # type: ignore[method-assign]
        try:
            return predictor.maps(tiles)
        finally:
            FoldedBlock.forward = shipped  # type: ignore[method-assign]

    return run


def cells_of(maps: NDArray[np.uint8], names: tuple[str, ...]) -> int:
    """Return the number of cells of all tiles."""
    box = 0, 0, TILE, TILE
    return sum(len(find_cells(m, names, box, box, (TILE, TILE), RULES)) for m in maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="cmd-t")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # tracing warns of shapes
    set_threads(1)
    cv2.setNumThreads(1)
    predictor = Predictor(resolve(args.model), "cpu", "fp32")
    truth = PhantomTruth(PhantomSettings(width=2 * TILE, height=2 * TILE, mpp=0.5, tissue=1.0))
    picture = truth.picture((0, 0, 2 * TILE, 2 * TILE))
    tiles = picture.reshape(2, TILE, 2, TILE, 3).swapaxes(1, 2).reshape(4, TILE, TILE, 3).copy()
    forwards = engines(predictor, tiles, args.compile)
    with denormals_flushed():
        maps = {name: forward(tiles).astype(int) for name, forward in forwards.items()}
        seconds: dict[str, list[float]] = {name: [] for name in forwards}
        for _ in range(args.repeats):
            for name, forward in forwards.items():
                start = time.process_time()
                forward(tiles)
                seconds[name].append((time.process_time() - start) / len(tiles))
    shipped = float(np.median(seconds["eager"]))
    for name in forwards:
        took, apart = float(np.median(seconds[name])), np.abs(maps[name] - maps["eager"])
        cells = cells_of(maps[name].astype(np.uint8), predictor.names)
        print(f"{name:16s} {took:.3f} s CPU/tile, {shipped / took:.2f}x as fast as eager; maps differ by at most "
              f"{apart.max()}/255, in {(apart > 0).mean():.1e} of the bytes; {cells} cells")  # fmt: skip


if __name__ == "__main__":
    main()
