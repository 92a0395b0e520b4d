"""``archiver engine``: show the streams in NATS and change their replicas."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.client.failures import CommandFailed, RetryLater
from archiver.jetstream.replication import StreamStatus, TooFewServers
from archiver.settings import Settings, require_engine
from archiver.wiring.tools import open_replication


@click.group("engine")
def command() -> None:
    """Show the streams in NATS, or change their replicas."""


@command.command("show")
@quiet_option
@json_option
@config_option
def show(*, quiet: bool, as_json: bool, config: Path | None) -> None:
    """Show each stream: its leader, its replicas, its size and its limit.

    \b
    Exit codes:
      0  success
      2  wrong usage
     75  the engine did not respond
    """  # noqa: D301 - click keeps the lines after \b
    settings = _load_settings(config)
    with retry_later():
        streams, differing = asyncio.run(_look_up(settings))
    if as_json:
        for stream in streams:
            click.echo(json.dumps(_to_json(stream)))
    else:
        Console(highlight=False).print(format_table(streams))
    if differing and not quiet:
        setting = f"engine.replicas is {settings.engine.replicas}"
        click.echo(f"{setting}, but another number on {', '.join(differing)}", err=True)


@command.command("set-replicas")
@click.argument("replicas", type=click.Choice(("1", "3", "5")), metavar="N")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1), default=300, show_default=True,
    help="Seconds to wait until all replicas are complete.",
)  # fmt: skip
@quiet_option
@json_option
@config_option
def set_replicas(
    *, replicas: str, timeout_s: float, quiet: bool, as_json: bool, config: Path | None
) -> None:
    """Store each stream on N servers of the cluster.

    N is 1, 3 or 5. Returns when every replica is complete. Safe to run while the fleet works, and
    to repeat.

    \b
    Exit codes:
      0  success
      1  the cluster has fewer servers than N
      2  wrong usage
     75  the engine did not respond, or a replica is incomplete: run it again
    """  # noqa: D301 - click keeps the lines after \b
    settings, number = _load_settings(config), int(replicas)
    try:
        with retry_later():
            changed = asyncio.run(_change(settings, number, timedelta(seconds=timeout_s)))
    except TooFewServers as exc:
        raise CommandFailed(f"{replicas} replicas need {replicas} servers: {exc}") from exc
    if not changed:
        raise RetryLater("there are no streams yet; the first web process or worker creates them")
    if as_json:
        click.echo(json.dumps({"streams": len(changed), "replicas": number}))
    elif not quiet:
        click.echo(f"{len(changed)} streams, {replicas} replicas each", err=True)
    if number != settings.engine.replicas:
        click.echo(f"Set engine.replicas = {replicas} for every process of the fleet.", err=True)


def _load_settings(config: Path | None) -> Settings:
    settings = load_settings_or_embedded(config, require=(require_engine,))
    set_up_command_log(settings, "engine")
    return settings


async def _look_up(settings: Settings) -> tuple[Sequence[StreamStatus], Sequence[str]]:
    """Return all streams, and the names of those whose number of replicas is not the setting."""
    async with open_replication(settings) as replication:
        streams = await replication.status()
        return streams, replication.differing(streams)


async def _change(settings: Settings, number: int, within: timedelta) -> Sequence[StreamStatus]:
    async with open_replication(settings) as replication:
        await replication.set_replicas(number, within=within)
        return await replication.status()


def _to_json(stream: StreamStatus) -> dict[str, object]:
    sizes = {
        "messages": stream.messages,
        "size_bytes": stream.size_bytes,
        "max_bytes": stream.max_bytes,
    }
    consumers = [asdict(consumer) for consumer in stream.consumers]
    return {**asdict(stream.stream), **sizes, "consumers": consumers}


def format_table(streams: Sequence[StreamStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stream")
    table.add_column("leader")
    for name in ("replicas", "complete", "messages", "bytes", "limit", "consumers"):
        table.add_column(name, justify="right")
    for stream in streams:
        state = stream.stream
        counts = (state.replicas, state.current, stream.messages, stream.size_bytes)
        led = sum(consumer.leader is not None for consumer in stream.consumers)
        table.add_row(
            state.name,
            state.leader or "none",
            *(f"{count:,}" for count in counts),
            f"{stream.max_bytes:,}" if stream.max_bytes > 0 else "none",
            f"{led} of {len(stream.consumers)}" if led < len(stream.consumers) else str(led),
        )
    return table
