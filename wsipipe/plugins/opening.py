"""``--model``: one of wsipipe's own networks, or ``NAME:WEIGHTS`` of a plug-in; one door for both."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from wsipipe.artifacts import digest
from wsipipe.errors import ModelNotFound, SettingsError
from wsipipe.infer.predict import Predictor, load_predictor
from wsipipe.models.checkpoint import ModelCard, model_hash, read_card
from wsipipe.models.device import choose_device
from wsipipe.models.zoo import resolve, shipped
from wsipipe.plugins.predictor import PluginPredictor, fitting
from wsipipe.plugins.protocol import GROUP, Segmenter
from wsipipe.plugins.said import Said, read_said
from wsipipe.settings import CellSettings, GridSettings

log = logging.getLogger(__name__)

AnyPredictor = Predictor | PluginPredictor
Open = Callable[[Path, str, Said], Segmenter]

BUILT_IN = {
    "cellpose": "wsipipe.plugins.cellpose:open_cellpose",
    "instanseg": "wsipipe.plugins.instanseg:open_instanseg",
    "onnx": "wsipipe.plugins.onnx:open_onnx",
    "stardist": "wsipipe.plugins.stardist:open_stardist",
    "torchscript": "wsipipe.plugins.torchscript:open_torchscript",
}
"""The plug-ins that come with wsipipe; a further one is an adapter and a line here. Others come by entry points."""


@cache
def registered() -> dict[str, str]:
    """Return the plug-ins that are installed, by name: module and function of each."""
    others = {found.name: found.value for found in importlib.metadata.entry_points(group=GROUP)}
    return others | BUILT_IN


def split(model: str) -> tuple[str, Path] | None:
    """Return name and weights of a plug-in, None for one of wsipipe's own networks.

    Raises
    ------
    ModelNotFound
        No plug-in has that name, or no weights are there.
    """
    name, colon, rest = model.partition(":")
    if not colon or len(name) < 2 or model in shipped() or Path(model).exists():  # C:\net.safetensors is a path
        return None
    if name not in registered():
        raise ModelNotFound(f"no plug-in {name!r} (--model {model}); there are {', '.join(sorted(registered()))}")
    if not Path(rest).exists() or not rest:
        raise ModelNotFound(f"no weights at {rest or 'nowhere'}; expected --model {name}:FILE or {name}:FOLDER")
    return name, Path(rest)


def is_plugin(model: str) -> bool:
    """Whether *model* names a plug-in."""
    return split(model) is not None


def full_name(model: str) -> str:
    """Return *model* with an absolute path; the name of a shipped model as it is."""
    found = split(model)
    if found:
        return f"{found[0]}:{found[1].resolve()}"
    return model if model in shipped() else str(resolve(model).resolve())


def weights_digest(model: str) -> str:
    """Return the SHA-256 of a model's file; of a plug-in that of its name, every file of its weights, and the TOML."""
    found = split(model)
    if not found:
        return model_hash(resolve(model))
    name, weights = found
    files = sorted(path for path in weights.rglob("*") if path.is_file()) if weights.is_dir() else [weights]
    said = read_said(weights)
    parts = [(path.relative_to(weights).as_posix() if path != weights else "", _sha256(path)) for path in files]
    return digest([name, parts, said.values])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_of(model: str) -> ModelCard | None:
    """Return what a model says of itself; None of a plug-in, which says so once it is loaded."""
    return None if is_plugin(model) else read_card(resolve(model))


def check_settings(model: str, cells: CellSettings, grid: GridSettings) -> None:
    """Refuse settings of how maps become cells: a plug-in finds its objects by itself.

    Raises
    ------
    SettingsError
    """
    for name in ("threshold", "marker_threshold", "clump_threshold"):
        if getattr(cells, name) is not None:
            raise SettingsError(
                f"--{name.replace('_', '-')} is for wsipipe's own networks; {model} has options of its own, in the "
                "TOML file beside its weights: leave it out"
            )
    if grid.overlap != GridSettings.overlap:
        raise SettingsError(
            f"--overlap {grid.overlap} is for wsipipe's own networks; tiles of {model} overlap by its largest object "
            "and its context, which the TOML file beside its weights may name: leave it out"
        )


def open_predictor(
    model: str, device: str, precision: str = "auto", batch: int = 0, engine: str = "torch"
) -> AnyPredictor:
    """Return a model on its device, with the largest batch, *batch* or smaller, that fits its memory.

    Parameters
    ----------
    model : str
        Name of a shipped model, a checkpoint, or ``NAME:WEIGHTS`` of a plug-in.
    device, precision, batch, engine
        As in :class:`wsipipe.settings.RunSettings`.

    Raises
    ------
    ModelError, SettingsError, MissingDependency
    """
    found = split(model)
    if not found:
        return load_predictor(resolve(model), device, precision, batch, engine)
    name, weights = found
    if engine != "torch" or precision == "bf16":
        what = f"--engine {engine}" if engine != "torch" else "--precision bf16"
        raise SettingsError(f"{what} is for wsipipe's own networks; {name} computes as it does: leave it out")
    chosen = choose_device(device)
    module, _, function = registered()[name].partition(":")
    make: Open = getattr(_imported(name, module), function)
    segmenter = make(weights, str(chosen), read_said(weights))
    title = f"{name}:{weights.name}"
    return fitting(lambda size: PluginPredictor(title, segmenter, chosen, size), batch, log.warning)


def _imported(name: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModelNotFound(
            f"the plug-in {name} does not load: no module {error.name}; install what it needs"
        ) from error
