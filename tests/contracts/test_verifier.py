"""The contract of ``ports.Verifier``, for the fake and the real one, on archives in tar.gz."""

import asyncio
import hashlib

import pytest

from archiver.errors import BadArchive, CorruptArchive, TruncatedArchive
from archiver.formats.verify import StreamVerifier
from archiver.model import Verified
from archiver.ports.formats import Verifier, VerifierFactory
from archiver.testing import GzipVerifier
from tests.formats.samples import GOOD, ROOT, TREE, an_archive

DATA = GOOD["tar.gz"]
CHUNK_BYTES = 50
CHECKSUM = len(DATA) - 8
"""Position of the gzip stream's CRC (RFC 1952, 2.3.1)."""
LAST_FILE = [*TREE][-1].removeprefix(f"{ROOT}/").encode()


def damaged(at: int) -> bytes:
    return DATA[:at] + bytes([DATA[at] ^ 255]) + DATA[at + 1 :]


@pytest.fixture(params=(GzipVerifier, StreamVerifier), ids=("fake", "real"))
def verifier(request: pytest.FixtureRequest) -> Verifier:
    create: VerifierFactory = request.param
    return create(an_archive("tar.gz"), root=ROOT, identity=None)


async def _send(verifier: Verifier, data: bytes) -> None:
    for start in range(0, len(data), CHUNK_BYTES):
        await verifier.update(data[start : start + CHUNK_BYTES])


def verified(verifier: Verifier, data: bytes) -> Verified:
    async def verify() -> Verified:
        await _send(verifier, data)
        return await verifier.finish()

    return asyncio.run(verify())


def test_a_complete_archive_is_measured(verifier: Verifier) -> None:
    result = verified(verifier, DATA)

    assert result.sha256 == hashlib.sha256(DATA).hexdigest()
    assert result.size_bytes == len(DATA)
    assert result.root == ROOT
    assert result.last_file == verifier.last_file == LAST_FILE


def test_a_truncated_archive_is_rejected(verifier: Verifier) -> None:
    with pytest.raises(TruncatedArchive):
        verified(verifier, DATA[:-1])


@pytest.mark.parametrize(
    ("data", "error"),
    (
        (DATA + b"more", CorruptArchive),
        (damaged(CHECKSUM), CorruptArchive),
        (damaged(100), BadArchive),  # the members may be wrong before the checksum is
    ),
    ids=("longer", "wrong-checksum", "wrong-content"),
)
def test_a_damaged_archive_is_rejected(
    verifier: Verifier, data: bytes, error: type[BadArchive]
) -> None:
    with pytest.raises(error):
        verified(verifier, data)


def test_an_archive_that_was_rejected_cannot_be_finished(verifier: Verifier) -> None:
    async def play() -> None:
        with pytest.raises(BadArchive):
            await _send(verifier, damaged(100))
        with pytest.raises(BadArchive):
            await verifier.finish()

    asyncio.run(play())
