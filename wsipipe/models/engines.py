"""What computes a network's forward pass: torch as it is, or compiled, or OpenVINO.

An engine is chosen by name, never by what happens to be installed, and stands in the recipe: another one gives maps
that differ in a few pixels. A further engine is a function that makes one, and a line in :data:`ENGINES`.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsipipe.errors import MissingDependency, ModelError, SettingsError
from wsipipe.models.cmd_folded import FoldedBlock

if TYPE_CHECKING:
    from collections.abc import Mapping

Forward = Callable[[Tensor], Tensor]
"""Images (B, 3, 256, 256) in [-1, 1] in, maps (B, K, 256, 256) in [0, 1] out, fp32."""


@dataclass(frozen=True)
class Engine:
    """A way to compute a network.

    Attributes
    ----------
    recipe : str
        Its name in the recipe.
    make : (network, example) -> Forward
        *example* is a batch of the one shape that will ever be asked for, where the network is.
    devices : tuple of str
        Kinds of devices that it runs on.
    dtypes : tuple of torch.dtype
        Arithmetic that it computes in.
    package : str
        Whose version the recipe states beside torch's; an extra of the same name brings it. "" for none.
    threaded : bool
        Whether the last bits depend on the number of CPU threads, which the recipe then states on a CPU.
    """

    recipe: str
    make: Callable[[nn.Module, Tensor], Forward]
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    package: str = ""
    threaded: bool = False

    def version(self) -> str:
        """Return the versions that the bytes depend on.

        Raises
        ------
        MissingDependency
        """
        mine = torch.__version__.partition("+")[0]
        if not self.package:
            return mine
        try:
            return f"{mine}, {self.package} {importlib.metadata.version(self.package)}"
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingDependency.of(self.package, self.package, f"--engine {self.package}") from error

    def name_on(self, device: torch.device) -> str:
        """Return its name in the recipe of a run on *device*."""
        told = self.threaded and device.type == "cpu"
        return f"{self.recipe}, {torch.get_num_threads()} threads" if told else self.recipe


def engine_for(name: str, device: torch.device, dtype: torch.dtype) -> Engine:
    """Return the engine of that *name*.

    Raises
    ------
    SettingsError
        When it does not run on *device*, or not in *dtype*.
    """
    engine = ENGINES[name]
    if device.type not in engine.devices:
        raise SettingsError(f"--engine {name} runs on {', '.join(engine.devices)}, not on {device}; leave it out")
    if dtype not in engine.dtypes:
        kinds = " or ".join({torch.float32: "fp32", torch.bfloat16: "bf16"}[known] for known in engine.dtypes)
        raise SettingsError(f"--engine {name} computes in {kinds}; give --precision {kinds}")
    return engine


def as_it_is(network: nn.Module, example: Tensor) -> Forward:
    """Return the network, which torch runs operation by operation."""
    return network


def compiled(network: nn.Module, example: Tensor) -> Forward:
    """Return the network with its blocks compiled for the shapes that they see, of which there are six."""
    for module in network.modules():
        if isinstance(module, FoldedBlock):
            module.compile(dynamic=False)

    def forward(x: Tensor) -> Tensor:
        with _compiler_explained():
            maps: Tensor = network(x)
        return maps

    return forward


@contextmanager
def _compiler_explained() -> Iterator[None]:
    """Say in one line what a compiler lacks."""
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ModelError(
            f"--engine compile: torch cannot compile the network here ({reason}); it needs a C++ compiler (g++ or "
            "clang), on a GPU also Triton: install them, or leave --engine out"
        ) from error


def openvino(network: nn.Module, example: Tensor) -> Forward:
    """Return the network compiled by OpenVINO, in fp32.

    Tiles go through it one by one, each in one thread and as many at a time as torch has threads: so their bytes depend
    neither on the number of threads nor on the batch.
    """
    import openvino as ov
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from wsipipe.models.unfolded import written_as_convolutions

    one = example[:1].contiguous()
    frontend = ov.frontend.FrontEndManager().load_by_framework("pytorch")  # convert_model would report its use
    with written_as_convolutions(network), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer speaks of shapes, which are fixed here, and of its own age
        unchecked = {"check_trace": False}  # it would forward four times more
        decoder = TorchScriptPythonDecoder(network, example_input=one, trace_kwargs=unchecked)  # outlives what follows
        model = frontend.convert(frontend.load(decoder))
    model.reshape(list(one.shape))
    threads = torch.get_num_threads()
    options: Mapping[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    queue = ov.AsyncInferQueue(ov.Core().compile_model(model, "CPU", dict(options)), threads)

    def forward(x: Tensor) -> Tensor:
        found: list[Tensor] = [x] * len(x)

        def keep(request: Any, place: int) -> None:
            found[place] = torch.from_numpy(request.get_output_tensor(0).data.copy())

        queue.set_callback(keep)
        for place, tile in enumerate(x.contiguous().numpy()):
            queue.start_async({0: tile[None]}, place)
        queue.wait_all()
        return torch.cat(found)

    return forward


ENGINES = {
    "torch": Engine("eager", as_it_is),
    "compile": Engine("compiled blocks", compiled, devices=("cpu", "cuda"), threaded=True),
    "openvino": Engine("openvino", openvino, devices=("cpu",), dtypes=(torch.float32,), package="openvino"),
}
"""By what ``--engine`` takes; :data:`wsipipe.settings.ENGINE_NAMES` lists the same names without loading torch."""
