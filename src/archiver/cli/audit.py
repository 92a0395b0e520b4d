"""``archiver audit``: compare stored archives with what the hosts send today."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click

from archiver.cli.audit_report import format_summary, print_finding, raise_alarms, to_json_line
from archiver.cli.command_settings import load_settings_or_embedded, set_up_command_log
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.progress import byte_progress
from archiver.cli.signals import interruptible
from archiver.cli.task_argument import parse_task
from archiver.client.failures import InvalidUsage, RetryLater
from archiver.errors import StorageUnavailable
from archiver.model import Archive
from archiver.settings import Settings, SettingsError, require_regions
from archiver.upkeep.audit import Auditor
from archiver.upkeep.finding import Finding, Outcome
from archiver.wiring.tools import open_auditor

SAMPLE_SIZE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Audits ``named`` archives in turn, else a sample of ``sample_size``, else all.

    The same ``seed`` and the same stored archives give the same sample.
    """

    named: tuple[Archive, ...]
    source: str | None
    sample_size: int | None
    seed: int | None
    quiet: bool

    async def report_findings(self, settings: Settings, report: Callable[[Finding], None]) -> None:
        async with (
            open_auditor(settings) as auditor,
            aclosing(self._iter_archives(auditor)) as archives,
        ):
            async for archive in archives:
                with byte_progress(quiet=self.quiet) as progress:
                    finding = await auditor.audit(archive, progress.update)
                report(finding)  # after the progress bar is gone

    async def _iter_archives(self, auditor: Auditor) -> AsyncGenerator[Archive, None]:
        if self.named:
            for archive in self.named:
                yield archive
        elif self.sample_size:
            random = Random(self.seed)  # noqa: S311 - the sample is no secret
            with byte_progress(quiet=self.quiet) as progress:
                progress.update("listing", 0)
                sample = await auditor.sample(self.sample_size, source=self.source, random=random)
            for archive in sample:
                yield archive
        else:
            async with aclosing(auditor.archives(self.source)) as archives:
                async for archive in archives:
                    yield archive


@click.command("audit")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@click.option(
    "--sample",
    type=click.IntRange(1),
    help=f"Number of random archives to audit.  [default: {SAMPLE_SIZE}]",
)
@click.option("--all", "everything", is_flag=True, help="Audit every stored archive.")
@click.option("--source", help="Only archives of this source.")
@click.option("--seed", type=int, help="Number that selects the sample, to repeat an audit.")
@quiet_option
@json_option
@config_option
def command(
    *,
    tasks: tuple[str, ...],
    sample: int | None,
    everything: bool,
    source: str | None,
    seed: int | None,
    quiet: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Compare stored archives with what their hosts send now.

    Audits a random sample, or each TASK, which is a task id or a status URL. Differences are listed
    by member; --json writes one line per archive. The audit changes nothing.

    \b
    Exit codes:
      0  every archive is the same, or differs only in how it is packed
      1  an archive differs, is incomplete, corrupt or lost, or its host no longer has it
      2  wrong usage
     75  an archive could not be checked: try again later
    """  # noqa: D301 - click keeps the lines after \b
    if sum((bool(tasks), everything, sample is not None)) > 1 or (tasks and source):
        raise click.UsageError(
            "TASK, --all and --sample exclude each other, and so do TASK and --source"
        )
    audit = Audit(
        named=tuple(map(parse_task, tasks)),
        source=source,
        sample_size=None if everything else sample or SAMPLE_SIZE,
        seed=seed,
        quiet=quiet,
    )
    settings = load_settings_or_embedded(config, require=(require_regions,), source=source)
    set_up_command_log(settings, "audit")
    outcomes: Counter[Outcome] = Counter()

    def report(finding: Finding) -> None:
        outcomes[finding.outcome] += 1
        if as_json:
            click.echo(to_json_line(finding))
        else:
            print_finding(finding)

    failure = None
    try:
        with interruptible():
            asyncio.run(audit.report_findings(settings, report))
    except SettingsError as exc:
        raise InvalidUsage(str(exc)) from exc
    except StorageUnavailable as exc:
        failure = RetryLater(f"{exc.code}: {exc.message}", code=exc.code)
    if not quiet:
        click.echo(format_summary(outcomes), err=True)
    raise_alarms(outcomes)
    if failure:
        raise failure
