"""Proves a downloaded archive by the commit record that it carries, if it does."""

import asyncio
from pathlib import Path

from archiver.cli.verify import describe
from archiver.client.api_response import Located
from archiver.client.archive_get import Proof
from archiver.client.deadline import Deadline
from archiver.client.failures import WrongBytes
from archiver.errors import BadArchive, InvalidRequest
from archiver.formats.archive_start import may_carry_record
from archiver.formats.commit_proof import CommitProof, Verdict, prove_commit
from archiver.model import Node


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
