"""The output of ``archiver demo``: live on a terminal, plain lines in a pipe."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from archiver.client.api_response import ApiResponse, TaskStatus
from archiver.client.text import printable, without_query

INDENT = "   "
NAME_WIDTH = 17
PIPED_WIDTH = 100
LOG_TAIL_LINES = 8


class Screen:
    """Writes to standard output, and records failed checks in ``failures``."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._width = self._console.width if self._console.is_terminal else PIPED_WIDTH
        self.failures: list[str] = []

    def title(self, text: str) -> None:
        self.line()
        self.line(text, "bold")

    def line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(printable(text), style=style))

    def command(self, text: str) -> None:
        self.line(f"{INDENT}{text}", "cyan")

    def request(self, number: int, title: str, url: str) -> None:
        self.line()
        self._console.print(Text.assemble((f"{number}  ", "bold cyan"), (title, "bold")))
        address, question_mark, query = url.partition("?")
        self._console.print(Text.assemble((f"{INDENT}GET ", "bold"), self._fit(address)))
        if query:
            self.line(f"{INDENT}    {question_mark}{query}")

    def response(self, response: ApiResponse, names: Sequence[str], duration_s: float) -> None:
        """Show the status line and the headers in *names*, without signatures."""
        style = "green" if response.status < 400 else "red"  # noqa: PLR2004 - where HTTP's errors begin
        status = printable(f"{response.status} {response.reason}")
        self._console.print(
            Text.assemble(
                (INDENT + status, f"bold {style}"), (f"  {_format_duration(duration_s)}", "dim")
            )
        )
        for name in names:
            if value := response.headers.get(name.lower()):
                self.fact(name, without_query(value) if name == "Location" else value)

    def fact(self, name: str, value: str) -> None:
        self._console.print(
            Text.assemble((f"{INDENT}{name:<{NAME_WIDTH}}", "dim"), self._fit(value))
        )

    def check(self, text: str, *, ok: bool) -> None:
        """Show whether a check passed."""
        sign, style = ("✓", "green") if ok else ("✗", "bold red")
        self._console.print(Text.assemble((f"{INDENT}{sign} ", style), text))
        if not ok:
            self.failures.append(text)

    def members(self, names: Sequence[str], count: int) -> None:
        for name in names:
            self.line(f"{INDENT}  {name}", "dim")
        self.line(f"{INDENT}  … {count - len(names)} more", "dim")

    def _fit(self, value: str) -> str:
        """Return *value* cut in the middle to the width of a line."""
        value = printable(value)
        room = self._width - len(INDENT) - NAME_WIDTH - 1
        half = (room - 1) // 2
        return value if len(value) <= room else f"{value[:half]}…{value[-half:]}"

    @contextmanager
    def timed(self, text: str) -> Iterator[None]:
        """Show *text* while the block runs, and its duration afterwards."""
        began = time.monotonic()
        with self._console.status(text) if self._console.is_terminal else nullcontext():
            yield
        self._console.print(
            Text.assemble(text, (f"  {_format_duration(time.monotonic() - began)}", "dim"))
        )

    @contextmanager
    def task_display(self) -> Iterator[Callable[[TaskStatus], None]]:
        """Yield a function that shows a status: a bar on a terminal, else a line per phase."""
        is_live, shown = self._console.is_terminal, ""
        with Progress(
            TextColumn(INDENT + "{task.description:<13}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not is_live,
        ) as progress:
            task = progress.add_task("PENDING", total=None)

            def show(status: TaskStatus) -> None:
                nonlocal shown
                done = status.bytes_done
                label = status.state if status.ended else status.phase or status.state
                total = done if status.ended else None
                progress.update(task, description=label, completed=done, total=total)
                if not is_live and label != shown:
                    self.fact(label, f"{done / 1e6:.1f} MB")
                shown = label

            yield show

    def log_tails(self, folder: Path) -> None:
        """Show the end of each log, because the logs will be deleted."""
        for path in sorted(folder.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            if last:
                self.title(path.name)
            for line in last:
                self.line(f"{INDENT}{line}", "dim")


def _format_duration(duration_s: float) -> str:
    return f"{duration_s * 1000:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"
