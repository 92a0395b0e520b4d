"""Verifies that a stream is the complete archive that was requested."""

import hashlib
from concurrent.futures import Executor
from functools import partial

from archiver.errors import CorruptArchive, InternalError, NotAnArchive, SuffixRefused
from archiver.formats.archive_hasher import ArchiveHasher
from archiver.formats.archive_tree import ArchiveTree
from archiver.formats.byte_reader import IncrementalParser
from archiver.formats.compression.decompress import CODECS, StreamDecompressor
from archiver.formats.limits import LimitCounter
from archiver.formats.symlinks import SymlinkChecker
from archiver.formats.tar.reader import verify_tar
from archiver.formats.zip.reader import verify_zip
from archiver.model import Archive, Limits, Verified
from archiver.ports.source import IdentityCheck, TreeCheck
from archiver.runtime.threads import OrderedWork, run_in_thread
from archiver.sealing import seal
from archiver.tree_proof import TreeProof

DEFAULT_LIMITS = Limits()

STEPS_AHEAD = 2
"""How many steps of a decompressor, usually 1 MiB each, may wait for the parser."""


class StreamVerifier:
    """Implements ``ports.Verifier`` for the stream of *archive*, packed below *root*.

    Links that lead out of the root are counted, or rejected. One thread decompresses; a thread of
    *pool*, which holds Python's lock, parses the result and computes the SHA-256. One such thread
    is enough for all verifiers of a process. Both are idle again when ``update`` returns.

    With *tree*, git's ids of the members are computed and compared. A zip states the kinds of its
    members only at its end, so that is for tars. A *strict* verifier also rejects what compressed
    streams may contain beside the archive. Raises SuffixRefused if there is no verifier for
    this format.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        root: str,
        identity: IdentityCheck | None,
        tree: TreeCheck | None = None,
        limits: Limits = DEFAULT_LIMITS,
        refuse_links_outside: bool = False,
        strict: bool = False,
        pool: Executor | None = None,
    ) -> None:
        self._limits = LimitCounter(limits=limits)
        self._links = SymlinkChecker(refuse_outside=refuse_links_outside)
        self._background = OrderedWork(pool=pool, depth=STEPS_AHEAD)
        self._tree = ArchiveTree(archive=archive, root=root, identity=identity)
        self._tree_check = tree
        self._hasher = _new_hasher(archive, tree) if tree else None
        self._sha256 = hashlib.sha256()
        self._valid = True
        parse = verify_zip if archive.suffix == "zip" else partial(verify_tar, hasher=self._hasher)
        self._parser = IncrementalParser(
            partial(parse, tree=self._tree, limits=self._limits, links=self._links)
        )
        self._counts_unpacked = archive.suffix == "tar"  # others are counted while unpacked
        codec = CODECS.get(archive.suffix)
        self._decompressor = (
            StreamDecompressor(codec=codec, limits=self._limits, strict=strict) if codec else None
        )
        if not codec and archive.suffix not in {"tar", "zip"}:
            raise SuffixRefused(f"unsupported suffix {archive.suffix!r}: it cannot be verified")

    @property
    def last_file(self) -> bytes:
        return self._tree.last_file

    @property
    def subdir_tree(self) -> bytes:
        """The tree object of the files, once all were compared; empty without a ``tree``."""
        return self._hasher.subdir_tree if self._hasher else b""

    async def update(self, chunk: bytes) -> None:
        await run_in_thread(self._update, chunk)

    async def finish(self) -> Verified:
        proof = await run_in_thread(self._finish)
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._limits.packed_bytes,
            root=self._tree.root,
            last_file=self.last_file,
            links_outside=self._links.outside,
            proof=proof,
        )

    def _update(self, chunk: bytes) -> None:
        self._valid = False
        self._background.submit(partial(self._sha256.update, chunk))
        self._limits.count_packed(len(chunk))
        try:
            self._feed(chunk)
        finally:
            self._background.join()  # the parser's error comes first: it is further ahead
        self._valid = True

    def _feed(self, chunk: bytes) -> None:
        if self._decompressor:
            for content in self._decompressor.iter_content(chunk):
                self._background.submit(partial(self._parser.feed, content))
        else:
            if self._counts_unpacked:
                self._limits.count_unpacked(len(chunk))
            self._parser.feed(chunk)

    def _finish(self) -> TreeProof | None:
        if not self._limits.packed_bytes:
            raise NotAnArchive("the host sent an empty body")
        if not self._valid:
            raise CorruptArchive("the stream was rejected before its end")
        if self._decompressor:
            self._decompressor.close()
        self._parser.close()
        if self._tree_check and self._hasher:
            return self._tree_check.conclude(self._hasher.finish())
        return None


def _new_hasher(archive: Archive, tree: TreeCheck) -> ArchiveHasher:
    if archive.suffix == "zip":
        raise InternalError("the files of a zip stream cannot be compared with a commit")
    return ArchiveHasher(tree)
