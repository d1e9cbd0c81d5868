"""What a run tells whoever watches it."""

from __future__ import annotations


class Progress:
    """Listens to a run; this one ignores everything. The command line draws bars."""

    def start(self, stage: str, total: int) -> None:
        """Hear that *stage* begins, with *total* steps."""

    def advance(self, stage: str, steps: int = 1) -> None:
        """Hear that *steps* of *stage* are done."""

    def say(self, line: str) -> None:
        """Hear a line for the user: a warning, a link."""
