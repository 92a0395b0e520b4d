"""``archiver audit``: whether the hosts would still send what is stored."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import unquote, urlsplit

import click

from archiver.cli.audit_report import as_line, exit_code, show, summary
from archiver.cli.failures import Misused
from archiver.cli.options import config_option, json_option, settings_beside
from archiver.cli.progress import bar
from archiver.cli.signals import interruptible
from archiver.cli.terminal import printable
from archiver.errors import StorageUnavailable
from archiver.model import Archive, parse_task_id
from archiver.settings import Settings, require_regions
from archiver.telemetry import set_up_logging
from archiver.upkeep.audit import Auditor
from archiver.upkeep.finding import Finding, Outcome
from archiver.wiring import open_auditor

SAMPLE = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which archives to audit: the ``named`` ones, if any, else a sample of this ``size``, or all.

    Whoever gives the same ``seed`` gets the same sample of the same archives.
    """

    named: tuple[Archive, ...]
    source: str | None
    size: int | None
    seed: int | None

    async def archives(self, auditor: Auditor, *, quiet: bool) -> AsyncGenerator[Archive, None]:
        if self.named:
            for archive in self.named:
                yield archive
        elif self.size:
            random = Random(self.seed)  # noqa: S311 - whoever knows the seed may know the sample
            with bar(quiet=quiet) as shown:
                shown.show("listing", 0)
                sample = await auditor.sample(self.size, source=self.source, random=random)
            for archive in sample:
                yield archive
        else:
            async with aclosing(auditor.archives(self.source)) as archives:
                async for archive in archives:
                    yield archive


@click.command("audit")
@click.argument("tasks", metavar="[TASK]...", nargs=-1)
@click.option("--sample", type=click.IntRange(1), help=f"How many. [default: {SAMPLE}]")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--source", help="Only archives of this source.")
@click.option("--seed", type=int, help="Number that decides which archives are in the sample.")
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
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
    """Fetch archives anew, and compare them with what is stored. Changes nothing.

    A sample of all that is stored, or each TASK, which is a task id or a status URL. What differs
    is told member by member; --json writes one line for each archive.

    \b
    Exit codes:
      0  all are the same, or just packed otherwise
      1  one differs, is incomplete, corrupt or lost, or is gone from its host
      2  wrong usage
     75  one could not be checked: try again later
    """  # noqa: D301 - \b is click's: keep these lines
    if sum((bool(tasks), everything, sample is not None)) > 1 or (tasks and source):
        raise click.UsageError(
            "TASKs, --all and --sample exclude each other; so do TASKs, --source"
        )
    choice = Choice(
        named=tuple(map(_archive, tasks)),
        source=source,
        size=None if everything else sample or SAMPLE,
        seed=seed,
    )
    settings = settings_beside(config, require=(require_regions,))
    if source and source not in settings.sources:
        raise Misused(f"there is no source {source} in the settings")
    set_up_logging(settings.log.format, level=settings.log.level, process="audit")
    outcomes: Counter[Outcome] = Counter()

    def tell(finding: Finding) -> None:
        outcomes[finding.outcome] += 1
        if as_json:
            click.echo(as_line(finding))
        else:
            show(finding)

    failure = None
    try:
        with interruptible():
            asyncio.run(_audit(settings, choice, tell, quiet=quiet))
    except StorageUnavailable as exc:
        failure = exc
        click.echo(printable(f"Error: {exc.code}: {exc.message}"), err=True)
    if not quiet:
        click.echo(summary(outcomes), err=True)
    click.get_current_context().exit(exit_code(outcomes, complete=failure is None))


def _archive(task: str) -> Archive:
    """Return what *task* is about, by its id or by its status URL."""
    given = urlsplit(task)
    is_url = given.scheme in {"http", "https"}
    archive = parse_task_id(unquote(given.path.rpartition("/")[2]) if is_url else task)
    if archive is None:
        raise Misused(f"{task} is no task")
    return archive


async def _audit(
    settings: Settings, choice: Choice, tell: Callable[[Finding], None], *, quiet: bool
) -> None:
    """Tell of one archive after the other. The bar is gone by then, so it is never written over."""
    async with (
        open_auditor(settings) as auditor,
        aclosing(choice.archives(auditor, quiet=quiet)) as archives,
    ):
        async for archive in archives:
            with bar(quiet=quiet) as shown:
                finding = await auditor.audit(archive, shown.show)
            tell(finding)
