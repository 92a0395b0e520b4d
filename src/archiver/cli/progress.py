"""How far a command is, on a terminal's standard error and nowhere else."""

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


class Bar:
    """One line: what is being done, and how much of it is."""

    def __init__(self, *, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, phase: str, done: int, total: int | None = None) -> None:
        """Say that *phase* is at *done*, of *total* if that is known."""
        self._progress.update(self._task, description=phase, completed=done, total=total)

    def advance(self, size_bytes: int) -> None:
        self._progress.advance(self._task, size_bytes)


@contextmanager
def bar(*, quiet: bool) -> Iterator[Bar]:
    """Yield a bar, which is only drawn for people: on a terminal, and unless *quiet*."""
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
        yield Bar(progress=progress, task=progress.add_task("asking", total=None))


@contextmanager
def counting() -> Iterator[Bar]:
    """Yield a bar of things that are counted, and of the time that is left for them."""
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
        yield Bar(progress=progress, task=progress.add_task("listing", total=None))
