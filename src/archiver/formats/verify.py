"""Tells whether a stream is the whole archive that was asked for."""

import asyncio
import hashlib
from functools import partial

from archiver.errors import CorruptArchive, NotAnArchive, SuffixRefused
from archiver.formats import tar
from archiver.formats import zip as zip_format
from archiver.formats.compression import CODECS, Decompression, Reader
from archiver.formats.incoming import Parser
from archiver.formats.meter import Meter
from archiver.formats.tree import Tree
from archiver.model import Archive, Limits, Verified
from archiver.sealing import seal

DEFAULT_LIMITS = Limits()


def verify(archive: Archive, *, root: str, limits: Limits = DEFAULT_LIMITS) -> "StreamVerifier":
    """Return the verifier of a stream that ought to be *archive*, packed below *root*.

    Raises:
        SuffixRefused: Nothing can be said of such a format.
    """
    meter = Meter(limits=limits)
    reader = _reader(archive.suffix, Tree(archive=archive, root=root), meter)
    return StreamVerifier(reader=reader, root=root, meter=meter)


def _reader(suffix: str, tree: Tree, meter: Meter) -> Reader:
    match suffix:
        case "zip":
            return Parser(partial(zip_format.walk, tree=tree, meter=meter))
        case "tar":
            return _Unpacked(reader=_tar(tree, meter), meter=meter)
        case _ if codec := CODECS.get(suffix):
            return Decompression(codec=codec, reader=_tar(tree, meter), meter=meter)
        case _:
            raise SuffixRefused(f"a {suffix} cannot be verified")


def _tar(tree: Tree, meter: Meter) -> Reader:
    return Parser(partial(tar.walk, tree=tree, meter=meter))


class _Unpacked:
    """Hands on to a reader what was never compressed."""

    def __init__(self, *, reader: Reader, meter: Meter) -> None:
        self._reader = reader
        self._meter = meter
        self.close = reader.close

    def feed(self, data: bytes) -> None:
        self._meter.unpack(len(data))
        self._reader.feed(data)


class StreamVerifier:
    """Digests a stream and reads it to its end, chunk by chunk, in threads."""

    def __init__(self, *, reader: Reader, root: str, meter: Meter) -> None:
        self._reader = reader
        self._root = root
        self._meter = meter
        self._sha256 = hashlib.sha256()
        self._sound = True

    async def update(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._read, chunk)

    async def finish(self) -> Verified:
        await asyncio.to_thread(self._end)
        return seal(
            sha256=self._sha256.hexdigest(),
            size_bytes=self._meter.packed_bytes,
            root=self._root,
        )

    def _read(self, chunk: bytes) -> None:
        self._sound = False
        self._sha256.update(chunk)
        self._meter.take(len(chunk))
        self._reader.feed(chunk)
        self._sound = True

    def _end(self) -> None:
        if not self._meter.packed_bytes:
            raise NotAnArchive("the host sent nothing")
        if not self._sound:
            raise CorruptArchive("the stream was refused before its end")
        self._reader.close()
