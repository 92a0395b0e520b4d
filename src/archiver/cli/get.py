"""``archiver get``: ask for an archive, wait for it, download it, verify it."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

import click

from archiver.cli.answers import Accepted, Located, Progress
from archiver.cli.client import POLL_MIN_S, Client, open_client
from archiver.cli.download import Download
from archiver.cli.failures import CommandFailed, RetryLater, TookTooLong
from archiver.cli.options import json_option, server_option
from archiver.cli.output import STDOUT, check_absent, holds, open_output
from archiver.cli.progress import Bar, bar
from archiver.cli.signals import ending_after, interruptible

MAX_BYTES = 48 * 1024**3
"""The largest archive that any source may have."""
SPARE_S = 1.0
"""For a command that is out of time to end by itself. One that is stuck in a write does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """A finished download."""

    located: Located
    path: str
    waited: bool
    downloaded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of time, of failed downloads in a row, and of size."""

    timeout_s: float
    wait_s: float | None
    retries: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The file to write, if the user named one, and whether an existing one may be replaced."""

    path: str | None
    force: bool


@click.command("get")
@click.argument("source")
@click.argument("repo")
@click.argument("rev")
@click.option("--subdir", help="Only this part of the tree.")
@click.option("--suffix", default="tar.gz", show_default=True, help="Format.")
@click.option("--region", help="Preferred region.")
@click.option(
    "-o",
    "--output",
    help="File, device or FIFO to write; - is standard output. [default: a file of its own name]",
)
@click.option("--force", is_flag=True, help="Replace a file of the archive's own name.")
@click.option("--timeout", "timeout_s", default=900.0, show_default=True, help="Seconds, in all.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    help="Seconds to wait for one that has to be made; then it is 75.  [default: --timeout]",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=4,
    show_default=True,
    help="How often in a row a failed download is tried again.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=MAX_BYTES,
    show_default="48 GiB",
    help="Refuse an archive that is larger.",
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
    force: bool,
    timeout_s: float,
    wait_s: float | None,
    retries: int,
    max_bytes: int,
    quiet: bool,
    as_json: bool,
    server: str,
) -> None:
    """Download the archive of REV of REPO from SOURCE, made if need be, and verify it.

    A download that breaks off is resumed, from another region if need be. A command that gives up
    or is interrupted leaves FILE.DIGEST.part, and the same command continues it.

    \b
    Exit codes:
      0  done             4  took too long                130  interrupted (Ctrl-C)
      1  it failed        5  other bytes than promised    143  terminated
      2  wrong usage     75  try again later
      3  not found
    """  # noqa: D301 - \b is click's: keep these lines
    if as_json and output == STDOUT:
        raise click.UsageError("--json and -o - would both write to standard output")
    if output is not None and (not output or output.endswith("/")):
        raise click.UsageError("-o has to name a file")
    query = {"subdir": subdir, "suffix": suffix, "preferred_region": region}
    limits = Limits(timeout_s=timeout_s, wait_s=wait_s, retries=retries, max_bytes=max_bytes)
    began = time.monotonic()
    with interruptible(), bar(quiet=quiet) as shown:
        get = Get(
            wanted=(source, repo, rev),
            query=query,
            output=Output(path=output, force=force),
            limits=limits,
            shown=shown,
            quiet=quiet,
        )
        why = f"not there after {timeout_s:g} s"
        try:
            with ending_after(timeout_s + SPARE_S, why):
                got = asyncio.run(get.run(server))
        except TimeoutError:
            raise TookTooLong(why) from None
    _tell(got, time.monotonic() - began, as_json=as_json, quiet=quiet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Get:
    """One archive to get. ``wanted`` is source, repo and rev."""

    wanted: tuple[str, str, str]
    query: dict[str, str | None]
    output: Output
    limits: Limits
    shown: Bar
    quiet: bool

    async def run(self, server: str) -> Got:
        """Return what was got, within the time that there is. Raises TimeoutError after it."""
        async with asyncio.timeout(self.limits.timeout_s), open_client(server) as client:
            url = client.archive_url(*self.wanted, self.query)
            located, waited = await self._locate(client, url)
            if located.size_bytes > self.limits.max_bytes:
                raise CommandFailed(
                    f"it has {located.size_bytes:,} bytes, "
                    f"and --max-bytes allows {self.limits.max_bytes:,}"
                )
            path = self.output.path or located.file_name
            if not (there := self._is_there(Path(path), located)):
                located = await self._download(client, located, path)
            return Got(located=located, path=path, waited=waited, downloaded=not there)

    def _is_there(self, path: Path, located: Located) -> bool:
        """Return whether the file is there already, under the name that the server gives it.

        Raises:
            CommandFailed: Something else has that name.
        """
        if self.output.path or self.output.force:
            return False
        if holds(path, located.sha256, located.size_bytes):
            return True
        check_absent(path)
        return False

    async def _download(self, client: Client, located: Located, path: str) -> Located:
        async def locate(node: str, region: str) -> Located:
            source, repo, _ = self.wanted
            query = {**self.query, "preferred_region": region}
            fresh, _ = await self._locate(client, client.archive_url(source, repo, node, query))
            self.shown.show("download", sink.size_bytes, located.size_bytes)
            return fresh

        replace = bool(self.output.path) or self.output.force
        with open_output(
            path, sha256=located.sha256, size_bytes=located.size_bytes, replace=replace
        ) as sink:
            self.shown.show("download", sink.size_bytes, located.size_bytes)
            download = Download(
                client=client, locate=locate, retries=self.limits.retries, tell=self._warn
            )
            return await download.run(located, sink, self.shown.advance)

    def _warn(self, message: str) -> None:
        if not self.quiet:
            click.echo(f"{message}; trying again", err=True)

    async def _locate(self, client: Client, url: str) -> tuple[Located, bool]:
        """Return where the archive is, and whether a task had to make it first.

        Raises:
            RetryLater: It is not there after the seconds to wait for it.
        """

        def report(progress: Progress) -> None:
            self.shown.show(progress.phase or progress.state, progress.bytes_done)

        wait_s = self.limits.wait_s
        waited, patience = False, asyncio.timeout(None)
        try:
            async with patience:
                while isinstance(answer := await client.ask(url), Accepted):
                    if wait_s is not None and not waited:
                        patience.reschedule(asyncio.get_running_loop().time() + wait_s)
                    if waited:
                        await asyncio.sleep(POLL_MIN_S)
                    waited = True
                    await client.wait(answer, report)
        except TimeoutError:
            raise RetryLater(f"it is being made, and not there after {wait_s:g} s") from None
        return answer, waited


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
        size = f"{located.size_bytes:,} bytes"
        came = f"from {located.region} in {duration_s:.1f} s" if got.downloaded else "there already"
        click.echo(f"{got.path}: {size} {came}, sha256 {located.sha256}", err=True)
