"""The log of a training: a CSV file without gaps or repeated rows, however often the training was resumed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsipipe.artifacts import atomic_write
from wsipipe.errors import OutputError

FORMATS = {"step": "d", "lr": ".3e"}


class Log:
    """A CSV file with one row a step.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        The first is ``step``.
    header : bool
        Whether the first line names the columns.
    board : Path, optional
        Folder of a TensorBoard log, written too when TensorBoard is installed.
    """

    def __init__(
        self,
        path: Path,
        columns: Sequence[str] = ("step", "loss", "lr"),
        header: bool = False,
        board: Path | None = None,
    ) -> None:
        self.path, self.columns, self.header = path, columns, header
        self._folder, self._board = board, None

    def rewind(self, step: int) -> None:
        """Drop the rows after *step*, and a last row that a kill cut short."""
        self._board = _board(self._folder, step) if self._folder and has_tensorboard() else None
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        rows = [line for line in lines if line.endswith("\n") and line.split(",")[0].isdecimal()]
        kept = [line for line in rows if int(line.split(",")[0]) <= step]
        with atomic_write(self.path, "w") as file:
            file.write(",".join(self.columns) + "\n" if self.header else "")
            file.writelines(kept)

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row.

        Raises
        ------
        OutputError
        """
        line = ",".join(format(row[name], FORMATS.get(name, ".6f")) for name in self.columns)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(line + "\n")
        except OSError as error:
            raise OutputError(
                f"cannot write {self.path}: {error.strerror}; free some space, then the same command resumes the run"
            ) from error
        if self._board:
            for name in self.columns[1:]:
                self._board.add_scalar(name, row[name], int(row["step"]))

    def close(self) -> None:
        """Write what TensorBoard still holds back."""
        if self._board:
            self._board.close()


def has_tensorboard() -> bool:
    """Whether TensorBoard (extra ``tensorboard``) is installed."""
    return importlib.util.find_spec("tensorboard") is not None


def _board(folder: Path, step: int) -> Any:
    """Return a TensorBoard writer that goes on after *step*."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
