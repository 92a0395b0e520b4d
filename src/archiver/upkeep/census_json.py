"""A census as JSON, for the command and for HTTP."""

from datetime import datetime

from archiver.ports.task_list import ListedTask
from archiver.upkeep.catalogue_json import render_name
from archiver.upkeep.census import Overview


def render_task(listed: ListedTask) -> dict[str, object]:
    """Return a task, with its client. Unknown values are None."""
    task = listed.task
    return {
        **render_name(task.archive),
        "state": task.state,
        "phase": task.phase,
        "client": listed.client or None,
        "attempt": task.attempt,
        "failures": task.failures,
        "error": {"code": task.error.code, "message": task.error.message} if task.error else None,
        "created_at": _iso(task.created_at),
        "started_at": _iso(task.started_at),
        "updated_at": _iso(task.updated_at),
    }


def render_counts(overview: Overview) -> dict[str, object]:
    """Return the counts: the largest number of each kind first."""
    return {
        "counts": [
            {"state": state, "source": source, "tasks": count}
            for (state, source), count in overview.counts.most_common()
        ],
        "codes": [
            {"state": state, "code": code, "tasks": count}
            for (state, code), count in overview.codes.most_common()
        ],
        "clients": [
            {"client": client, "tasks": count} for client, count in overview.clients.most_common()
        ],
        "since": _iso(overview.since),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
