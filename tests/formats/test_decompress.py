"""Streams with several compressed members, as parallel compressors write them."""

import asyncio
import lzma
from collections.abc import Callable
from zlib import crc32

import pytest

from archiver.errors import ArchiveTooLarge, CorruptArchive, NotAnArchive, TruncatedArchive
from archiver.formats.compression.decompress import FREE_MEMBERS, STEP_BYTES
from tests.formats.samples import COMPRESS, ROOT, an_archive, packed, tar, verify_chunks

Compress = Callable[[bytes], bytes]
each_codec = pytest.mark.parametrize(
    ("suffix", "compress"),
    tuple((suffix, compress) for suffix, compress in COMPRESS.items() if suffix != "tar"),
)


@each_codec
def test_a_tar_may_span_compressed_members(suffix: str, compress: Compress) -> None:
    whole = tar()
    data = compress(whole[:700]) + compress(whole[700:5000]) + compress(whole[5000:])

    async def play() -> None:
        for size in (1, 7, len(data)):
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            assert (await verify_chunks(an_archive(suffix), chunks)).size_bytes == len(data)

    asyncio.run(play())


@each_codec
def test_a_stream_with_too_many_members_is_rejected(suffix: str, compress: Compress) -> None:
    """Opening a member takes time, even if it is empty."""
    data = compress(b"") * (FREE_MEMBERS + 1) + compress(tar())

    with pytest.raises(ArchiveTooLarge, match="too many members"):
        asyncio.run(verify_chunks(an_archive(suffix), [data]))


@each_codec
def test_a_stream_cut_between_two_members_is_rejected(suffix: str, compress: Compress) -> None:
    with pytest.raises(TruncatedArchive):
        asyncio.run(verify_chunks(an_archive(suffix), [compress(tar()[:1024])]))


@each_codec
def test_a_stream_cut_in_a_members_magic_is_rejected(suffix: str, compress: Compress) -> None:
    whole = compress(tar())

    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive(suffix), [whole, compress(b"more")[:2]]))


@each_codec
@pytest.mark.parametrize("steps", (1, 2))
def test_a_stream_may_end_with_a_step_of_the_decompressor(
    suffix: str, compress: Compress, steps: int
) -> None:
    whole = tar({f"{ROOT}/zeros": b""})
    data = compress(whole + bytes(steps * STEP_BYTES - len(whole)))

    assert asyncio.run(verify_chunks(an_archive(suffix), [data])).size_bytes == len(data)


@each_codec
def test_a_doubly_compressed_archive_is_rejected(suffix: str, compress: Compress) -> None:
    once = packed(suffix, {f"{ROOT}/{number}": bytes([number]) * 9 for number in range(200)})

    with pytest.raises(NotAnArchive):
        asyncio.run(verify_chunks(an_archive(suffix), [compress(once)]))


@pytest.mark.parametrize("offset", (-1, -5))
def test_the_checksum_and_the_length_of_gzip_are_checked(offset: int) -> None:
    data = bytearray(packed("tar.gz"))
    data[offset] ^= 1

    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive("tar.gz"), [bytes(data)]))


def test_an_xz_that_needs_too_much_memory_is_rejected() -> None:
    greedy = lzma.compress(
        tar(), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}]
    )

    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive("tar.xz"), [greedy]))


@pytest.mark.parametrize("flag", (0x20, 0x40, 0x80))
def test_a_gzip_with_reserved_flags_is_rejected(flag: int) -> None:
    """Python accepts it, gzip and zlib do not."""
    data = bytearray(packed("tar.gz"))
    data[3] |= flag

    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive("tar.gz"), [bytes(data)]))


def test_an_xz_with_unknown_checksums_is_rejected() -> None:
    """Python accepts it without checking and without a warning."""
    data = bytearray(lzma.compress(tar(), check=lzma.CHECK_CRC32))
    data[7] = data[-3] = 2  # in both header and footer, which have checksums of their own
    data[8:12] = crc32(data[6:8]).to_bytes(4, "little")
    data[-12:-8] = crc32(data[-8:-2]).to_bytes(4, "little")

    assert lzma.decompress(data) == tar()
    with pytest.raises(CorruptArchive):
        asyncio.run(verify_chunks(an_archive("tar.xz"), [bytes(data)]))
