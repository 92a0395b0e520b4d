"""Compares a complete archive with the commits of all its repositories, while it streams."""

import itertools
from collections.abc import Iterator, Mapping

from archiver.errors import WrongTree
from archiver.sources.git.complete.checkout import Checkout, Plan, within
from archiver.sources.git.tree_check import CommitCheck
from archiver.tree_proof import (
    LFS_LISTED_MAX,
    LISTED_PATH_MAX_CHARS,
    LfsFile,
    Part,
    TreeMatch,
    TreeProof,
)

_FROM_BEST = (TreeMatch.EXACT, TreeMatch.LISTED, TreeMatch.ATTRIBUTES)


class PartCheck(CommitCheck):
    """The check of one repository. ``proof`` is there once all of its files were compared."""

    def __init__(self, checkout: Checkout) -> None:
        super().__init__(checkout.snapshot)
        self.checkout = checkout
        self.path = checkout.path.encode()
        self.lfs = checkout.lfs
        self.parts: Mapping[bytes, PartCheck] = {
            path: PartCheck(part) for path, part in checkout.parts.items()
        }
        self.proof: TreeProof | None = None
        self.is_wrong = False

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:
        with within(self.checkout.origins):
            try:
                super().add_entry(path, mode, object_id)
            except WrongTree:
                self.is_wrong = True
                raise

    def conclude(self, object_id: str) -> TreeProof:
        with within(self.checkout.origins):
            try:
                self.proof = super().conclude(object_id)
            except WrongTree:
                self.is_wrong = True
                raise
        return self.proof

    def walk(self) -> "Iterator[PartCheck]":
        """Yield this check and those of all parts, each before those inside it."""
        yield self
        for part in self.parts.values():
            yield from part.walk()


class CompleteCheck(PartCheck):
    """Implements ``ports.source.TreeCheck`` for a complete archive."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.checkout)
        self._plan = plan

    def conclude(self, object_id: str) -> TreeProof:
        own = super().conclude(object_id)
        proofs = [(check.checkout, check.proof) for check in self.walk() if check.proof]
        proofs = [*((around, own) for around in self._plan.around), *proofs]
        proofs.sort(key=lambda each: len(each[0].origins))  # as they were found
        return TreeProof(
            commit=self._plan.superproject.snapshot.record.commit,
            tree=own.tree,
            match=max((proof.match for _, proof in proofs), key=_FROM_BEST.index),
            parts=tuple(_part(each, proof) for each, proof in proofs if each.origins),
            lfs_files=sum(len(each.lfs.pointers) for each, _ in proofs if each.lfs),
            lfs=tuple(
                itertools.islice(
                    itertools.chain.from_iterable(_lfs_files(each) for each, _ in proofs),
                    LFS_LISTED_MAX + 1,
                )
            ),
        )


def _lfs_files(checkout: Checkout) -> Iterator[LfsFile]:
    prefix = f"{checkout.path}/" if checkout.path else ""
    for path, entry in checkout.lfs.pointers.items() if checkout.lfs else ():
        shown = ascii(prefix + path.decode(errors="surrogateescape"))[1:-1]
        yield LfsFile(
            path=shown[:LISTED_PATH_MAX_CHARS],
            sha256=entry.pointer.sha256,
            size_bytes=entry.pointer.size_bytes,
        )


def _part(checkout: Checkout, proof: TreeProof) -> Part:
    return Part(
        origin=checkout.origins[-1],
        node=checkout.snapshot.archive.node,
        commit=checkout.snapshot.record.commit,
        tree=proof.tree,
        match=proof.match,
    )
