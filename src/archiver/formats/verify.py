"""Tells whether a stream is the whole archive that was asked for."""

import hashlib
from concurrent.futures import Executor
from functools import partial

from archiver.errors import CorruptArchive, NotAnArchive, SuffixRefused
from archiver.formats.archive_tree import Tree
from archiver.formats.byte_reader import Parser
from archiver.formats.compression.decompress import CODECS, Decompression, Reader
from archiver.formats.limits import Meter
from archiver.formats.symlinks import Links
from archiver.formats.tar.reader import verify_tar
from archiver.formats.zip.reader import verify_zip
from archiver.model import Archive, Limits, Verified
from archiver.runtime.threads import OrderedWork, run_in_thread
from archiver.sealing import seal

DEFAULT_LIMITS = Limits()

PIECES_AHEAD = 2
"""How far inflating may be ahead of the walk, in steps of a decompressor: in MiB, mostly."""


def verify(
    archive: Archive,
    *,
    root: str,
    limits: Limits = DEFAULT_LIMITS,
    refuse_links_outside: bool = False,
    pool: Executor | None = None,
) -> "StreamVerifier":
    """Return the verifier of a stream that ought to be *archive*, packed below *root*.

    Links that lead out of the root are counted, unless they are refused. A *pool* helps: one thread
    is enough, for all the verifiers of a process.

    Raises:
        SuffixRefused: Nothing can be said of such a format.
    """
    meter = Meter(limits=limits)
    links = Links(refuse_outside=refuse_links_outside)
    beside = OrderedWork(pool=pool, depth=PIECES_AHEAD)
    walk = verify_zip if archive.suffix == "zip" else verify_tar
    tree = Tree(archive=archive, root=root)
    parser = Parser(partial(walk, tree=tree, meter=meter, links=links))
    reader = _reader(archive.suffix, parser, meter, beside)
    return StreamVerifier(reader=reader, tree=tree, meter=meter, links=links, beside=beside)


def _reader(suffix: str, parser: Parser, meter: Meter, beside: OrderedWork) -> Reader:
    match suffix:
        case "zip":
            return parser
        case "tar":
            return _Unpacked(reader=parser, meter=meter)
        case _ if codec := CODECS.get(suffix):
            walk = _Beside(reader=parser, beside=beside)
            return Decompression(codec=codec, reader=walk, meter=meter)
        case _:
            raise SuffixRefused(f"a {suffix} cannot be verified")


class _Unpacked:
    """Hands on to a reader what was never compressed."""

    def __init__(self, *, reader: Reader, meter: Meter) -> None:
        self._reader = reader
        self._meter = meter
        self.close = reader.close

    def feed(self, data: bytes) -> None:
        self._meter.unpack(len(data))
        self._reader.feed(data)


class _Beside:
    """Has a reader read while who feeds it goes on."""

    def __init__(self, *, reader: Reader, beside: OrderedWork) -> None:
        self._reader = reader
        self._beside = beside
        self.close = reader.close

    def feed(self, data: bytes) -> None:
        self._beside.give(partial(self._reader.feed, data))


class StreamVerifier:
    """Digests a stream and reads it to its end, chunk by chunk, in two threads.

    One inflates; the other, with Python's lock, walks through what was inflated. Nothing of either
    goes on once a chunk has been read.
    """

    def __init__(
        self, *, reader: Reader, tree: Tree, meter: Meter, links: Links, beside: OrderedWork
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._meter = meter
        self._links = links
        self._beside = beside
        self._sha256 = hashlib.sha256()
        self._sound = True

    @property
    def last_file(self) -> bytes:
        return self._tree.last_file

    async def update(self, chunk: bytes) -> None:
        await run_in_thread(self._read, chunk)

    async def finish(self) -> Verified:
        await run_in_thread(self._end)
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._meter.packed_bytes,
            root=self._tree.root,
            last_file=self.last_file,
            links_outside=self._links.outside,
        )

    def _read(self, chunk: bytes) -> None:
        self._sound = False
        self._beside.give(partial(self._sha256.update, chunk))
        self._meter.take(len(chunk))
        try:
            self._reader.feed(chunk)
        finally:
            self._beside.settle()  # what the walk met with comes first: it is further ahead
        self._sound = True

    def _end(self) -> None:
        if not self._meter.packed_bytes:
            raise NotAnArchive("the host sent nothing")
        if not self._sound:
            raise CorruptArchive("the stream was refused before its end")
        self._reader.close()
