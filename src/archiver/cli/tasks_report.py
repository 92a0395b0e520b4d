"""The tasks of the fleet as tables, as lines and as JSON."""

from collections.abc import Iterable, Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from archiver.client.text import printable
from archiver.ports.task_list import ListedTask
from archiver.upkeep.census import STATES, Overview

NO_CLIENT = "-"
"""The place of a client that is unknown, or that no task has, as for repairs."""


def tables(overview: Overview) -> Iterator[Table]:
    """Yield the counts that are not empty: by source and state, by code, and by client."""
    sources = sorted({source for _, source in overview.counts})
    if sources:
        yield _table(["source", *STATES], (_counts(overview, source) for source in sources))
    if overview.codes:
        rows = ((code, state, count) for (state, code), count in overview.codes.most_common())
        yield _table(["code", "state", "tasks"], rows)
    if overview.clients:
        yield _table(["client", "open tasks"], overview.clients.most_common())


def _counts(overview: Overview, source: str) -> Sequence[str | int]:
    return [source, *(overview.counts[state, source] for state in STATES)]


def _table(names: Iterable[str], rows: Iterable[Sequence[str | int]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if table.columns else "left")
    for row in rows:
        cells = (f"{cell:,}" if isinstance(cell, int) else escape(printable(cell)) for cell in row)
        table.add_row(*cells)
    return table


def format_task(listed: ListedTask) -> str:
    """Return a line: the state, when the task was created, its client, its id, the last error."""
    task = listed.task
    created = f"{task.created_at:%Y-%m-%d %H:%M:%S}" if task.created_at else "unknown"
    client = printable(listed.client) or NO_CLIENT
    error = f"  {task.error.code}" if task.error else ""
    return f"{task.state:<7}  {created:<19}  {client}  {printable(task.archive.task_id)}{error}"
