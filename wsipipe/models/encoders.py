"""Foundation models by name: where their weights come from, what they take, under which licence.

The list is ``encoders.toml``. It holds no weights: these come from a folder (``NAME=FOLDER``), or from the hub with the
user's own token. The one door to huggingface_hub (extra ``pfm``).
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from wsipipe.errors import MissingDependency, ModelError, ModelNotFound

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FILES = "model.safetensors", "pytorch_model.bin", "config.json"
"""What is fetched of a repository; the second only where it has no first."""


@dataclass(frozen=True)
class EncoderEntry:
    """A foundation model of the list.

    Attributes
    ----------
    name, title : str
        As options take it, and as people read it.
    hub : str
        Its repository on the Hugging Face hub.
    licence : str
    gated : bool
        Whether its makers ask for their licence to be accepted there first.
    domain : {'pathology', 'general'}
        What it was trained on.
    layout : {'vit', 'timm', 'own'}
        What builds it: wsipipe, timm, or its makers' package.
    width, depth, patch, side, hidden, registers, prefix : int
        Of the network; see ``encoders.toml``.
    packed, scaled : bool
        Packed SwiGLU; layer scale.
    mean, std : tuple of float
    parameters : float
        In millions, as the CMD paper states them.
    """

    name: str
    title: str
    hub: str
    licence: str
    width: int
    parameters: float
    gated: bool = False
    domain: str = "pathology"
    layout: str = "vit"
    depth: int = 0
    patch: int = 0
    side: int = 224
    hidden: int = 0
    registers: int = 0
    prefix: int = 1
    packed: bool = False
    scaled: bool = True
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of its weights, as :class:`wsipipe.models.vit.ViT` takes them."""
        w, hidden = self.width, self.hidden or 4 * self.width
        found: dict[str, tuple[int, ...]] = {
            "cls_token": (1, 1, w),
            "pos_embed": (1, (self.side // self.patch) ** 2 + self.prefix, w),
            "patch_embed.proj.weight": (w, 3, self.patch, self.patch),
            "patch_embed.proj.bias": (w,),
            "norm.weight": (w,),
            "norm.bias": (w,),
        }
        if self.registers:
            found["reg_token"] = (1, self.registers, w)
        layers = {"attn.qkv": (3 * w, w), "attn.proj": (w, w), "mlp.fc1": (hidden, w)}
        layers |= {"mlp.fc2": (w, hidden // 2 if self.packed else hidden)}
        vectors = ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"]
        vectors += ["ls1.gamma", "ls2.gamma"] if self.scaled else []
        for k in range(self.depth):
            found |= {f"blocks.{k}.{name}.weight": shape for name, shape in layers.items()}
            found |= {f"blocks.{k}.{name}.bias": shape[:1] for name, shape in layers.items()}
            found |= {f"blocks.{k}.{name}": (w,) for name in vectors}
        return found


@cache
def known() -> dict[str, EncoderEntry]:
    """Return the list, by name."""
    said = tomllib.loads((files("wsipipe.models") / "encoders.toml").read_text(encoding="utf-8"))
    found: dict[str, EncoderEntry] = {}
    for name, one in said.items():
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
        found[name] = EncoderEntry(name=name, **given)
    return found


def named(source: str) -> tuple[EncoderEntry, Path | None] | None:
    """Return the model that ``NAME`` or ``NAME=FOLDER`` means, with the folder; None for anything else.

    Raises
    ------
    ModelNotFound
        For ``NAME=FOLDER`` of a name that is not in the list.
    """
    name, equals, folder = source.partition("=")
    if name.lower() in known() and not (not equals and Path(source).exists()):
        return known()[name.lower()], Path(folder) if equals else None
    if equals and not Path(source).exists():
        near = difflib.get_close_matches(name.lower(), known(), 1)
        hint = f"did you mean {near[0]}?" if near else "`wsipipe models encoders` lists them"
        raise ModelNotFound(f"no foundation model {name!r} in the list; {hint}")
    return None


def fetched(entry: EncoderEntry) -> Path:
    """Return the folder of the weights of *entry*, fetched from the hub with the user's token where they are not yet.

    Raises
    ------
    MissingDependency, ModelError
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependency.of("huggingface_hub", "pfm", f"--encoder {entry.name}") from error
    try:
        there = huggingface_hub.list_repo_files(entry.hub)
        wanted = [name for name in FILES if name in there]
        if FILES[0] in wanted:
            wanted = [name for name in wanted if name != FILES[1]]
        return Path(huggingface_hub.snapshot_download(entry.hub, allow_patterns=wanted))
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        gate = f"accept its licence ({entry.licence}) at the hub and log in (`hf auth login`), " if entry.gated else ""
        raise ModelError(
            f"the weights of {entry.title} cannot be had from {entry.hub} ({type(error).__name__}: {reason}); {gate}"
            f"check the network, or give a copy on disk: {entry.name}=FOLDER"
        ) from error
