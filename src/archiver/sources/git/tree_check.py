"""Compares an archive with the tree of its commit, entry by entry, while it streams."""

from collections.abc import Iterator, Mapping

from archiver.errors import WrongTree
from archiver.git_objects import LfsCheck, expected_entry
from archiver.names import display_path
from archiver.ports.source import TreeCheck
from archiver.sources.git.attributes import KEPT, MAY_BE_OMITTED, Effects
from archiver.sources.git.listing import Entry, Listing
from archiver.sources.git.snapshot import Snapshot
from archiver.tree_proof import TreeMatch, TreeProof


class CommitCheck:
    """Implements ``ports.source.TreeCheck``.

    The ids of the archive's entries come in the order of the snapshot's listing. Where they differ,
    its effects must explain it. An archive without differences is proven by the id of its tree
    alone, which the record connects with the archive's node; the listing is trusted only for what
    differs.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        archive, record, listing = snapshot.archive, snapshot.record, snapshot.listing
        self._archive = archive
        self.path = b""
        self.subdir = archive.subdir.encode()
        self.parts: Mapping[bytes, TreeCheck] = {}
        self.lfs: LfsCheck | None = None
        self._commit = record.commit
        _, self._tree = expected_entry(record, archive.node, archive.subdir)
        self._submodules = listing.submodules
        self._expected = self._iter_expected(listing, snapshot.effects)
        self._differs = False

    @property
    def digits(self) -> int:
        return len(self._archive.node)

    @property
    def submodules(self) -> Mapping[bytes, str]:
        return self._submodules

    @staticmethod
    def _iter_expected(listing: Listing, effects: Effects) -> Iterator[tuple[Entry, bytes]]:
        yield from zip(listing, effects, strict=False)

    def add_entry(self, path: bytes, mode: int, object_id: str) -> None:
        for entry, effect in self._expected:
            if entry.path == path:
                if (entry.mode, entry.object_id) != (mode, object_id):
                    self._require_effect(entry, mode, effect)
                return
            self._require_omittable(entry, effect)
        raise WrongTree(
            f"the archive has {display_path(path)}, which its commit does not have there"
        )

    def add_attributes(self, content: bytes | None) -> None:
        """Ignore the content: git has looked up the effects of all attributes."""

    def conclude(self, object_id: str) -> TreeProof:
        for entry, effect in self._expected:
            self._require_omittable(entry, effect)
        if object_id == self._tree:
            match = TreeMatch.EXACT
        else:
            match = TreeMatch.ATTRIBUTES if self._differs else TreeMatch.LISTED
        return TreeProof(commit=self._commit, tree=object_id, match=match)

    def _require_effect(self, entry: Entry, mode: int, effect: bytes) -> None:
        if effect == KEPT or entry.mode != mode:
            raise WrongTree(f"{display_path(entry.path)} is not the file of its commit")
        self._differs = True

    def _require_omittable(self, entry: Entry, effect: bytes) -> None:
        if effect != MAY_BE_OMITTED:
            raise WrongTree(f"the archive lacks {display_path(entry.path)}")
        self._differs = True
