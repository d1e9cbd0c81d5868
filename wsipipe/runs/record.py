"""Whose the folder of a training is: written down when it begins, and asked when it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsipipe.artifacts import check_writable, read_json, write_json
from wsipipe.errors import OutputError


def own_folder(
    record: Path, identity: str, about: Mapping[str, Any], weights: tuple[str, str | None, str], begun: bool = True
) -> None:
    """Make the folder of *record* a run's own, or find that it is already.

    Parameters
    ----------
    record : Path
        Where it is written down whose the folder is.
    identity : str
        Digest of what makes a run another run.
    about : mapping
        What else is written down.
    weights : (str, str or None, str)
        Under which key the record holds what identifies the weights that the run starts from, what that is, and the
        option that names them.
    begun : bool
        Whether there is work of the run that *record* tells of; a record alone keeps nobody out.

    Raises
    ------
    OutputError
        The folder holds another run, or the same one begun with other weights.
    """
    check_writable(record)
    there = begun and record.exists()
    before = read_json(record) if there else {}
    if there and before.get("identity") != identity:
        raise OutputError(f"{record.parent} holds another run; choose another -o, or delete it")
    key, now, option = weights
    if before.get(key) and before[key] != now:
        raise OutputError(
            f"{record.parent} holds a run that was begun with other weights of {option}; choose another -o, or delete "
            "it"
        )
    write_json(record, {"identity": identity} | dict(about) | {key: now})
