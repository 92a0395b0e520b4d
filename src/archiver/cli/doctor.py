"""``archiver doctor``: find out what is wrong with the fleet, and what to do about it."""

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click

from archiver import __version__
from archiver.cli.cancellation import cancelled_by_signals
from archiver.cli.command_settings import (
    load_settings_or_embedded,
    set_up_command_log,
    unknown_name,
)
from archiver.cli.doctor_report import (
    format_summary,
    print_finding,
    to_json_line,
    to_json_summary,
)
from archiver.cli.failure_report import print_failure
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.diagnosis.examination import Check, examine
from archiver.diagnosis.finding import Finding, Level, failure, warning, well
from archiver.diagnosis.source_check import Sample
from archiver.settings import (
    Settings,
    access_warnings,
    find_config,
    require_cloud_ranges,
    require_hook_secrets,
    require_outside_world,
    require_tokens,
    retention_warnings,
    setting_variables,
)
from archiver.wiring.diagnosis import create_checks

DEFAULT_REVS = {"git": "HEAD", "hgweb": "tip"}

SETTINGS = "settings"

Report = Callable[[Finding], None]


@click.command("doctor")
@click.option(
    "--role",
    type=click.Choice(("web", "worker")),
    default="worker",
    show_default=True,
    help="Examine what these processes need. A web process may not write.",
)
@click.option(
    "--repo",
    "repos",
    metavar="SOURCE/REPO[@REV]",
    multiple=True,
    help="Resolve a rev of this repository, and request the beginning of an archive. Repeat it.",
)
@quiet_option
@json_option
@config_option
def command(
    *, role: str, repos: tuple[str, ...], quiet: bool, as_json: bool, config: Path | None
) -> None:
    """Examine settings, machine, engine, regions and sources from here, a line for each thing.

    Says what to do about whatever is not well. Leaves nothing behind: the object that it writes to
    each region is removed. With --quiet, prints only what is not well.

    \b
    Exit codes:
      0  nothing failed; there may be warnings
      1  something failed
      2  wrong usage, or a wrong setting: nothing else was examined
    """  # noqa: D301 - click keeps the lines after \b
    started = time.monotonic()
    counts: Counter[Level] = Counter()
    width = len(SETTINGS)

    def report(finding: Finding) -> None:
        counts[finding.level] += 1
        if quiet and finding.level is Level.OK:
            return
        if as_json:
            click.echo(to_json_line(finding))
        else:
            print_finding(finding, check_width=width)

    with interruptible():
        variables = setting_variables()
        settings = _load_settings(config, report)
        samples = _parse_samples(repos, settings)
        set_up_command_log(settings, "doctor", reports=True)
        width = _check_width(settings)
        for finding in _iter_known(config, settings, variables):
            report(finding)
        checks = create_checks(settings, builds=role == "worker", samples=samples)
        asyncio.run(_examine(checks, report))
    _conclude(counts, time.monotonic() - started, quiet=quiet, as_json=as_json)


async def _examine(checks: Sequence[Check], report: Report) -> None:
    with cancelled_by_signals(second_kills=True):
        await examine(checks, report)


def _conclude(counts: Counter[Level], duration_s: float, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        click.echo(to_json_summary(counts, duration_s))
    if not quiet:
        click.echo(format_summary(counts, duration_s), err=True)
    if failed := counts[Level.FAILED]:
        failure = CommandFailed(
            f"{failed} {'check has' if failed == 1 else 'checks have'} failed",
            hint="The line of each says what to do. Then run `archiver doctor` again.",
        )
        if as_json:  # the summary has said so, and is the last document
            print_failure(failure)
            raise SystemExit(failure.exit_code)
        raise failure


def _load_settings(config: Path | None, report: Report) -> Settings:
    """Return the settings. If they are wrong, report that and raise InvalidUsage."""
    require = (require_outside_world, require_cloud_ranges, require_tokens, require_hook_secrets)
    try:
        return load_settings_or_embedded(config, require=require)
    except InvalidUsage as exc:
        found = "; ".join(exc.message.split("\n"))
        action = exc.hint.rstrip(".") or "correct them; `archiver config check` reads them again"
        report(failure(SETTINGS, found, action))
        message = "the settings cannot be used, so nothing else was examined"
        raise InvalidUsage(message) from exc


def _parse_samples(repos: Sequence[str], settings: Settings) -> Mapping[str, Sequence[Sample]]:
    samples: dict[str, list[Sample]] = {}
    for each in repos:
        name, at, rev = each.rpartition("@") if "@" in each else (each, "", "")
        source, slash, repo = name.partition("/")
        if not (slash and repo and bool(at) == bool(rev)):
            raise InvalidUsage(f"{each} is not a source and a repository: use SOURCE/REPO[@REV]")
        if source not in settings.sources:
            raise unknown_name("source", source, settings.sources)
        rev = rev or DEFAULT_REVS[settings.sources[source].kind]
        samples.setdefault(source, []).append(Sample(repo=repo, rev=rev))
    return samples


def _iter_known(
    config: Path | None, settings: Settings, variables: Sequence[str]
) -> Iterator[Finding]:
    """Yield what is known without asking anything."""
    yield well("archiver", f"{__version__}, Python {platform.python_version()}")
    path = find_config(config)
    places = [str(path.absolute()) if path else "the defaults", *variables]
    if set(setting_variables()).difference(variables):
        places.append("the `archiver serve` that runs")
    yield well(SETTINGS, f"valid, from {', '.join(places)}")
    for text in (*access_warnings(settings), *retention_warnings(settings)):
        yield warning(SETTINGS, text, "change that, unless it is meant")


def _check_width(settings: Settings) -> int:
    regions = (f"region.{name}.create_only" for name in settings.regions)
    sources = (f"source.{name}.resolve" for name in settings.sources)
    return max(map(len, (*regions, *sources)))
