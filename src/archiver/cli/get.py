"""``archiver get``: request an archive, wait for it, download it, verify it."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

import click

from archiver.cli.options import cache_options, json_option, quiet_option, servers_option
from archiver.cli.progress import ProgressBar, byte_progress
from archiver.cli.signals import exit_after, interruptible
from archiver.client.api_response import Located
from archiver.client.archive_get import MAX_BYTES, RETRIES, ArchiveGet, Got, Proof
from archiver.client.archive_request import ArchiveRequest
from archiver.client.cache import Cache
from archiver.client.deadline import Deadline
from archiver.client.extraction import Unpacking
from archiver.client.failures import TimedOut
from archiver.client.lock_values import SUFFIXES
from archiver.client.output import STDOUT
from archiver.client.record_hint import may_carry_record
from archiver.client.servers import open_servers
from archiver.client.text import printable

EXIT_MARGIN_S = 1.0
"""Time for a command past its timeout to end by itself, before a signal ends a blocked write."""


@click.command("get")
@click.argument("source")
@click.argument("repo")
@click.argument("rev")
@click.option("--subdir", default="", help="Only this directory of the tree.")
@click.option(
    "--suffix",
    default="tar.gz",
    show_default=True,
    shell_complete=lambda _context, _option, word: [s for s in SUFFIXES if s.startswith(word)],
    help="Archive format.",
)
@click.option("--submodules", is_flag=True, help="With the files of submodules.")
@click.option("--lfs", is_flag=True, help="With the files of Git LFS, not their pointers.")
@click.option("--region", default="", help="Preferred region.")
@click.option("--sha256", default="", help="Accept only these bytes: 64 hexadecimal digits.")
@click.option(
    "-o",
    "--output",
    help="File, device or FIFO to write; - is standard output.  [default: the archive's own name]",
)
@click.option(
    "--force", is_flag=True, help="Replace an existing file of the archive's own name, or DIR."
)
@click.option(
    "--extract",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Extract into this new folder. Without -o, no other file is left.",
)
@click.option(
    "--strip",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Leave out the first N components of each path.  [default: 0]",
)
@click.option(
    "--include",
    multiple=True,
    metavar="PATTERN",
    help="Extract only such paths, and what is below them; * includes slashes. Repeat it.",
)
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
    default=RETRIES,
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
@cache_options
@quiet_option
@json_option
@servers_option
def command(  # noqa: PLR0913 - one per option
    *,
    source: str,
    repo: str,
    rev: str,
    subdir: str,
    suffix: str,
    submodules: bool,
    lfs: bool,
    region: str,
    sha256: str,
    output: str | None,
    force: bool,
    folder: Path | None,
    strip: int,
    include: tuple[str, ...],
    timeout_s: float,
    wait_s: float | None,
    retries: int,
    max_bytes: int,
    cache_folder: Path | None,
    cache_max_bytes: int,
    quiet: bool,
    as_json: bool,
    servers: tuple[str, ...],
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
    if output and (named := _other_format(output, suffix)):
        raise click.UsageError(f"-o names a {named}, and --suffix is {suffix}")
    if (strip or include) and folder is None:
        raise click.UsageError("--strip and --include need --extract")
    if folder and output == STDOUT:
        raise click.UsageError("--extract and -o - cannot be combined")
    unpacking = (
        Unpacking(folder.absolute(), strip=strip, patterns=include, force=force) if folder else None
    )
    request = ArchiveRequest(
        source=source,
        repo=repo,
        rev=rev,
        subdir=subdir,
        suffix=suffix,
        sha256=sha256,
        region=region,
        submodules=submodules,
        lfs=lfs,
    )
    began = time.monotonic()
    message = f"not finished after {timeout_s:g} s"
    with (
        interruptible(),
        byte_progress(quiet=quiet) as progress,
        ExitStack() as stack,
        exit_after(timeout_s + EXIT_MARGIN_S, message),
    ):
        get = ArchiveGet(
            servers=stack.enter_context(open_servers(servers)),
            events=ShownEvents(progress, quiet=quiet),
            deadline=Deadline(timeout_s, TimedOut(message)),
            prove=_prove,
            wait_s=wait_s,
            retries=retries,
            max_bytes=max_bytes,
            cache=Cache(cache_folder, max_bytes=cache_max_bytes) if cache_folder else None,
        )
        got = get.get(request, output, force=force, unpacking=unpacking)
    _print_result(got, folder, time.monotonic() - began, as_json=as_json, quiet=quiet)


def _other_format(output: str, suffix: str) -> str:
    """Return the format that the name of a file promises, if that is not *suffix*."""
    named = [each for each in SUFFIXES if output.endswith(f".{each}")]
    return named[0] if named and suffix not in named else ""


class ShownEvents:
    """Implements ``client.events.Events`` on standard error. *quiet* leaves out the notices."""

    def __init__(self, progress: ProgressBar, *, quiet: bool) -> None:
        self.update, self.advance = progress.update, progress.advance
        self._write = progress.write
        self._quiet = quiet

    def notice(self, sentence: str) -> None:
        if not self._quiet:
            self._write(sentence)

    def kept(self, part: Path) -> None:
        self._write(f"{part} is kept; the same command resumes it.")


def _prove(path: Path, located: Located, subdir: str, deadline: Deadline) -> Proof | None:
    if not may_carry_record(path):
        return None
    try:
        from archiver.cli.proof import prove  # noqa: PLC0415 - what it imports starts slowly
    except ModuleNotFoundError:  # without source-archiver[server]
        return None
    return prove(path, located, subdir=subdir, deadline=deadline)


def _print_result(
    got: Got, folder: Path | None, duration_s: float, *, as_json: bool, quiet: bool
) -> None:
    located, proof = got.located, got.proof
    if as_json:
        document = {
            "file": got.path,
            **({"folder": str(folder), "files": got.files} if folder else {}),
            "sha256": located.sha256,
            "size": located.size_bytes,
            "node": located.node,
            "region": located.region,
            "proof": proof and proof.verdict,
            "waited": got.waited,
            "duration_s": round(duration_s, 3),
        }
        click.echo(json.dumps(document))
    elif not quiet:
        origin = f"from {located.region} in {duration_s:.1f} s"
        how = origin if got.downloaded else "already downloaded"
        size = f"{located.size_bytes:,} bytes"
        if got.path:
            click.echo(f"{got.path}: {size} {how}, sha256 {located.sha256}", err=True)
        if folder:
            rest = "" if got.path else f": {size} {how}, sha256 {located.sha256}"
            click.echo(f"{folder}: {got.files:,} files{rest}", err=True)
        if proof:
            click.echo(printable(proof.sentence), err=True)
