"""``archiver get``: request an archive, wait for it, download it, verify it."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import click

from archiver.cli.options import json_option, server_option
from archiver.cli.progress import ProgressBar, byte_progress
from archiver.cli.signals import exit_after, interruptible
from archiver.client.api_client import ApiClient, open_client
from archiver.client.api_response import Accepted, Located, TaskStatus
from archiver.client.deadline import Deadline
from archiver.client.download import ResumableDownload
from archiver.client.failures import CommandFailed, LimitReached, RetryLater, TimedOut, WrongBytes
from archiver.client.output import STDOUT, is_complete, open_output, require_absent
from archiver.client.task_wait import POLL_MIN_S, wait_for_task
from archiver.client.text import printable

MAX_BYTES = 48 * 1024**3
"""The largest archive that any source may have."""
EXIT_MARGIN_S = 1.0
"""Time for a command past its timeout to end by itself, before a signal ends a blocked write."""


@click.command("get")
@click.argument("source")
@click.argument("repo")
@click.argument("rev")
@click.option("--subdir", help="Only this directory of the tree.")
@click.option("--suffix", default="tar.gz", show_default=True, help="Archive format.")
@click.option("--region", help="Preferred region.")
@click.option("--sha256", help="Accept only these bytes: 64 hexadecimal digits.")
@click.option(
    "-o",
    "--output",
    help="File, device or FIFO to write; - is standard output.  [default: the archive's own name]",
)
@click.option("--force", is_flag=True, help="Replace an existing file of the archive's own name.")
@click.option(
    "--timeout",
    "timeout_s",
    default=900.0,
    show_default=True,
    help="Seconds for the whole command.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    help="Seconds to wait while the archive is built; then exit with 75.  [default: --timeout]",
)
@click.option(
    "--retries",
    type=click.IntRange(0, 100),
    default=4,
    show_default=True,
    help="Number of failed downloads in a row to retry.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1),
    default=MAX_BYTES,
    show_default="48 GiB",
    help="Reject a larger archive.",
)
@click.option("--quiet", is_flag=True, help="Print no progress and no summary.")
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
    sha256: str | None,
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
    """Download the archive of REV of REPO from SOURCE, and verify it.

    If the archive does not exist yet, the command waits until it is built.

    A failed download is resumed, from another region if necessary. If the command gives up or is
    interrupted, it leaves FILE.SHA256.part, and the same command resumes it.

    \b
    Exit codes:
      0  success          4  timed out                    130  interrupted (Ctrl-C)
      1  failure          5  wrong bytes downloaded       143  terminated
      2  wrong usage     75  try again later
      3  not found
    """  # noqa: D301 - click keeps the lines after \b
    if as_json and output == STDOUT:
        raise click.UsageError("--json and -o - would both write to standard output")
    if output is not None and (not output or output.endswith("/")):
        raise click.UsageError("-o must name a file")
    query = {"subdir": subdir, "suffix": suffix, "preferred_region": region, "sha256": sha256}
    began = time.monotonic()
    message = f"not finished after {timeout_s:g} s"
    with (
        interruptible(),
        byte_progress(quiet=quiet) as progress,
        open_client(server) as client,
        exit_after(timeout_s + EXIT_MARGIN_S, message),
    ):
        get = GetArchive(
            client=client,
            source=source,
            repo=repo,
            query=query,
            output=output,
            force=force,
            deadline=Deadline(timeout_s, TimedOut(message)),
            wait_s=wait_s,
            retries=retries,
            max_bytes=max_bytes,
            progress=progress,
            quiet=quiet,
        )
        result = get.locate_and_download(rev)
    _print_result(result, time.monotonic() - began, as_json=as_json, quiet=quiet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The verdict on an archive that carries a commit record, and a sentence about it."""

    verdict: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetResult:
    """An archive that is complete at ``path``. ``proof`` needs a commit record."""

    located: Located
    path: str
    waited: bool
    downloaded: bool
    proof: Proof | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GetArchive:
    """Gets one archive before the deadline. ``output`` is the path that the user named, if any."""

    client: ApiClient
    source: str
    repo: str
    query: dict[str, str | None]
    output: str | None
    force: bool
    deadline: Deadline
    wait_s: float | None
    retries: int
    max_bytes: int
    progress: ProgressBar
    quiet: bool

    def locate_and_download(self, rev: str) -> GetResult:
        url = self.client.archive_url(self.source, self.repo, rev, self.query)
        located, waited = self._locate(url)
        self._require_wanted(located)
        if located.size_bytes > self.max_bytes:
            raise CommandFailed(
                f"the archive has {located.size_bytes:,} bytes; "
                f"--max-bytes allows {self.max_bytes:,}"
            )
        path = self.output or located.file_name
        if exists := self._exists(Path(path), located):
            proof = self._prove(Path(path), located)
        else:
            located, proof = self._download(located, path)
        return GetResult(
            located=located, path=path, waited=waited, downloaded=not exists, proof=proof
        )

    def _require_wanted(self, located: Located) -> None:
        """Raise WrongBytes if the server leads to other bytes than the user insists on.

        It would not, but the download is compared with the sum that the server names.
        """
        wanted = (self.query["sha256"] or located.sha256).lower()
        if located.sha256 != wanted:
            raise WrongBytes(f"the server offers the SHA-256 {located.sha256}, not {wanted}")

    def _exists(self, path: Path, located: Located) -> bool:
        """Return whether the file is complete. Raises CommandFailed if another one exists."""
        if self.output or self.force:
            return False
        if is_complete(path, located.sha256, located.size_bytes):
            return True
        require_absent(path)
        return False

    def _download(self, located: Located, path: str) -> tuple[Located, Proof | None]:
        """Download the archive, and prove it before the file gets its name."""

        def locate(node: str, region: str) -> Located:
            query = {**self.query, "preferred_region": region}
            fresh, _ = self._locate(self.client.archive_url(self.source, self.repo, node, query))
            self.progress.update("download", writer.size_bytes, located.size_bytes)
            return fresh

        with open_output(
            path,
            sha256=located.sha256,
            size_bytes=located.size_bytes,
            replace=bool(self.output) or self.force,
            on_kept=_print_kept,
        ) as writer:
            self.progress.update("download", writer.size_bytes, located.size_bytes)
            download = ResumableDownload(
                client=self.client,
                locate=locate,
                retries=self.retries,
                on_retry=self._print_retry,
                deadline=self.deadline,
            )
            located = download.fetch(located, writer, self.progress.advance)
            stored = writer.stored_path()
            return located, self._prove(stored, located) if stored else None

    def _prove(self, path: Path, located: Located) -> Proof | None:
        """Return the proof of an archive that carries a commit record. Raises WrongBytes."""
        try:
            from archiver.cli.proof import prove  # noqa: PLC0415 - what it imports starts slowly
        except ModuleNotFoundError:  # without source-archiver[server]
            return None
        self.progress.update("proving", 0)
        subdir = (self.query["subdir"] or "").strip("/")
        return prove(path, located, subdir=subdir, deadline=self.deadline)

    def _print_retry(self, message: str) -> None:
        if not self.quiet:
            click.echo(f"{message}; trying again", err=True)

    def _locate(self, url: str) -> tuple[Located, bool]:
        """Return where the archive is, and whether its task had to end first."""

        def report(status: TaskStatus) -> None:
            self.progress.update(status.phase or status.state, status.bytes_done)

        waited, deadline, limit = False, self.deadline, None
        while not isinstance(location := self._try_locate(url, deadline), Located):
            if deadline is self.deadline and self.wait_s is not None:
                deadline = self._patience(self.wait_s, location)
            if isinstance(location, LimitReached):
                self._print_limit(location, limit)
                limit = location
                deadline.sleep(limit.pause_s)
                continue
            if waited:
                deadline.sleep(POLL_MIN_S)
            waited = True
            wait_for_task(self.client, location, report, deadline)
        return location, waited

    def _patience(self, wait_s: float, location: Accepted | LimitReached) -> Deadline:
        """Return the deadline of a wait that begins now."""
        failure = (
            location
            if isinstance(location, LimitReached)
            else RetryLater(f"the archive is still being built after {wait_s:g} s")
        )
        return Deadline(wait_s, failure, within=self.deadline)

    def _try_locate(self, url: str, deadline: Deadline) -> Located | Accepted | LimitReached:
        try:
            return self.client.locate(url, deadline)
        except LimitReached as exc:
            return exc

    def _print_limit(self, limit: LimitReached, earlier: LimitReached | None) -> None:
        """Say once why the command waits."""
        if earlier is None and not self.quiet:
            click.echo(f"{limit.message}; waiting", err=True)


def _print_kept(part: Path) -> None:
    click.echo(f"{part} is kept; the same command resumes it.", err=True)


def _print_result(result: GetResult, duration_s: float, *, as_json: bool, quiet: bool) -> None:
    located, proof = result.located, result.proof
    if as_json:
        document = {
            "file": result.path,
            "sha256": located.sha256,
            "size": located.size_bytes,
            "node": located.node,
            "region": located.region,
            "proof": proof and proof.verdict,
            "waited": result.waited,
            "duration_s": round(duration_s, 3),
        }
        click.echo(json.dumps(document, indent=2))
    elif not quiet:
        origin = f"from {located.region} in {duration_s:.1f} s"
        how = origin if result.downloaded else "already downloaded"
        size = f"{located.size_bytes:,} bytes"
        click.echo(f"{result.path}: {size} {how}, sha256 {located.sha256}", err=True)
        if proof:
            click.echo(printable(proof.sentence), err=True)
