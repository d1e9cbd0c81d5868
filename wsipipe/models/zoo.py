"""Models by name: those shipped with wsipipe, and any checkpoint by path."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from wsipipe.errors import ModelNotFound

DEFAULT = "cmd-t"
"""The model used when none is named."""
SHA256 = {
    "cmd-t": "854e9c3954fd1336b4a6a78475a13b0f33a5070ffeea69f8c1a12974d9fe0d95",
    "cmd-t-open": "60ac1e5e0213e4346b7cafbddc12f2f2f748bfabd0909a1b50abd4413a837a29",
}
"""Of the files in ``weights/``. After a change there, tests/models/test_intact.py says what to put here."""


def weights_folder() -> Path:
    """Return the folder of the shipped checkpoints and their model cards."""
    return Path(str(files("wsipipe.models"))) / "weights"


def shipped() -> tuple[str, ...]:
    """Return the names of the shipped models."""
    return tuple(sorted(path.stem for path in weights_folder().glob("*.safetensors")))


def shipped_digest(path: Path) -> str | None:
    """Return the SHA-256 that the shipped checkpoint at *path* must have; None when it is not one of those."""
    return SHA256.get(path.stem) if path.resolve().parent == weights_folder().resolve() else None


def resolve(name: str) -> Path:
    """Return the checkpoint that *name* means: a shipped model, or a path.

    Raises
    ------
    ModelNotFound
    """
    if name in shipped():
        return weights_folder() / f"{name}.safetensors"
    path = Path(name)
    if path.exists():
        return path
    near = difflib.get_close_matches(name, shipped(), 1)
    hint = f"did you mean {near[0]}?" if near else f"shipped models: {', '.join(shipped()) or 'none'}"
    raise ModelNotFound(f"no model {name!r}: neither a shipped one nor a file; {hint}")


def card_text(name: str) -> str | None:
    """Return the Markdown model card shipped beside the weights of *name*, if there is one."""
    path = resolve(name).with_suffix(".md")
    return path.read_text(encoding="utf-8") if path.is_file() else None
