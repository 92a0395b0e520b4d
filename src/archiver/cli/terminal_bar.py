"""A progress bar on a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
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

NARROW, WIDE = 50, 78
"""Columns of a terminal that all parts of the line, or all but the bar, need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalBar:
    """Implements ``cli.progress.ProgressBar`` in one line."""

    progress: Progress
    task: TaskID

    def update(self, phase: str, done: int, total: int | None = None) -> None:
        self.progress.update(self.task, description=phase, completed=done, total=total)

    def advance(self, size_bytes: int) -> None:
        self.progress.advance(self.task, size_bytes)

    def write(self, sentence: object) -> None:
        console = self.progress.console
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def open_bar(phase: str, *, of_bytes: bool) -> Iterator[TerminalBar]:
    """Yield a bar of bytes and their rate, or of counted items and the time left for them."""
    console = Console(stderr=True)
    amount = DownloadColumn() if of_bytes else MofNCompleteColumn()
    times = (
        (TransferSpeedColumn(), TimeElapsedColumn())
        if of_bytes
        else (TimeElapsedColumn(), TimeRemainingColumn())
    )
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description:<10}", markup=False),
        *((BarColumn(bar_width=28),) if console.width >= WIDE else ()),
        amount,
        *(times if console.width >= NARROW else ()),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=False,  # rich would write results to standard error
        redirect_stderr=False,
    ) as progress:
        yield TerminalBar(progress=progress, task=progress.add_task(phase, total=None))
