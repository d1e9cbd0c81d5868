"""Every error that wsipipe raises on purpose.

::

    WsipipeError                      exit 1
    ├── SettingsError (ValueError)    exit 2    an option or config value is out of range
    ├── SlideError                    exit 3
    │   ├── SlideNotFound (FileNotFoundError)
    │   ├── UnreadableSlide (OSError)           no backend opens the file; says why each refused
    │   ├── UnsupportedSlide (ValueError)       opened, but not what wsipipe handles (z-stack, fluorescence)
    │   ├── MissingMpp (ValueError)             no resolution in the file: give --mpp
    │   ├── ImplausibleMpp (ValueError)         resolution outside 0.05-5 µm/px
    │   ├── SlideChanged                        the file was replaced or written to while it was read
    │   └── TileReadError (OSError)             one region of an open slide cannot be decoded
    ├── ModelError                    exit 4
    │   ├── ModelNotFound (FileNotFoundError)
    │   └── NotAModel (ValueError)
    ├── DatasetError (ValueError)     exit 5    an annotated set or corpus is not usable
    ├── OutputError (OSError)         exit 6    cannot write; what was there is untouched
    │   └── OutputBusy                          another process works on it
    ├── MissingDependency (ImportError) exit 7  an optional package is not installed; carries the install line
    ├── StoreError (ValueError)       exit 8    a Zarr store is not one of ours, or not for this slide
    └── ClusterError (RuntimeError)   exit 10   workers died, differ, or cannot be reached (9: slides of a batch failed)

A message says what, where, the value, what was expected and what to do next, in one line.
"""

from __future__ import annotations

import struct
import zlib

FAILURES: tuple[type[Exception], ...] = (
    *(OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, AssertionError),
    *(ArithmeticError, EOFError, SyntaxError, struct.error, zlib.error),
)
"""What libraries raise on damaged files; only calls into them are guarded. SyntaxError: bad XML."""


SOME_FAILED = 9
"""Exit code of a command of whose slides some failed."""


class WsipipeError(Exception):
    """Base of all errors that have a one-line explanation for the user."""

    exit_code = 1


class SettingsError(WsipipeError, ValueError):
    """An option or config value is out of range or contradicts another."""

    exit_code = 2


class SlideError(WsipipeError):
    """Something about one slide."""

    exit_code = 3


class SlideNotFound(SlideError, FileNotFoundError):
    """The path does not exist."""


class UnreadableSlide(SlideError, OSError):
    """No backend opens the file."""


class UnsupportedSlide(SlideError, ValueError):
    """The file opens, but holds something wsipipe does not handle."""


class MissingMpp(SlideError, ValueError):
    """The file does not say its resolution."""


class ImplausibleMpp(SlideError, ValueError):
    """The file's resolution is outside what a microscope gives."""


class SlideChanged(SlideError):
    """The file is not any more what it was when the work on it began."""


class TileReadError(SlideError, OSError):
    """A region of an open slide cannot be decoded."""


class ModelError(WsipipeError):
    """Something about a model file."""

    exit_code = 4


class ModelNotFound(ModelError, FileNotFoundError):
    """No model of that name or path."""


class NotAModel(ModelError, ValueError):
    """The file is not a wsipipe checkpoint."""


class DatasetError(WsipipeError, ValueError):
    """An annotated set or a corpus is not usable as it is."""

    exit_code = 5


class OutputError(WsipipeError, OSError):
    """An output cannot be written; whatever stood there before is untouched."""

    exit_code = 6


class OutputBusy(OutputError):
    """Another process, alive, works on the same output."""


def install_line(extra: str) -> str:
    """Return what installs the optional part *extra* of this software; on PyPI, the name belongs to another project."""
    return f"pip install '.[{extra}]' in the folder of wsipipe's source"


class MissingDependency(WsipipeError, ImportError):
    """An optional package is not installed."""

    exit_code = 7

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependency:
        """Error naming the install line of an optional *package* that *extra* brings."""
        return cls(f"{purpose} needs the package {package}, which is not installed: {install_line(extra)}")


class StoreError(WsipipeError, ValueError):
    """A Zarr store is not one that wsipipe wrote, or belongs to another slide."""

    exit_code = 8


class ClusterError(WsipipeError, RuntimeError):
    """The workers cannot do the work: they die, differ from each other, or cannot be reached."""

    exit_code = 10


def in_words(error: BaseException) -> str:
    """Return what *error*, met while a file was read, means for the file, in one line.

    What Python says to programmers ("list index out of range") is put in words; what a library says for users stays.
    """
    text = str(error).strip().splitlines()
    said = text[0] if text else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, KeyError):
        return f"{said[:60]} is missing"
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if "json.exception" in said:  # shapely's reader of GeoJSON
        return "a geometry in it is not what GeoJSON allows"
    if isinstance(error, ValueError) and said.startswith(("invalid literal", "could not convert")):
        return f"{said.partition(': ')[2][:60]} is no number"
    return next((words for kinds, words in _MEANINGS if isinstance(error, kinds)), said)


_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((LookupError, EOFError, struct.error), "it ends before all that it announces"),
    ((TypeError, AttributeError), "something in it is missing, or of another kind than expected"),
    ((AssertionError, ArithmeticError, RecursionError), "what it says of itself does not fit together"),
)
