"""``archiver get``: ask for an archive, wait for it, download it, verify it."""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click

from archiver.cli.client import Accepted, Client, Located, open_client
from archiver.cli.client import Progress as TaskProgress
from archiver.cli.failures import CommandFailed, RetryLater, TookTooLong
from archiver.cli.options import json_option, server_option
from archiver.cli.progress import Bar, bar

STDOUT = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """What was downloaded, and to where."""

    located: Located
    path: str
    waited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to take in all, and to wait for an archive to be made."""

    timeout_s: float
    wait_s: float | None


@click.command("get")
@click.argument("source")
@click.argument("repo")
@click.argument("rev")
@click.option("--subdir", help="Only this part of the tree.")
@click.option("--suffix", default="tar.gz", show_default=True, help="Format.")
@click.option("--region", help="Preferred region.")
@click.option("-o", "--output", help="File to write; - is standard output. [default: its own name]")
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds, in all.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    help="Seconds to wait for one that has to be made; then it is 75.  [default: --timeout]",
)
@click.option("--quiet", is_flag=True, help="No progress, no summary.")
@json_option
@server_option
def command(  # noqa: PLR0913 - one per option
    *,
    source: str,
    repo: str,
    rev: str,
    subdir: str | None,
    suffix: str,
    region: str | None,
    output: str | None,
    timeout_s: float,
    wait_s: float | None,
    quiet: bool,
    as_json: bool,
    server: str,
) -> None:
    """Download the archive of REV of REPO from SOURCE, made if need be, and verify it.

    \b
    Exit codes:
      0  done             3  not found          5  other bytes than promised
      1  it failed        4  took too long     75  try again later
      2  wrong usage
    """  # noqa: D301 - \b is click's: keep these lines
    if as_json and output == STDOUT:
        raise click.UsageError("--json and -o - would both write to standard output")
    query = {"subdir": subdir, "suffix": suffix, "preferred_region": region}
    began = time.monotonic()
    with bar(quiet=quiet) as shown:
        try:
            limits = Limits(timeout_s=timeout_s, wait_s=wait_s)
            got = asyncio.run(_get(server, (source, repo, rev), query, output, limits, shown))
        except TimeoutError:
            raise TookTooLong(f"not there after {timeout_s:g} s") from None
    _tell(got, time.monotonic() - began, as_json=as_json, quiet=quiet)


async def _get(
    server: str,
    wanted: tuple[str, str, str],
    query: dict[str, str | None],
    output: str | None,
    limits: Limits,
    shown: Bar,
) -> Got:
    async with asyncio.timeout(limits.timeout_s), open_client(server) as client:
        url = client.archive_url(*wanted, query)
        located, waited = await _locate(client, url, limits.wait_s, shown)
        path = output or located.file_name
        shown.show("download", 0, located.size_bytes)
        with _sink(path) as sink:
            await client.download(located, sink, shown.advance)
        return Got(located=located, path=path, waited=waited)


async def _locate(
    client: Client, url: str, wait_s: float | None, shown: Bar
) -> tuple[Located, bool]:
    """Return where the archive is, and whether it had to be waited for.

    Raises:
        RetryLater: It is not there after *wait_s*.
    """

    def report(progress: TaskProgress) -> None:
        shown.show(progress.phase or progress.state, progress.bytes_done)

    waited, patience = False, asyncio.timeout(None)
    try:
        async with patience:
            while isinstance(answer := await client.ask(url), Accepted):
                if wait_s is not None and not waited:
                    patience.reschedule(asyncio.get_running_loop().time() + wait_s)
                waited = True
                await client.wait(answer, report)
    except TimeoutError:
        raise RetryLater(f"it is being made, and not there after {wait_s:g} s") from None
    return answer, waited


@contextmanager
def _sink(path: str) -> Iterator[BinaryIO]:
    """Yield where to write; the file gets its name only if the block ends well."""
    if path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{path}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as exc:
        raise CommandFailed(f"{path}: {exc.strerror}") from exc


def _tell(got: Got, duration_s: float, *, as_json: bool, quiet: bool) -> None:
    located = got.located
    if as_json:
        told = {
            "file": got.path,
            "sha256": located.sha256,
            "size": located.size_bytes,
            "node": located.node,
            "region": located.region,
            "waited": got.waited,
            "duration_s": round(duration_s, 3),
        }
        click.echo(json.dumps(told, indent=2))
    elif not quiet:
        click.echo(
            f"{got.path}: {located.size_bytes:,} bytes from {located.region} in {duration_s:.1f} s,"
            f" sha256 {located.sha256}",
            err=True,
        )
