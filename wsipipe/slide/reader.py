"""What all file readers share: clipping, transparency, the error latch, pickling, locking."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import FAILURES, SettingsError, SlideError, TileReadError, UnreadableSlide, in_words
from wsipipe.geometry import LARGEST, LONGEST, intersect, is_empty
from wsipipe.settings import SlideSettings
from wsipipe.slide.planes import refuse_plane
from wsipipe.slide.protocol import Level, MppSource, SlideInfo
from wsipipe.slide.resolution import concerns
from wsipipe.slide.sampling import Stamp, changed, stamp
from wsipipe.units import Size

Handle = TypeVar("Handle")


class Reader(ABC, Generic[Handle]):
    """Base of the readers of files: a library's handle behind the :class:`~wsipipe.slide.protocol.Slide` protocol.

    A reader says how to open (:meth:`_open`), what the file holds (:meth:`_describe`) and how to read a box that lies
    within a level (:meth:`_read`). One object may be shared by threads, which then take turns; for speed, open one per
    thread.
    """

    name: ClassVar[str]
    failures: ClassVar[tuple[type[Exception], ...]] = FAILURES
    """What the library raises when it cannot open or decode."""

    def __init__(self, path: str, settings: SlideSettings) -> None:
        self._path, self._settings = path, settings
        self._lock = threading.Lock()
        self._closed = False
        self.stamp = self._stamp_now()
        self._handle: Handle | None = self._open()
        try:
            self._info = _finish(self._describe(self._handle), settings)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _open(self) -> Handle:
        """Return an open handle, or raise the library's own error."""

    @abstractmethod
    def _describe(self, handle: Handle) -> SlideInfo:
        """Return what the file says of itself."""

    @abstractmethod
    def _read(self, handle: Handle, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return (height, width, 3) RGB or (height, width, 4) RGBA pixels of a box inside *level*."""

    @abstractmethod
    def _release(self, handle: Handle) -> None:
        """Close *handle*."""

    def _stamp_now(self) -> Stamp:
        """Return size and time of the file, to notice when another one takes its place; not asked of servers."""
        return Stamp(0, 0) if "://" in self._path else stamp(self._path)

    def _check_same(self, was: Stamp) -> None:
        if (now := self._stamp_now()) != was:
            raise changed(self._path, was, now)

    @property
    def info(self) -> SlideInfo:
        """What the file says of itself, after the settings' overrides."""
        return self._info

    def read_region(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Return RGB pixels (height, width, 3) of *level*; see :class:`~wsipipe.slide.protocol.Slide`."""
        inside = clip_to_level(self._info, level, x, y, width, height)
        out = blank(self._info, width, height)
        if is_empty(inside):
            return out
        x0, y0, x1, y1 = inside
        with self._lock:
            pixels = self._guarded_read(level, x0, y0, x1 - x0, y1 - y0)
        out[y0 - y : y1 - y, x0 - x : x1 - x] = flatten(pixels, self._info.background)
        return out

    def _guarded_read(self, level: int, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Read, and after any error drop the handle: OpenSlide's latches its first error. The next read reopens.

        Raises
        ------
        TileReadError
        SlideChanged, SlideNotFound
            When there is another file by then, or none.
        """
        if self._closed:
            raise SlideError(f"{self._path} was closed; open it again to read")
        if self._handle is None:
            self._check_same(self.stamp)
        try:
            if self._handle is None:
                self._handle = self._open()
            return self._read(self._handle, level, x, y, width, height)
        except self.failures as error:
            self._drop()
            where = f"level {level}, x {x} y {y}, {width} x {height} px"
            raise TileReadError(f"{self._path}: cannot decode {where}: {in_words(error)}") from error

    def _drop(self) -> None:
        """Forget the handle, closing it where the library still can."""
        handle, self._handle = self._handle, None
        if handle is None:
            return
        try:
            self._release(handle)
        except self.failures:
            return

    def close(self) -> None:
        """Release the file; reading afterwards is an error."""
        self._closed = True
        self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def tell(self, line: str) -> None:
        """Add a line to the warnings of the slide."""
        self._info = replace(self._info, warnings=(*self._info.warnings, line))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._settings), (self.stamp, self._info.warnings)

    def __setstate__(self, state: tuple[Stamp, tuple[str, ...]]) -> None:
        """Check that a copy has opened the same file."""
        was, warnings = state
        try:
            self._check_same(was)
        except SlideError:
            self.close()
            raise
        self._info = replace(self._info, warnings=warnings)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"


def _finish(info: SlideInfo, settings: SlideSettings) -> SlideInfo:
    """Return *info* with the settings' scene and plane checked, their mpp in place, and warnings about resolution."""
    _refuse_endless(info)
    if settings.scene >= len(info.scenes):
        raise SettingsError(f"{info.path} has no scene {settings.scene}; it has {len(info.scenes)}: {scene_list(info)}")
    refuse_plane(info.path, settings.plane, info.planes)
    if settings.mpp is not None:
        info = replace(info, mpp=(settings.mpp, settings.mpp), mpp_source=MppSource.OVERRIDE)
    return replace(info, warnings=(*info.warnings, *concerns(info)))


def _refuse_endless(info: SlideInfo) -> None:
    """Stop at a slide of a size that no scanner writes: a damaged header, and whatever is made of it has no end."""
    for size in (level.size for level in info.levels):
        if max(size) > LONGEST or math.prod(size) > LARGEST:
            raise UnreadableSlide(
                f"{info.path} says that it is {size[0]:,} x {size[1]:,} px, larger than any slide "
                f"({LONGEST:,} px a side, {LARGEST:,.0f} px in all): its header is damaged; copy it again"
            )


def scene_list(info: SlideInfo) -> str:
    """Return the scenes of *info* as ``0 'first', 1 'second'``."""
    return ", ".join(f"{i} {name!r}" for i, name in enumerate(info.scenes))


def clip_to_level(info: SlideInfo, level: int, x: int, y: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the part of a level box that lies on the slide, or raise when the request makes no sense."""
    if not 0 <= level < len(info.levels):
        raise SettingsError(f"{info.path} has no level {level}; expected 0 to {len(info.levels) - 1}")
    if width < 0 or height < 0:
        raise SettingsError(f"a region of {width} x {height} px cannot be read; expected sizes of 0 or more")
    return intersect((x, y, x + width, y + height), (0, 0, *info.levels[level].size))


def blank(info: SlideInfo, width: int, height: int) -> NDArray[np.uint8]:
    """Return (height, width, 3) pixels of the slide's background colour."""
    return np.broadcast_to(np.asarray(info.background, np.uint8), (height, width, 3)).copy()


def flatten(pixels: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return RGB of (H, W, 3 or 4) pixels; straight (not premultiplied) alpha is composited onto *background*."""
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[..., 3:]
    if alpha.size == 0 or alpha.min() == 255:
        return pixels[..., :3]
    a = alpha.astype(np.uint16)
    mixed = pixels[..., :3] * a + np.asarray(background, np.uint16) * (255 - a)
    return ((mixed + 127) // 255).astype(np.uint8)


def pyramid(sizes: list[Size]) -> tuple[Level, ...]:
    """Return levels with their downsamples, from the levels' sizes, finest first.

    File sizes are rounded, so the ratio of sizes is not the true downsample: 2967 px halve to 1483, which is 2.0007.
    Where whole factors explain the sizes of both axes (rounded down or up), they are taken.
    """
    (width, height), levels = sizes[0], []
    for w, h in sizes:
        factor = round((width / w + height / h) / 2)
        whole = factor >= 1 and _explains(factor, width, w) and _explains(factor, height, h)
        levels.append(Level((w, h), (float(factor), float(factor)) if whole else (width / w, height / h)))
    return tuple(levels)


def _explains(factor: int, full: int, small: int) -> bool:
    return full // factor <= small <= -(-full // factor)
