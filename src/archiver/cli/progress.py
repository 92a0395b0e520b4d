"""Progress bars, drawn on standard error if that is a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class ProgressBar:
    """One line: the current phase and how much of it is done."""

    def __init__(self, *, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, phase: str, done: int, total: int | None = None) -> None:
        self._progress.update(self._task, description=phase, completed=done, total=total)

    def advance(self, size_bytes: int) -> None:
        self._progress.advance(self._task, size_bytes)


@contextmanager
def byte_progress(*, quiet: bool) -> Iterator[ProgressBar]:
    """Yield a bar of bytes and their rate. It is drawn only on a terminal and unless *quiet*."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=28),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with progress:
        yield ProgressBar(progress=progress, task=progress.add_task("requesting", total=None))


@contextmanager
def item_progress() -> Iterator[ProgressBar]:
    """Yield a bar of counted items and the time left for them."""
    progress = Progress(
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        yield ProgressBar(progress=progress, task=progress.add_task("listing", total=None))
