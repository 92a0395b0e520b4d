"""``archiver verify``: compare an archive with its SHA-256, or with the commit that it is of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

import click

from archiver.cli.options import json_option, quiet_option
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, InvalidUsage, WrongBytes
from archiver.client.lock_file import read_lock
from archiver.client.output import sha256_of
from archiver.client.text import printable

SIDECAR_MAX_BYTES = 1024 * 1024
SUM_HINT = "--sha256, --sums, --lock or --node says which bytes or files it should have."

_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_SUM = re.compile(r"(?P<escaped>\\?)(?P<sha256>[0-9A-Fa-f]{64}) [ *](?P<name>.+)")
"""A line of sha256sum. It begins with a backslash if the name has escapes."""
_ESCAPE = re.compile(r"\\([\\nr])")
_UNESCAPED = {"\\": "\\", "n": "\n", "r": "\r"}


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--node", metavar="ID", help="Full id of the commit.")
@click.option("--subdir", default="", help="Directory of the tree that FILE was requested for.")
@click.option("--sha256", metavar="HEX", help="The SHA-256 of FILE.")
@click.option(
    "--sums",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the SHA-256, as sha256sum writes it.  [default: FILE.sha256]",
)
@click.option(
    "--lock",
    "lock_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Lock file with the SHA-256.",
)
@quiet_option
@json_option
def command(
    *,
    file: Path,
    node: str | None,
    subdir: str,
    sha256: str | None,
    sums: Path | None,
    lock_path: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Verify that FILE is the archive that it should be.

    With --sha256, --sums or --lock, FILE must have these bytes. Without any option, the sum is in
    FILE.sha256.

    With --node, prove that FILE has exactly the files of the git commit ID. FILE is an archive in
    any format that Archiver makes of a git commit. It carries the commit and the trees above the
    directory, and git's ids connect these with ID. The command computes the ids from the files.

    Needs no network, no server and no settings.

    \b
    Exit codes:
      0  verified
      1  FILE cannot be read
      2  wrong usage
      3  not provable: no commit record, or .gitattributes may have changed files
      5  other bytes, other files, another commit, or a damaged archive
    """  # noqa: D301 - click keeps the lines after \b
    with interruptible():
        if not node:
            _require_file(file)
        expected = _expected(file, sha256=sha256, sums=sums, lock_path=lock_path, node=node)
        if expected:
            _compare(file, expected, as_json=as_json and not node, quiet=quiet or bool(node))
        if node:
            _prove(file, node, subdir, quiet=quiet, as_json=as_json)


def _prove(file: Path, node: str, subdir: str, *, quiet: bool, as_json: bool) -> None:
    try:
        from archiver.cli.proof import verify_commit  # noqa: PLC0415 - the client goes without
    except ModuleNotFoundError as exc:
        raise InvalidUsage(f"a proof needs {exc.name}: install source-archiver[server]") from exc
    verify_commit(file, node=node, subdir=subdir, quiet=quiet, as_json=as_json)


def _require_file(file: Path) -> None:
    """Raise CommandFailed if there is no file, before anything says that its sum is missing."""
    try:
        file.stat()
    except OSError as exc:
        raise CommandFailed(f"{file}: {exc.strerror}") from exc


def _expected(
    file: Path, *, sha256: str | None, sums: Path | None, lock_path: Path | None, node: str | None
) -> str:
    """Return the SHA-256 that *file* must have; empty if only *node* says what it is."""
    if len([each for each in (sha256, sums, lock_path) if each is not None]) > 1:
        raise InvalidUsage("--sha256, --sums and --lock exclude each other")
    if sha256 is not None:
        if not _SHA256.fullmatch(sha256):
            raise InvalidUsage("--sha256 must have 64 hexadecimal digits")
        return sha256.lower()
    if lock_path:
        return _from_lock(file, lock_path)
    if node and sums is None:
        return ""
    return _from_sums(file, sums or file.with_name(f"{file.name}.sha256"))


def _from_lock(file: Path, lock_path: Path) -> str:
    entries = read_lock(lock_path)
    named = [(e.file_name(name), e.sha256) for name, e in entries.items() if e.is_locked]
    return _choose(file, lock_path, named)


def _from_sums(file: Path, sums: Path) -> str:
    try:
        with sums.open("rb") as lines:
            content = lines.read(SIDECAR_MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidUsage(f"{sums}: {exc.strerror}", hint=SUM_HINT) from exc
    if len(content) > SIDECAR_MAX_BYTES:
        raise InvalidUsage(f"{sums} has more than {SIDECAR_MAX_BYTES:,} bytes")
    lines_read = content.decode(errors="surrogateescape").split("\n")
    matches = [match for line in lines_read if (match := _SUM.fullmatch(line.rstrip("\r")))]
    return _choose(file, sums, [(_name(match), match["sha256"].lower()) for match in matches])


def _name(match: re.Match[str]) -> str:
    if not match["escaped"]:
        return match["name"]
    return _ESCAPE.sub(lambda escape: _UNESCAPED[escape[1]], match["name"])


def _choose(file: Path, source: Path, named: Sequence[tuple[str, str]]) -> str:
    """Return the SHA-256 that *source* names for the path of *file*, or else for its name.

    Paths are relative to the current folder, or to that of *source*. Raises InvalidUsage if there
    is none, or if they differ.
    """
    path = os.path.abspath(file)  # noqa: PTH100 - links are not to be followed
    folders = (Path(), source.parent)
    same = {
        sha256
        for name, sha256 in named
        if path in {os.path.abspath(folder / name) for folder in folders}  # noqa: PTH100
    }
    found = same or {sha256 for name, sha256 in named if PurePath(name).name == file.name}
    if len(found) != 1:
        problem = "several SHA-256s" if found else "no SHA-256"
        raise InvalidUsage(f"{source} has {problem} for {file.name}", hint=SUM_HINT)
    return found.pop()


def _compare(file: Path, expected: str, *, as_json: bool, quiet: bool) -> None:
    try:
        found = sha256_of(file)
    except OSError as exc:
        raise CommandFailed(f"{file}: {exc.strerror}") from exc
    if as_json:
        document = {"file": str(file), "sha256": found, "expected_sha256": expected}
        click.echo(json.dumps(document))
    if found != expected:
        raise WrongBytes(f"{file} has the SHA-256 {found}, not {expected}")
    if not (quiet or as_json):
        click.echo(printable(f"{file} has the SHA-256 {expected}"))
