"""Objects in JSON's own types, the one text that stands for each, and digests that say whether two are the same."""

from __future__ import annotations

import codecs
import dataclasses
import enum
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHELL = ("/dev/", "/proc/")
"""Where a shell keeps the pipes that stand for files."""
JSON_ESCAPE = "wsipipe.json"
"""Name of the error handler that keeps file names in JSON which are not UTF-8."""


def digest(obj: Any) -> str:
    """Return the SHA-256 (64 hex digits) of the canonical JSON of *obj*.

    Equal for equal content: keys are sorted, tuples are lists, ``16`` is ``16.0``. See :func:`plain` for what is taken.
    """
    return hashlib.sha256(canonical_json(obj)).hexdigest()


def canonical_json(obj: Any) -> bytes:
    """Return *obj* as the one UTF-8 JSON text that stands for it (sorted keys, no blanks, whole floats as integers)."""
    return json.dumps(
        _whole(plain(obj)), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode(errors=JSON_ESCAPE)


def _json_escape(error: UnicodeError) -> tuple[str, int]:
    """Return what stands in JSON for characters that UTF-8 lacks: bytes of file names that are not UTF-8."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(f"\\u{ord(c):04x}" for c in error.object[error.start : error.end]), error.end


codecs.register_error(JSON_ESCAPE, _json_escape)


def readable(name: str) -> str:
    """Return the *name* of a file for files that hold UTF-8 text only; bytes that are none are written out."""
    return os.fsencode(name).decode(errors="backslashreplace")


def text_of(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Return the text in a file; OSError for a pipe or device in a folder, on which one would wait for ever."""
    refuse_special(path)
    return Path(path).read_text(encoding=encoding)


def refuse_special(path: str | os.PathLike[str]) -> None:
    """Raise OSError for a pipe, socket or device, unless the shell made it (``<(command)``)."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or os.fspath(path).startswith(SHELL)):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file")


HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a character, as JSON escapes it; two make one. Names of files that are no text have other halves."""


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def from_json(text: str | bytes) -> Any:
    """Return what a JSON *text* says.

    Raises
    ------
    ValueError
        When it is none (JSON knows no NaN), nested without end, or holds half a character, which no file can.
    """
    try:
        found = json.loads(text, parse_constant=_no_number)
        if HALF.search(text if isinstance(text, str) else text.decode(errors="replace")):
            json.dumps(found, ensure_ascii=False).encode(errors="surrogateescape")
        return found
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character") from error


def plain(obj: Any) -> Any:
    """Return *obj* in JSON's own types.

    Dataclasses and mappings become dicts with text keys; tuples, sets (sorted) and arrays become lists; paths, enums
    and NumPy scalars their value; non-finite floats the strings "NaN", "Infinity" and "-Infinity".

    Raises
    ------
    TypeError
        For anything else.
    """
    if isinstance(obj, enum.Enum):
        return plain(obj.value)
    if obj is None or isinstance(obj, (bool, int, str)):
        return obj
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else _non_finite(obj)
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {f.name: plain(getattr(obj, f.name)) for f in dataclasses.fields(obj)}
    if isinstance(obj, Mapping):
        return {str(plain(key)): plain(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [plain(item) for item in obj]
    if isinstance(obj, (set, frozenset)):
        return sorted((plain(item) for item in obj), key=repr)
    if isinstance(obj, os.PathLike):
        return os.fspath(obj)
    if hasattr(obj, "tolist"):
        return plain(obj.tolist())
    raise TypeError(f"{type(obj).__name__} has no place in JSON: {obj!r}")


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _whole(obj: Any) -> Any:
    """Return *obj* (plain) with whole floats as integers."""
    if isinstance(obj, dict):
        return {key: _whole(value) for key, value in obj.items()}
    if isinstance(obj, list):
        return [_whole(item) for item in obj]
    return int(obj) if isinstance(obj, float) and obj.is_integer() else obj
