"""Proves an archive by the commit record that it carries, and the id of the commit."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import click

from archiver.client.api_response import Located
from archiver.client.archive_get import Proof
from archiver.client.deadline import Deadline
from archiver.client.failures import CommandFailed, InvalidUsage, WrongBytes
from archiver.client.text import printable
from archiver.errors import BadArchive, InvalidRequest
from archiver.formats.archive_start import may_carry_record
from archiver.formats.commit_proof import CommitProof, prove_commit
from archiver.formats.record_check import Verdict
from archiver.model import NODE_ALLOWED, Node, parse_node

PATHS_MAX = 20
"""Paths that are printed; the JSON has more."""


class Unprovable(CommandFailed):
    """Nothing is wrong with the file, but it does not prove itself."""

    exit_code = 3
    code = "unprovable"
    hint = "--sha256, --sums or --lock compare the file with its SHA-256 instead."


def prove(path: Path, located: Located, *, subdir: str, deadline: Deadline) -> Proof | None:
    """Return the proof of an archive that carries a commit record.

    The bytes are the ones that Archiver promised, so an archive without a valid record is no
    failure. Neither are other files than those of the commit, unless the server says that the
    archive has exactly these. Raises WrongBytes then, and if the record is of another commit than
    the archive's node.
    """
    try:
        if not may_carry_record(path):
            return None
        proof = asyncio.run(_prove(path, Node(located.node), subdir, deadline))
    except (BadArchive, InvalidRequest):
        return None
    if proof.verdict is Verdict.CONTRADICTS:
        raise WrongBytes(f"the archive is not of {located.node}: {describe(proof)}")
    if located.is_exact and proof.has_other_files:
        raise WrongBytes(
            f"the archive is not of {located.node}, although the server says that it has "
            f"exactly its files: {describe(proof)}"
        )
    return Proof(verdict=proof.verdict, sentence=_sentence(proof, located.node))


async def _prove(path: Path, node: Node, subdir: str, deadline: Deadline) -> CommitProof:
    try:
        async with asyncio.timeout(deadline.left_s):
            return await prove_commit(path, node=node, subdir=subdir)
    except TimeoutError:
        raise deadline.failure from None


def _sentence(proof: CommitProof, node: str) -> str:
    if proof.verdict is Verdict.PROVEN:
        return f"proven: it has exactly the files of commit {node}"
    return f"not proven to be of commit {node}: {describe(proof)}"


def verify_commit(file: Path, *, node: str, subdir: str, quiet: bool, as_json: bool) -> None:
    """Print whether *file* has exactly the files of a commit.

    Raises InvalidUsage, WrongBytes, or Unprovable.
    """
    full = parse_node(node)
    if full is None:
        raise InvalidUsage(f"--node must be a full id: {NODE_ALLOWED}")
    if file.exists() and not file.is_file():
        raise InvalidUsage(f"{file} must be a regular file: a pipe cannot be read twice")
    try:
        proof = asyncio.run(prove_commit(file, node=full, subdir=subdir.strip("/")))
    except InvalidRequest as exc:
        raise InvalidUsage(f"--subdir: {exc.message} (allowed: {exc.allowed})") from exc
    except BadArchive as exc:
        raise WrongBytes(f"{file}: {exc.code}: {exc.message}") from exc
    if as_json:
        click.echo(json.dumps(_to_json(proof, file, full, subdir)))
    elif not quiet:
        _print_parts(proof)
    _report(proof, file, full, quiet=quiet or as_json)


def _print_parts(proof: CommitProof) -> None:
    """Print the verdict on each submodule, and the number of LFS files."""
    for part in proof.parts:
        what = f"commit {part.node}{_with_lfs(part.lfs_files)}: {part.reason}"
        click.echo(printable(f"{part.verdict}: submodule {part.path}, {what}"))


def _with_lfs(files: int) -> str:
    if not files:
        return ""
    return f", with {files} LFS {'file' if files == 1 else 'files'}"


def _report(proof: CommitProof, file: Path, node: str, *, quiet: bool) -> None:
    """Print the result of a proof, or raise the failure that it means for the command."""
    match proof.verdict:
        case Verdict.PROVEN:
            if not quiet:
                files = _with_lfs(proof.lfs_files)
                what = f"{file} has exactly the files of commit {node}{files}"
                click.echo(printable(f"proven: {what}"))
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
        "parts": [asdict(part) for part in proof.parts],
        "lfs_files": proof.lfs_files,
    }


def _decode(path: bytes) -> str:
    return path.decode(errors="backslashreplace")
