"""A viewer for each of several slides, opened when somebody looks at it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wsipipe.errors import WsipipeError
from wsipipe.slide import Slide
from wsipipe.view.answers import Shown, routes
from wsipipe.view.index import CellIndex
from wsipipe.view.replies import answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = 4
"""Slides that are open at a time."""


@dataclass(eq=False)
class _Viewer:
    """A viewer, what is closed with it, and how many requests it is answering."""

    app: ASGIApp
    held: ExitStack
    busy: int = 0
    gone: bool = False


@dataclass(eq=False)
class SlideViewers:
    """Answers what a page asks of the slide of a number: the viewer of that slide, as `wsipipe view` shows it.

    Parameters
    ----------
    names : sequence of str
    masters : sequence of Path
        The cells of each.
    open_slide : callable
        Opens the slide of that number.
    """

    names: tuple[str, ...]
    masters: tuple[Path, ...]
    open_slide: Callable[[int], Slide]
    _viewers: OrderedDict[int, _Viewer] = field(default_factory=OrderedDict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request below an address whose parameter ``number`` says which slide."""
        from starlette.concurrency import run_in_threadpool

        number = scope["path_params"]["number"]
        if number >= len(self.masters):
            await answer(None)(scope, receive, send)
            return
        try:
            viewer = await run_in_threadpool(self._taken, number)
        except WsipipeError as error:
            await answer(f"{error}\n".encode(), status=500)(scope, receive, send)
            return
        try:
            await viewer.app(scope, receive, send)
        finally:
            await run_in_threadpool(self._given, viewer)

    def close(self) -> None:
        """Close the slides that nobody looks at, and the others after that."""
        with self._turn:
            while self._viewers:
                self._drop(self._viewers.popitem()[1])

    def _taken(self, number: int) -> _Viewer:
        """Return the viewer of a slide; of too many, the one that was longest not looked at is closed."""
        with self._turn:
            if number not in self._viewers:
                self._viewers[number] = self._opened(number)
            viewer = self._viewers[number]
            self._viewers.move_to_end(number)
            viewer.busy += 1
            while len(self._viewers) > OPEN:
                self._drop(self._viewers.popitem(last=False)[1])
            return viewer

    def _given(self, viewer: _Viewer) -> None:
        with self._turn:
            viewer.busy -= 1
            if viewer.gone and not viewer.busy:
                viewer.held.close()

    def _drop(self, viewer: _Viewer) -> None:
        viewer.gone = True
        if not viewer.busy:
            viewer.held.close()

    def _opened(self, number: int) -> _Viewer:
        from starlette.routing import Router

        with ExitStack() as held:
            slide = held.enter_context(self.open_slide(number))
            shown = Shown(slide, self.names[number], CellIndex(self.masters[number]))
            return _Viewer(Router(routes(shown)), held.pop_all())
