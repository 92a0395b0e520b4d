"""What ``archiver demo`` shows: calm on a terminal, plain lines where its output is piped."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from archiver.cli.answers import Answer
from archiver.cli.answers import Progress as TaskProgress
from archiver.cli.secrets import without_query
from archiver.cli.terminal import printable

INDENT = "   "
NAME_WIDTH = 17
PIPED_WIDTH = 100
LINES_OF_A_LOG = 8


class Screen:
    """Writes the demo to standard output, and remembers what did not come out right."""

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

    def request(self, number: int, why: str, url: str) -> None:
        """Announce a request."""
        self.line()
        self._console.print(Text.assemble((f"{number}  ", "bold cyan"), (why, "bold")))
        address, question_mark, query = url.partition("?")
        self._console.print(Text.assemble((f"{INDENT}GET ", "bold"), self._fit(address)))
        if query:
            self.line(f"{INDENT}    {question_mark}{query}")

    def answer(self, answer: Answer, names: Sequence[str], duration_s: float) -> None:
        """Show a status line and those headers that matter, signatures hidden."""
        style = "green" if answer.status < 400 else "red"  # noqa: PLR2004 - where HTTP's errors begin
        status = printable(f"{answer.status} {answer.reason}")
        self._console.print(
            Text.assemble((INDENT + status, f"bold {style}"), (f"  {_time(duration_s)}", "dim"))
        )
        for name in names:
            if value := answer.headers.get(name.lower()):
                self.fact(name, without_query(value) if name == "Location" else value)

    def fact(self, name: str, value: str) -> None:
        self._console.print(
            Text.assemble((f"{INDENT}{name:<{NAME_WIDTH}}", "dim"), self._fit(value))
        )

    def check(self, text: str, *, ok: bool) -> None:
        """Show whether something came out right."""
        sign, style = ("✓", "green") if ok else ("✗", "bold red")
        self._console.print(Text.assemble((f"{INDENT}{sign} ", style), text))
        if not ok:
            self.failures.append(text)

    def regions(self, urls: Mapping[str, str]) -> None:
        """Show a line for each region that has a copy."""
        for region, url in urls.items():
            self.fact(region, without_query(url))

    def members(self, names: Sequence[str], count: int) -> None:
        for name in names:
            self.line(f"{INDENT}  {name}", "dim")
        self.line(f"{INDENT}  … {count - len(names)} more", "dim")

    def _fit(self, value: str) -> str:
        """Return *value* as it fits beside a name: of a long one, both ends."""
        value = printable(value)
        room = self._width - len(INDENT) - NAME_WIDTH - 1
        half = (room - 1) // 2
        return value if len(value) <= room else f"{value[:half]}…{value[-half:]}"

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Say what is being done, and afterwards how long it took."""
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            yield
        self._console.print(Text.assemble(text, (f"  {_time(time.monotonic() - began)}", "dim")))

    @contextmanager
    def watching(self) -> Iterator["Watch"]:
        """Yield what shows a task's progress: a bar for people, else a line per phase."""
        progress = Progress(
            TextColumn(INDENT + "{task.description:<13}", markup=False),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        with progress:
            yield Watch(screen=self, progress=progress)

    @property
    def live(self) -> bool:
        return self._console.is_terminal

    def tail(self, logs: Path) -> None:
        """Show how each log ends, which is all that will be left of them."""
        for path in sorted(logs.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-LINES_OF_A_LOG:]
            if last:
                self.title(path.name)
            for line in last:
                self.line(f"{INDENT}{line}", "dim")


class Watch:
    """Shows a task as its status URL describes it."""

    def __init__(self, *, screen: Screen, progress: Progress) -> None:
        self._screen = screen
        self._progress = progress
        self._task = progress.add_task("PENDING", total=None)
        self._shown = ""
        self.sizes_seen: set[int] = set()

    def report(self, progress: TaskProgress) -> None:
        label = progress.state if progress.ended else progress.phase or progress.state
        self.sizes_seen.add(progress.bytes_done)
        total = progress.bytes_done if progress.ended else None
        self._progress.update(
            self._task, description=label, completed=progress.bytes_done, total=total
        )
        if not self._screen.live and label != self._shown:
            self._screen.fact(label, f"{progress.bytes_done / 1e6:.1f} MB")
        self._shown = label


def _time(duration_s: float) -> str:
    return f"{duration_s * 1000:.0f} ms" if duration_s < 1 else f"{duration_s:.1f} s"
