"""``archiver engine``: the streams in NATS, and on how many servers they are."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console
from rich.table import Table

from archiver.cli.failures import CommandFailed, RetryLater
from archiver.cli.options import config_option, json_option, settings_from
from archiver.errors import ArchiverError
from archiver.jetstream.replication import Replication, StreamStatus, TooFewServers
from archiver.settings import Settings, require_engine
from archiver.telemetry import set_up_logging
from archiver.wiring import open_replication

T = TypeVar("T")


@click.group("engine")
def command() -> None:
    """Look at the streams that Archiver keeps in NATS, or change on how many servers they are."""


@command.command("show")
@json_option
@config_option
def show(*, as_json: bool, config: Path | None) -> None:
    """Show each stream: on how many servers it is, which one leads, and how large it is.

    \b
    Exit codes:
      0  shown
      2  wrong usage
     75  the engine did not answer
    """  # noqa: D301 - \b is click's: keep these lines
    settings = _settings(config)

    async def look(replication: Replication) -> tuple[Sequence[StreamStatus], Sequence[str]]:
        streams = await replication.status()
        return streams, replication.differing(streams)

    streams, differing = _run(settings, look)
    if as_json:
        click.echo(json.dumps([_flat(stream) for stream in streams]))
    else:
        Console(highlight=False).print(as_table(streams))
    if differing:
        here = f"engine.replicas is {settings.engine.replicas} here"
        click.echo(f"{here}, and not on {', '.join(differing)}", err=True)


@command.command("set-replicas")
@click.argument("replicas", type=click.Choice(("1", "3", "5")), metavar="N")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=300, show_default=True,
    help="Seconds to wait until every replica is complete.",
)  # fmt: skip
@config_option
def set_replicas(*, replicas: str, timeout_s: float, config: Path | None) -> None:
    """Put every stream on N servers of the cluster: 1, 3 or 5.

    Returns when each of them has all of it. May be run beside a fleet at work, and again.

    \b
    Exit codes:
      0  done
      1  the cluster has fewer servers than N
      2  wrong usage
     75  the engine did not answer, or a replica is not complete yet: run it again
    """  # noqa: D301 - \b is click's: keep these lines
    settings, number = _settings(config), int(replicas)

    async def change(replication: Replication) -> Sequence[StreamStatus]:
        within = timedelta(seconds=timeout_s)
        await replication.set_replicas(number, within=within)
        return await replication.status()

    try:
        changed = _run(settings, change)
    except TooFewServers as exc:
        raise CommandFailed(f"{replicas} replicas need {replicas} servers: {exc}") from exc
    if not changed:
        raise RetryLater("there are no streams yet; the first web process or worker makes them")
    click.echo(f"{len(changed)} streams, each on {replicas}", err=True)
    if number != settings.engine.replicas:
        click.echo(f"Set engine.replicas = {replicas} for every process of the fleet.", err=True)


def _settings(config: Path | None) -> Settings:
    settings = settings_from(config, require=(require_engine,))
    set_up_logging(settings.log.format, level=settings.log.level, process="engine")
    return settings


def _run(settings: Settings, ask: Callable[[Replication], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_replication(settings) as replication:
            return await ask(replication)

    try:
        return asyncio.run(run())
    except ArchiverError as exc:
        raise RetryLater(f"{exc.code}: {exc.message}") from exc


def _flat(stream: StreamStatus) -> dict[str, object]:
    sizes = {"messages": stream.messages, "size_bytes": stream.size_bytes}
    consumers = [asdict(consumer) for consumer in stream.consumers]
    return {**asdict(stream.stream), **sizes, "consumers": consumers}


def as_table(streams: Sequence[StreamStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stream")
    table.add_column("leader")
    for name in ("replicas", "complete", "messages", "bytes", "consumers"):
        table.add_column(name, justify="right")
    for stream in streams:
        standing = stream.stream
        counts = (standing.replicas, standing.current, stream.messages, stream.size_bytes)
        led = sum(consumer.leader is not None for consumer in stream.consumers)
        table.add_row(
            standing.name,
            standing.leader or "none",
            *(f"{count:,}" for count in counts),
            f"{led} of {len(stream.consumers)}" if led < len(stream.consumers) else str(led),
        )
    return table
