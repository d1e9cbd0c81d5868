"""Texts from files, errors in words."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import needs_pipes
from wsipipe.analysis import core_names
from wsipipe.analysis.classify import Classifier
from wsipipe.artifacts.plain import readable, text_of
from wsipipe.cli.options import read_config
from wsipipe.corpus.sources import find_sources
from wsipipe.errors import WsipipeError, in_words
from wsipipe.evaluate.scoring_groups import read_groups
from wsipipe.formats.imported import read_drawn
from wsipipe.formats.parquet import metadata
from wsipipe.labels.qupath import read_objects
from wsipipe.segmentation.slides import read_table
from wsipipe.stain.unmix import read_vectors

DOORS: dict[str, Callable[[Path], object]] = {
    "cells": metadata,
    "drawn": read_drawn,
    "objects": read_objects,
    "settings": read_config,
    "classifier": Classifier.load,
    "slides": read_table,
    "sheet.csv": lambda path: find_sources([path]),
    "names.csv": core_names._read,
    "stains.json": read_vectors,
    "groups.csv": lambda path: read_groups(path, []),
}


@needs_pipes
@pytest.mark.parametrize("door", DOORS)
def test_nobody_waits_for_a_pipe_that_nobody_writes_to(door: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / door)
    with pytest.raises(WsipipeError, match="it is a pipe, socket or device, not a file"):
        DOORS[door](tmp_path / door)


@needs_pipes
def test_what_the_shell_makes_of_a_command_is_read() -> None:
    """As in ``--config <(command)``."""
    reads, writes = os.pipe()
    thread = threading.Thread(target=lambda: (os.write(writes, b"text"), os.close(writes)))
    thread.start()
    assert text_of(f"/dev/fd/{reads}") == "text"
    thread.join()
    os.close(reads)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IndexError("list index out of range"), "it ends before all that it announces"),
        (struct.error("unpack requires a buffer of 8 bytes"), "it ends before all that it announces"),
        (KeyError("geometry"), "'geometry' is missing"),
        (TypeError("'NoneType' object is not subscriptable"), "something in it is missing, or of another kind"),
        (AttributeError("'int' object has no attribute 'get'"), "something in it is missing, or of another kind"),
        (ZeroDivisionError("division by zero"), "what it says of itself does not fit together"),
        (ValueError("invalid literal for int() with base 10: 'x'"), "'x' is no number"),
        (ValueError("could not convert string to float: 'x'"), "'x' is no number"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "it is not UTF-8 text"),
        (OSError(2, "No such file or directory", "/a"), "No such file or directory"),
        (ValueError("two\nlines"), "two"),
        (RuntimeError(), "RuntimeError"),
        (
            ValueError("Error parsing JSON: '[json.exception.type_error.302] type must be string'"),
            "a geometry in it is not",
        ),
    ],
)
def test_errors_in_words(error: Exception, said: str) -> None:
    assert in_words(error).startswith(said)


def test_names_that_are_not_utf8_are_written_out() -> None:
    assert readable("a\udcff.svs") == "a\\xff.svs" and readable("é µ.svs") == "é µ.svs"
