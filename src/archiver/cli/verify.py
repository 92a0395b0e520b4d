"""``archiver verify``: prove an archive by its commit record and the id of the commit."""

import asyncio
import json
from pathlib import Path

import click

from archiver.cli.options import json_option
from archiver.cli.signals import interruptible
from archiver.client.failures import CommandFailed, InvalidUsage, WrongBytes
from archiver.client.text import printable
from archiver.errors import BadArchive, InvalidRequest
from archiver.formats.commit_proof import CommitProof, Verdict, prove_commit
from archiver.model import NODE_ALLOWED, parse_node

PATHS_MAX = 20
"""Paths that are printed; the JSON has more."""


class Unprovable(CommandFailed):
    """Nothing is wrong with the file, but it does not prove itself."""

    exit_code = 3


@click.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--node", required=True, metavar="ID", help="Full id of the commit.")
@click.option("--subdir", default="", help="Directory of the tree that FILE was requested for.")
@json_option
def command(*, file: Path, node: str, subdir: str, as_json: bool) -> None:
    """Prove that FILE has exactly the files of the git commit ID.

    Needs nothing but FILE: no network, no server and no settings. FILE is an archive in any format
    that Archiver makes of a git commit. It carries the commit and the trees above the directory,
    and git's ids connect these with ID. The command computes the ids from the files.

    \b
    Exit codes:
      0  proven
      2  wrong usage
      3  not provable: no commit record, or .gitattributes may have changed files
      5  other files, another commit, or a damaged archive
    """  # noqa: D301 - click keeps the lines after \b
    full = parse_node(node)
    if full is None:
        raise InvalidUsage(f"--node must be a full id: {NODE_ALLOWED}")
    if file.exists() and not file.is_file():
        raise InvalidUsage(f"{file} must be a regular file: a pipe cannot be read twice")
    try:
        with interruptible():
            proof = asyncio.run(prove_commit(file, node=full, subdir=subdir.strip("/")))
    except InvalidRequest as exc:
        raise InvalidUsage(f"--subdir: {exc.message} (allowed: {exc.allowed})") from exc
    except BadArchive as exc:
        raise WrongBytes(f"{file}: {exc.code}: {exc.message}") from exc
    if as_json:
        click.echo(json.dumps(_to_json(proof, file, full, subdir), indent=2))
    _report(proof, file, full, quiet=as_json)


def _report(proof: CommitProof, file: Path, node: str, *, quiet: bool) -> None:
    """Print the result of a proof, or raise the failure that it means for the command."""
    match proof.verdict:
        case Verdict.PROVEN:
            if not quiet:
                click.echo(printable(f"proven: {file} has exactly the files of commit {node}"))
        case Verdict.UNPROVABLE:
            raise Unprovable(f"{file} cannot be proven to be of {node}: {describe(proof)}")
        case Verdict.DIFFERS | Verdict.CONTRADICTS:
            raise WrongBytes(f"{file} is not of {node}: {describe(proof)}")


def describe(proof: CommitProof) -> str:
    """Return the reason of a verdict, and the first paths that differ."""
    if not proof.paths:
        return proof.reason
    shown = ", ".join(printable(_decode(path)) for path in proof.paths[:PATHS_MAX])
    more = ", …" if len(proof.paths) > PATHS_MAX else ""
    return f"{proof.reason}; these differ: {shown}{more}"


def _to_json(proof: CommitProof, file: Path, node: str, subdir: str) -> dict[str, object]:
    return {
        "file": str(file),
        "node": node,
        "subdir": subdir,
        "format": proof.suffix,
        "verdict": proof.verdict,
        "reason": proof.reason,
        "tree": proof.tree or None,
        "expected": proof.expected or None,
        "paths": [_decode(path) for path in proof.paths],
    }


def _decode(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
