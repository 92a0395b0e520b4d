"""The index of one process, and what is in the buckets behind it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from archiver.jetstream.connection import Connection
from archiver.jetstream.index import TRUSTED_FOR, JetStreamIndex
from archiver.jetstream.records import CopiesRecord, encode
from archiver.jetstream.streams import INDEX
from archiver.model import Archive, Copies
from archiver.ports.storage import Commit
from archiver.sealing import seal
from archiver.testing import FakeAttempt, MemoryStorage
from archiver.tree_proof import TreeProof
from tests.parts.fleet import PATIENT, Fleet


@asynccontextmanager
async def index_of(
    fleet: Fleet, storage: MemoryStorage, *, trusted_for: timedelta = TRUSTED_FOR
) -> AsyncIterator[JetStreamIndex]:
    async with fleet.connection() as connection:
        yield JetStreamIndex(
            connection=connection,
            storage=storage,
            hedge_after=PATIENT,
            trusted_for=trusted_for,
        )


async def committed(
    storage: MemoryStorage, archive: Archive, proof: TreeProof | None = None
) -> Copies:
    """Store *archive* in the buckets, without the knowledge of any index."""

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"bytes"

    upload = await storage.upload(archive, chunks(), attempt="x")
    verified = seal(sha256="0" * 64, size_bytes=5, root="ash")
    return await storage.commit(
        Commit(
            archive=archive,
            upload=upload,
            verified=verified,
            source_url="http://127.0.0.1/",
            proof=proof,
        ),
        prove_lease=FakeAttempt(archive=archive).prove_lease,
    )


async def write_unpublished(
    connection: Connection, archive: Archive, copies: Copies, *, age: timedelta = timedelta(0)
) -> None:
    """Write an entry that was checked *age* ago, without publishing the change."""
    entry = encode(CopiesRecord.of(copies, datetime.now(UTC) - age, {}))
    await connection.kv.put(INDEX, archive.key_hash, entry)
