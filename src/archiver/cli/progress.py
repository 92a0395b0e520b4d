"""Progress bars, drawn on standard error if that is a terminal, and lines if it is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Optional, Protocol

import click


class ProgressBar(Protocol):
    """Shows the current phase and how much of it is done, and writes sentences above that."""

    def update(self, phase: str, done: int, total: int | None = None) -> None: ...
    def advance(self, size_bytes: int) -> None: ...
    def write(self, sentence: object) -> None: ...


class Hidden:
    """Implements ProgressBar, and shows nothing."""

    def update(self, phase: str, done: int, total: int | None = None) -> None: ...
    def advance(self, size_bytes: int) -> None: ...

    def write(self, sentence: object) -> None:
        click.echo(sentence, err=True)


@contextmanager
def byte_progress(*, quiet: bool) -> Iterator[ProgressBar]:
    """Yield a bar of bytes and their rate: drawn on a terminal, else a line at intervals."""
    if quiet:
        yield Hidden()
    elif _is_terminal():
        with _open_bar("requesting", of_bytes=True) as bar:
            yield bar
    else:
        with _repeated(ProgressLines(interval_s=LINE_INTERVAL_S, unit=" bytes")) as lines:
            yield BarOfLines(lines)


@contextmanager
def item_progress(phase: str, *, quiet: bool) -> Iterator[ProgressBar]:
    """Yield a bar of counted items: drawn on a terminal, else a line at intervals."""
    if quiet:
        yield Hidden()
    elif _is_terminal():
        with _open_bar(phase, of_bytes=False) as bar:
            yield bar
    else:
        with _repeated(ProgressLines(interval_s=LINE_INTERVAL_S)) as lines:
            yield BarOfLines(lines)


Report = Callable[[str, int, Optional[int]], None]
"""Shows a phase, how many items of it are done, and how many there are, if that is known."""

LINE_INTERVAL_S = 10.0


class ProgressLines:
    """Writes a line to standard error at most once per interval."""

    def __init__(self, *, interval_s: float, unit: str = "") -> None:
        self._interval_s = interval_s
        self._unit = unit
        self._line = self._shown = ""
        self._next = time.monotonic() + interval_s

    def report(self, phase: str, done: int, total: int | None) -> None:
        amount = f": {done:,}{f' of {total:,}' if total else ''}{self._unit}"
        self._line = phase + (amount if done or not self._unit else "")
        self._write_if_due(self._line)

    def repeat(self) -> None:
        """Show that the command goes on, although nothing is reported: a server may be silent."""
        line = self._line or "waiting"
        self._write_if_due(f"{line}, no progress" if line == self._shown else line)

    def _write_if_due(self, line: str) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._interval_s
            self._shown = self._line or line
            click.echo(line, err=True)


class BarOfLines:
    """Implements ProgressBar with lines."""

    def __init__(self, lines: ProgressLines) -> None:
        self._lines = lines
        self._phase, self._done = "requesting", 0
        self._total: int | None = None

    def update(self, phase: str, done: int, total: int | None = None) -> None:
        self._phase, self._done, self._total = phase, done, total
        self._lines.report(phase, done, total)

    def advance(self, size_bytes: int) -> None:
        self.update(self._phase, self._done + size_bytes, self._total)

    def write(self, sentence: object) -> None:
        click.echo(sentence, err=True)


@contextmanager
def _repeated(lines: ProgressLines) -> Iterator[ProgressLines]:
    """Yield *lines*, and repeat the last one at intervals in which nothing was reported."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(LINE_INTERVAL_S):
            lines.repeat()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join()


@contextmanager
def open_reporter(*, quiet: bool) -> Iterator[Report]:
    """Yield a function that shows progress: a bar on a terminal, else a line at intervals."""
    if quiet:
        yield lambda _phase, _done, _total: None
    elif _is_terminal():
        with _open_bar("listing", of_bytes=False) as bar:
            yield bar.update
    else:
        with _repeated(ProgressLines(interval_s=LINE_INTERVAL_S)) as lines:
            yield lines.report


@contextmanager
def _open_bar(phase: str, *, of_bytes: bool) -> Iterator[ProgressBar]:
    try:
        from archiver.cli.terminal_bar import open_bar  # noqa: PLC0415 - rich starts slowly
    except ModuleNotFoundError:  # in the client that is one file
        yield Hidden()
        return
    with open_bar(phase, of_bytes=of_bytes) as bar:
        token = _drawn.set(bar)
        try:
            yield bar
        finally:
            _drawn.reset(token)


_drawn: ContextVar[ProgressBar | None] = ContextVar("drawn", default=None)
"""The bar that is on the terminal."""


def echo_result(line: str) -> None:
    """Write a line to standard output, above a bar that is on the same terminal."""
    if not write_above_bar(line):
        click.echo(line)


def write_above_bar(line: object) -> bool:
    """Write a line, or what rich prints, above the bar; return False without a bar."""
    bar = _drawn.get()
    if bar is None or not sys.stdout.isatty():
        return False
    bar.write(line)
    return True


def _is_terminal() -> bool:
    return sys.stderr.isatty()
