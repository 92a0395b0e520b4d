"""Verifies that a stream is the complete archive that was requested."""

import hashlib
from concurrent.futures import Executor
from functools import partial

from archiver.errors import CorruptArchive, NotAnArchive, SuffixRefused
from archiver.formats.archive_tree import ArchiveTree
from archiver.formats.byte_reader import IncrementalParser
from archiver.formats.compression.decompress import CODECS, StreamConsumer, StreamDecompressor
from archiver.formats.limits import LimitCounter
from archiver.formats.symlinks import SymlinkChecker
from archiver.formats.tar.reader import verify_tar
from archiver.formats.zip.reader import verify_zip
from archiver.model import Archive, Limits, Verified
from archiver.ports.source import IdentityCheck
from archiver.runtime.threads import OrderedWork, run_in_thread
from archiver.sealing import seal

DEFAULT_LIMITS = Limits()

STEPS_AHEAD = 2
"""How many steps of a decompressor, usually 1 MiB each, may wait for the parser."""


def verify(
    archive: Archive,
    *,
    root: str,
    identity: IdentityCheck | None,
    limits: Limits = DEFAULT_LIMITS,
    refuse_links_outside: bool = False,
    pool: Executor | None = None,
) -> "StreamVerifier":
    """Return a verifier for the stream of *archive*, packed below *root*.

    Links that lead out of the root are counted, or rejected. *pool* speeds this up: one thread is
    enough for all verifiers of a process.

    Raises:
        SuffixRefused: There is no verifier for this format.
    """
    counter = LimitCounter(limits=limits)
    links = SymlinkChecker(refuse_outside=refuse_links_outside)
    background = OrderedWork(pool=pool, depth=STEPS_AHEAD)
    parse = verify_zip if archive.suffix == "zip" else verify_tar
    tree = ArchiveTree(archive=archive, root=root, identity=identity)
    parser = IncrementalParser(partial(parse, tree=tree, limits=counter, links=links))
    consumer = _consumer(archive.suffix, parser, counter, background)
    return StreamVerifier(
        consumer=consumer, tree=tree, limits=counter, links=links, background=background
    )


def _consumer(
    suffix: str, parser: IncrementalParser, limits: LimitCounter, background: OrderedWork
) -> StreamConsumer:
    match suffix:
        case "zip":
            return parser
        case "tar":
            return _UncompressedStream(consumer=parser, limits=limits)
        case _ if codec := CODECS.get(suffix):
            in_background = _BackgroundConsumer(consumer=parser, background=background)
            return StreamDecompressor(codec=codec, consumer=in_background, limits=limits)
        case _:
            raise SuffixRefused(f"unsupported suffix {suffix!r}: it cannot be verified")


class _UncompressedStream:
    """Passes on a stream without compression, and counts its bytes as unpacked."""

    def __init__(self, *, consumer: StreamConsumer, limits: LimitCounter) -> None:
        self._consumer = consumer
        self._limits = limits
        self.close = consumer.close

    def feed(self, data: bytes) -> None:
        self._limits.count_unpacked(len(data))
        self._consumer.feed(data)


class _BackgroundConsumer:
    """Feeds a consumer in a pool while the feeding thread continues."""

    def __init__(self, *, consumer: StreamConsumer, background: OrderedWork) -> None:
        self._consumer = consumer
        self._background = background
        self.close = consumer.close

    def feed(self, data: bytes) -> None:
        self._background.submit(partial(self._consumer.feed, data))


class StreamVerifier:
    """Implements ``ports.Verifier`` with two threads.

    One decompresses. The other, which holds Python's lock, parses the result and computes the
    SHA-256. Both are idle again when ``update`` returns.
    """

    def __init__(
        self,
        *,
        consumer: StreamConsumer,
        tree: ArchiveTree,
        limits: LimitCounter,
        links: SymlinkChecker,
        background: OrderedWork,
    ) -> None:
        self._consumer = consumer
        self._tree = tree
        self._limits = limits
        self._links = links
        self._background = background
        self._sha256 = hashlib.sha256()
        self._valid = True

    @property
    def last_file(self) -> bytes:
        return self._tree.last_file

    async def update(self, chunk: bytes) -> None:
        await run_in_thread(self._update, chunk)

    async def finish(self) -> Verified:
        await run_in_thread(self._finish)
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._limits.packed_bytes,
            root=self._tree.root,
            last_file=self.last_file,
            links_outside=self._links.outside,
        )

    def _update(self, chunk: bytes) -> None:
        self._valid = False
        self._background.submit(partial(self._sha256.update, chunk))
        self._limits.count_packed(len(chunk))
        try:
            self._consumer.feed(chunk)
        finally:
            self._background.join()  # the parser's error comes first: it is further ahead
        self._valid = True

    def _finish(self) -> None:
        if not self._limits.packed_bytes:
            raise NotAnArchive("the host sent an empty body")
        if not self._valid:
            raise CorruptArchive("the stream was rejected before its end")
        self._consumer.close()
