"""Progress bars, drawn on standard error if that is a terminal."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

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


@contextmanager
def _open_bar(phase: str, *columns: ProgressColumn, quiet: bool) -> Iterator[ProgressBar]:
    console = Console(stderr=True)
    name = TextColumn("{task.description:<10}", markup=False)
    disable = quiet or not console.is_terminal
    with Progress(
        name, BarColumn(bar_width=28), *columns, console=console, transient=True, disable=disable
    ) as progress:
        yield ProgressBar(progress=progress, task=progress.add_task(phase, total=None))
