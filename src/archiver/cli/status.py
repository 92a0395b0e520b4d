"""``archiver status``: the status of a task."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress

import click

from archiver.cli.options import json_option, quiet_option, servers_option
from archiver.cli.progress import byte_progress
from archiver.cli.signals import interruptible
from archiver.client.api_client import open_client
from archiver.client.api_response import POLL_MAX_S, Accepted, TaskStatus
from archiver.client.deadline import Deadline
from archiver.client.failures import CommandFailed, NotFound, RetryLater, TimedOut
from archiver.client.task_wait import wait_for_task
from archiver.client.text import printable


@click.command("status")
@click.argument("task")
@click.option("--watch", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(min=0),
    default=0,
    help="Seconds to wait for the status to change.  [default: 0]",
)
@quiet_option
@json_option
@servers_option
def command(
    *, task: str, watch: bool, wait_s: int, quiet: bool, as_json: bool, servers: tuple[str, ...]
) -> None:
    """Show the status of TASK, which is a task id or a status URL.

    Exits with 1 if the task failed, and with 3 if there is no such task, or if it failed because
    the repository, the rev or the directory does not exist.
    """
    with interruptible():
        status = _fetch_from_first(servers, task, watch=watch, wait_s=wait_s, quiet=quiet)
    result = _without_links(status)
    try:
        output = json.dumps(result) if as_json else _format_table(result)
    except RecursionError as exc:
        raise CommandFailed("the response is not the status of a task") from exc
    click.echo(output)
    status.raise_if_failed()


def _fetch_from_first(
    servers: Sequence[str], task: str, *, watch: bool, wait_s: int, quiet: bool
) -> TaskStatus:
    """Return the status from the first server that responds."""
    first, *others = servers
    try:
        return _fetch(first, task, watch=watch, wait_s=wait_s, quiet=quiet)
    except RetryLater as exc:
        if not others:
            raise
        click.echo(f"{exc.message}; asking the next server", err=True)
    return _fetch_from_first(others, task, watch=watch, wait_s=wait_s, quiet=quiet)


def _fetch(server: str, task: str, *, watch: bool, wait_s: int, quiet: bool) -> TaskStatus:
    never = Deadline(math.inf, TimedOut("not finished"))
    with open_client(server) as client:
        url = client.status_url(task)
        status = client.fetch_status(url, never)
        _require_task(status)
        if watch:
            with byte_progress(quiet=quiet) as progress:
                accepted = Accepted(status_url=url, retry_after_s=POLL_MAX_S)
                with suppress(CommandFailed):  # the status below says why the task failed
                    wait_for_task(
                        client,
                        accepted,
                        lambda status: progress.update(status.phase, status.bytes_done),
                        never,
                    )
            status = client.fetch_status(url, never)
        if wait_s and status.etag and not status.ended:
            status = client.wait_for_change(url, status, wait_s=wait_s, deadline=never)
        return status


def _require_task(status: TaskStatus) -> None:
    """Raise NotFound if there is nothing to wait for. Archiver calls an unknown task PENDING."""
    if status.state == "PENDING" and status.result.get("created_at", "") is None:
        raise NotFound("there is no such task, or these credentials may not see it")


def _without_links(status: TaskStatus) -> dict[str, object]:
    """Return the status with region names in place of their presigned URLs, which are secrets."""
    result = dict(status.result)
    result.pop("s3_urls", None)
    result["regions"] = sorted(status.presigned_urls)
    return result


def _format_table(result: dict[str, object]) -> str:
    width = max(map(len, result))
    return "\n".join(
        printable(f"{name:<{width}}  {_format_value(value)}")
        for name, value in result.items()
        if value not in (None, [])
    )


def _format_value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict) and {"code", "message"} <= value.keys():
        return f"{value['code']}: {value['message']}"
    return f"{value:,}" if isinstance(value, int) else str(value)
