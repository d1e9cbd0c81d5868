"""Patches of all slides, in one fixed order: read and judged by threads, taken in one after the other.

What is kept depends on the slides and the settings alone: not on the number of threads, nor on interruptions.
"""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import NamedTuple, TypeVar

import cv2

from wsipipe.corpus.candidates import Candidates, find_candidates
from wsipipe.corpus.duplicates import Hashes, SeenPatches, hashes
from wsipipe.corpus.exclude import Excluded, Match
from wsipipe.corpus.filters import measure, why_not
from wsipipe.corpus.sources import Source
from wsipipe.corpus.table import Patch
from wsipipe.corpus.write import CorpusWriter, Pixels
from wsipipe.errors import SettingsError, SlideError
from wsipipe.settings import CorpusSettings, SlideSettings, TissueSettings

FEW = 32
"""Slides with no more candidates than this are read by all threads through one handle."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Rules:
    """What decides which patches are kept."""

    settings: CorpusSettings = field(default_factory=CorpusSettings)
    slide: SlideSettings = field(default_factory=SlideSettings)
    tissue: TissueSettings = field(default_factory=TissueSettings)
    image_mpp: float | None = None
    excluded: Excluded | None = None


@dataclass
class Note:
    """What is counted of one slide.

    Attributes
    ----------
    mpp : float
        Resolution of its patches in µm/px.
    kept : int
    dropped : dict
        Number of patches by reason, keys of :data:`~wsipipe.corpus.filters.REASONS`.
    failure : str
        Why the slide could not be used; empty: it could.
    warnings : list of str
        Reasons to doubt it.
    matches : list
        Of patches that were excluded: x_base, y_base, image, overlap, correlation.
    """

    mpp: float = 0.0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    warnings: list[str] = field(default_factory=list)
    matches: list[tuple[int, int, str, float, float]] = field(default_factory=list)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count patches that are not kept."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count


class Outcome(NamedTuple):
    """What became of one candidate: a reason to drop it, or its pixels and hashes."""

    reason: str
    pixels: Pixels | None = None
    hashes: Hashes | None = None
    digest: str = ""
    match: Match | None = None


class Listener:
    """Hears how the collection goes on; this one ignores it."""

    def slide(self, number: int) -> None:
        """Hear that slide *number* begins; those before are done."""

    def say(self, line: str) -> None:
        """Hear a line for the user."""


class Collector:
    """Takes in the patches of all slides.

    Parameters
    ----------
    sources : sequence of Source
    rules : Rules
    writer : CorpusWriter
        Where patches go; it says where to go on after an interruption.
    """

    def __init__(self, sources: Sequence[Source], rules: Rules, writer: CorpusWriter) -> None:
        self.sources, self.rules, self.writer = sources, rules, writer
        self.notes = {number: Note(**note) for number, note in writer.state.notes.items()}
        known = [patch.hash for patch in writer.state.patches]
        self._seen = SeenPatches(rules.settings.duplicates, writer.pixels, known)
        self._touched: set[int] = set()

    def run(self, threads: int, listener: Listener) -> dict[int, Note]:
        """Collect with that many *threads*; return what was counted, by number of the slide.

        Raises
        ------
        OSError
            When the patches cannot be written; whole shards are kept.
        """
        start, first = self.writer.state.position
        pool, inner = ThreadPoolExecutor(threads), cv2.getNumThreads()
        cv2.setNumThreads(1)  # threads of threads would only wait for one another
        try:
            for number, found in ahead(pool, self._find, range(start, len(self.sources)), 2 * threads):
                listener.slide(number)
                self._slide(number, found, first if number == start else 0, pool, 3 * threads, listener)
        finally:
            pool.shutdown(cancel_futures=True)
            cv2.setNumThreads(inner)
        self._commit((len(self.sources), 0))
        return self.notes

    def _find(self, number: int) -> Candidates | str:
        return candidates_of(self.sources[number], self.rules)

    def _slide(
        self, number: int, found: Candidates | str, first: int, pool: ThreadPoolExecutor, depth: int, to: Listener
    ) -> None:
        """Take in the patches of one slide from candidate *first* on."""
        note = self.notes.setdefault(number, Note())
        self._touched.add(number)
        if isinstance(found, str):
            note.failure = found
            to.say(f"skipped {self.sources[number].name}: {found}")
            return
        if first == 0:
            note.mpp, note.warnings = found.mpp, list(found.warnings)
            note.drop("outside", found.outside)
        cap, total = self.rules.settings.cap or len(found.corners), len(found.corners)
        wanted = (i for i in range(first, total) if note.kept < cap)
        judge = Judge(found, self.rules)
        done = first
        for i, outcome in ahead(pool, judge, wanted, depth):
            if note.kept == cap:
                break
            self._patch(number, i, found, outcome)
            done = i + 1
        note.drop("cap", total - done)
        judge.close()

    def _patch(self, number: int, i: int, found: Candidates, outcome: Outcome) -> None:
        """Take in one patch, or count why not."""
        note, (x, y) = self.notes[number], found.base_corner(i)
        if outcome.pixels is None or outcome.hashes is None:
            note.drop(outcome.reason)
            if outcome.match is not None:
                note.matches.append((x, y, *outcome.match))
            return
        if self._seen.find(outcome.hashes, outcome.pixels) is not None:
            note.drop("duplicate")
            return
        own = int(outcome.hashes[0])
        note.kept += 1
        self._seen.add(own)
        if self.writer.append(Patch(number, x, y, found.mpp, own, outcome.digest), outcome.pixels):
            self._commit((number, i + 1))

    def _commit(self, position: tuple[int, int]) -> None:
        self.writer.commit(position, {number: asdict(self.notes[number]) for number in sorted(self._touched)})
        self._touched = {position[0]} & set(self.notes)


def candidates_of(source: Source, rules: Rules) -> Candidates | str:
    """Return the patches that a slide could give, or why it cannot be used."""
    try:
        return find_candidates(source, rules.settings, rules.slide, rules.tissue, rules.image_mpp)
    except (SlideError, SettingsError) as error:
        return " ".join(str(error).split())


class Judge:
    """Reads candidates of one slide and says what becomes of each. Threads share it.

    Slides with many candidates are read through one handle a thread, others through a single one.
    """

    def __init__(self, candidates: Candidates, rules: Rules) -> None:
        self._candidates, self._rules = candidates, rules
        many = len(candidates.corners) > FEW
        self._local, self._frozen = threading.local(), pickle.dumps(candidates.raster) if many else b""
        self._open = [candidates.raster]

    def __call__(self, number: int) -> Outcome:
        """Return what becomes of candidate *number*."""
        candidates, rules = self._mine(), self._rules
        pixels = candidates.read(number)
        if pixels is None:
            return Outcome("unreadable")
        reason = why_not(measure(pixels, candidates.mpp, candidates.look), rules.settings)
        if reason:
            return Outcome(reason)
        match = rules.excluded.find(pixels) if rules.excluded else None
        if match:
            return Outcome("excluded", match=match)
        return Outcome("", pixels, hashes(pixels), hashlib.sha256(pixels.tobytes()).hexdigest()[:32])

    def close(self) -> None:
        """Close all handles of the slide."""
        for raster in self._open:
            raster.close()

    def _mine(self) -> Candidates:
        """Return the candidates with this thread's own raster."""
        if not self._frozen:
            return self._candidates
        if not hasattr(self._local, "candidates"):
            self._local.candidates = self._candidates.with_raster(pickle.loads(self._frozen))
            self._open.append(self._local.candidates.raster)
        mine: Candidates = self._local.candidates
        return mine


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], depth: int
) -> Iterator[tuple[Item, Result]]:
    """Yield each of *items* and what *work* makes of it, in order, with up to *depth* of them under way in *pool*."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= depth:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        for _, future in waiting:
            future.cancel()
