"""``archiver status``: how far a task is."""

import asyncio
import json
from contextlib import suppress

import click

from archiver.cli.answers import POLL_MAX_S, Accepted, Progress
from archiver.cli.client import open_client
from archiver.cli.failures import CommandFailed
from archiver.cli.options import json_option, server_option
from archiver.cli.progress import bar
from archiver.cli.signals import interruptible
from archiver.cli.terminal import printable


@click.command("status")
@click.argument("task")
@click.option("--watch", is_flag=True, help="Wait until it has ended.")
@click.option(
    "--wait",
    "wait_s",
    type=click.IntRange(min=0),
    default=0,
    help="Seconds to wait for it to change.  [default: 0]",
)
@json_option
@server_option
def command(*, task: str, watch: bool, wait_s: int, as_json: bool, server: str) -> None:
    """Say how far TASK is, which is a task id or a status URL.

    Exits with 1 if the task failed, with 3 if that is because there is no such thing.
    """
    with interruptible():
        progress = asyncio.run(_ask(server, task, watch=watch, wait_s=wait_s))
    told = _without_links(progress)
    try:
        shown = json.dumps(told, indent=2) if as_json else _page(told)
    except RecursionError as exc:
        raise CommandFailed("the answer is not the status of a task") from exc
    click.echo(shown)
    progress.check()


async def _ask(server: str, task: str, *, watch: bool, wait_s: int) -> Progress:
    async with open_client(server) as client:
        url = client.status_url(task)
        if watch:
            with bar(quiet=False) as shown:
                accepted = Accepted(status_url=url, retry_after_s=POLL_MAX_S)
                with suppress(CommandFailed):  # the status, asked for next, says why it failed
                    await client.wait(
                        accepted, lambda progress: shown.show(progress.phase, progress.bytes_done)
                    )
        progress = await client.progress(url)
        if wait_s and progress.tag and not progress.ended:
            progress = await client.change(url, progress, wait_s)
        return progress


def _without_links(progress: Progress) -> dict[str, object]:
    """Return the status with the regions in place of their presigned URLs, which are secrets."""
    result = dict(progress.result)
    result.pop("s3_urls", None)
    result["regions"] = sorted(progress.links)
    return result


def _page(told: dict[str, object]) -> str:
    width = max(map(len, told))
    return "\n".join(
        printable(f"{name:<{width}}  {_text(value)}")
        for name, value in told.items()
        if value not in (None, [])
    )


def _text(value: object) -> str:
    match value:
        case list():
            return ", ".join(map(str, value))
        case {"code": code, "message": message}:
            return f"{code}: {message}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)
