"""Progress bars, drawn on standard error if that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressBar:
    """One line: the current phase and how much of it is done."""

    progress: Progress
    task: TaskID

    def update(self, phase: str, done: int, total: int | None = None) -> None:
        self.progress.update(self.task, description=phase, completed=done, total=total)

    def advance(self, size_bytes: int) -> None:
        self.progress.advance(self.task, size_bytes)


def byte_progress(*, quiet: bool) -> AbstractContextManager[ProgressBar]:
    """Yield a bar of bytes and their rate. It is drawn only on a terminal and unless *quiet*."""
    columns = (DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
    return _open_bar("requesting", *columns, quiet=quiet)


def item_progress() -> AbstractContextManager[ProgressBar]:
    """Yield a bar of counted items and the time left for them, for a terminal."""
    columns = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return _open_bar("listing", *columns, quiet=False)


Report: TypeAlias = Callable[[str, int, int | None], None]
"""Shows a phase, how many items of it are done, and how many there are, if that is known."""

LINE_INTERVAL_S = 10.0


class ProgressLines:
    """Writes a line to standard error at most once per interval."""

    def __init__(self, *, interval_s: float) -> None:
        self._interval_s = interval_s
        self._next = time.monotonic() + interval_s

    def report(self, phase: str, done: int, total: int | None) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._interval_s
            click.echo(f"{phase}: {done:,}{f' of {total:,}' if total else ''}", err=True)


@contextmanager
def open_reporter(*, quiet: bool) -> Iterator[Report]:
    """Yield a function that shows progress: a bar on a terminal, else a line at intervals."""
    if quiet:
        yield lambda _phase, _done, _total: None
    elif Console(stderr=True).is_terminal:
        with item_progress() as bar:
            yield bar.update
    else:
        yield ProgressLines(interval_s=LINE_INTERVAL_S).report


@contextmanager
def _open_bar(phase: str, *columns: ProgressColumn, quiet: bool) -> Iterator[ProgressBar]:
    console = Console(stderr=True)
    name = TextColumn("{task.description:<10}", markup=False)
    disable = quiet or not console.is_terminal
    with Progress(
        name, BarColumn(bar_width=28), *columns, console=console, transient=True, disable=disable
    ) as progress:
        yield ProgressBar(progress=progress, task=progress.add_task(phase, total=None))
