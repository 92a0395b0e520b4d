"""``archiver drain``: have workers finish what they have, and exit."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.drain_report import format_drained, to_json_line, to_json_summary
from archiver.cli.exit_codes import retry_later
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import echo_result
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, NotFound, TimedOut
from archiver.ports.queue import WorkerReport
from archiver.runtime.tasks import concurrently
from archiver.settings import Settings, require_engine
from archiver.upkeep.drain import Drained, Drainer, DrainState
from archiver.wiring.tools import open_drainer


@click.command("drain")
@click.argument("workers", metavar="[WORKER]...", nargs=-1)
@click.option("--all", "everyone", is_flag=True, help="All workers that answer now.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to wait.  [default: until they are gone]",
)
@click.option("--no-wait", is_flag=True, help="Return once the workers have the order.")
@quiet_option
@json_option
@config_option
def command(
    *,
    workers: tuple[str, ...],
    everyone: bool,
    timeout_s: float | None,
    no_wait: bool,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Have each WORKER, named HOST:PID, take no new task, finish what it has, and exit.

    Waits until they are gone. They drain in any case, also if the command ends early.

    \b
    Exit codes:
      0  they are gone; with --no-wait: they drain
      1  a worker is of a release that cannot drain, so it goes on
      2  wrong usage
      3  no such worker answers
      4  not within --timeout
     75  the engine did not respond: run it again
    """  # noqa: D301 - click keeps the lines after \b
    if bool(workers) == everyone:
        raise click.UsageError("Name workers, or all of them with --all.")
    settings = load_settings_or_embedded(config, require=(require_engine,))
    set_up_command_log(settings, "drain")
    started = time.monotonic()

    def on_change(drained: Drained) -> None:
        if as_json or not quiet:
            echo_result(to_json_line(drained) if as_json else format_drained(drained))

    with retry_later(), interruptible():
        states = asyncio.run(
            _drain(settings, workers, on_change, timeout_s=0.0 if no_wait else timeout_s)
        )
    if as_json:
        click.echo(to_json_summary(states, time.monotonic() - started))
    _require_drained(states, no_wait=no_wait)


async def _drain(
    settings: Settings,
    names: Sequence[str],
    on_change: Callable[[Drained], None],
    *,
    timeout_s: float | None,
) -> Sequence[Drained]:
    """Return what has become of the workers. Raises NotFound."""
    async with open_drainer(settings, on_change=on_change) as drainer:
        reports = await drainer.workers()
        await drainer.order(_chosen(reports, names))
        await _wait(drainer, timeout_s)
        return tuple(drainer.states.values())


async def _wait(drainer: Drainer, timeout_s: float | None) -> None:
    async with concurrently(drainer.wait()) as waiting:
        await asyncio.wait({waiting}, timeout=timeout_s)
        if waiting.done():
            waiting.result()


def _chosen(reports: Sequence[WorkerReport], names: Sequence[str]) -> Sequence[WorkerReport]:
    """Return the reports of the workers with these names, or all. Raises NotFound."""
    known = {report.name: report for report in reports}
    if not known:
        hint = "They are gone, or frozen: see `archiver worker`, and engine.url."
        raise NotFound("no worker answers", hint=hint)
    if unknown := [name for name in names if name not in known]:
        raise NotFound(
            f"no worker answers as {', '.join(unknown)}",
            hint=f"These answer: {', '.join(known)}.",
        )
    return [known[name] for name in names or known]


def _require_drained(states: Sequence[Drained], *, no_wait: bool) -> None:
    """Raises CommandFailed."""
    by_state = {state: [d.worker for d in states if d.state is state] for state in DrainState}
    left = [*by_state[DrainState.DRAINING], *by_state[DrainState.SILENT]]
    if left and not no_wait:
        raise TimedOut(
            f"not gone within --timeout: {', '.join(left)}",
            hint="They still drain. Run the same command again to wait for them.",
        )
    if unable := by_state[DrainState.UNSUPPORTED]:
        raise CommandFailed(
            f"of a release that cannot drain: {', '.join(unable)}",
            hint="They go on. End them with SIGTERM: they hand back what does not end in time.",
        )
