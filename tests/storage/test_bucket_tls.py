"""A region with a certificate from an authority that only the settings trust."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Region
from archiver.storage.bucket import Bucket
from archiver.storage.regional_storage import OBSTORE_EXIT_S
from archiver.storage.s3_stores import S3Settings
from tests.parts.process import accepts, free_port, running
from tests.parts.s3 import ACCESS_KEY, SECRET_KEY, binary
from tests.parts.secured_nats import Certificates
from tests.storage.conftest import unfinished


@pytest.fixture
def endpoint(tmp_path: Path, certificates: Certificates) -> Iterator[str]:
    port = free_port()
    (tmp_path / "buckets" / "bucket").mkdir(parents=True)
    command = [str(binary("rclone")), "serve", "s3", "--config", "/dev/null"]
    command += ["--addr", f"127.0.0.1:{port}", "--etag-hash", ""]
    command += ["--cert", str(certificates.server), "--key", str(certificates.server)]
    with running(
        [*command, str(tmp_path / "buckets")],
        log=tmp_path / "log",
        ready=lambda: accepts(port),
        env={"RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"'},
    ):
        yield f"https://127.0.0.1:{port}"


def stored(endpoint: str, ca_file: Path | None) -> bytes:
    """Return an object after a round trip through a region."""
    bucket = Bucket(
        S3Settings(
            bucket="bucket",
            endpoint=endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY,
            secret_access_key=SECRET_KEY,
            ca_file=ca_file,
        ),
        region=Region("one"),
        presigned_ttl=timedelta(minutes=5),
    )

    async def chunks() -> AsyncIterator[bytes]:
        yield b"bytes"

    async def play() -> bytes:
        try:
            await bucket.check_access()
            await bucket.put_object("archives/x.zip", aiter(chunks()))
            await unfinished(bucket)
            return b"".join([chunk async for chunk in bucket.read_object("archives/x.zip")])
        finally:
            await asyncio.sleep(OBSTORE_EXIT_S)

    return asyncio.run(play())


def test_only_the_configured_authority_is_trusted(
    endpoint: str, certificates: Certificates
) -> None:
    assert stored(endpoint, certificates.authority) == b"bytes"
    for ca_file in (None, certificates.stranger):
        with pytest.raises(StorageUnavailable):
            stored(endpoint, ca_file)
