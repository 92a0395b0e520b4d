"""One download request to S3, for a whole archive or for the rest of one."""

from collections.abc import AsyncIterator, Callable

import aiohttp
from yarl import URL

from archiver.client.api_response import Located
from archiver.client.failures import RetryLater, WrongBytes
from archiver.client.network_errors import NETWORK_ERRORS, reason
from archiver.client.output import ArchiveWriter

CHUNK_BYTES = 1024 * 1024


async def download_object(
    session: aiohttp.ClientSession,
    located: Located,
    writer: ArchiveWriter,
    report: Callable[[int], None],
) -> None:
    """Download the bytes that *writer* lacks, and call *report* with the size of each chunk.

    No `If-Range` is needed, because the sha256 also covers the bytes of earlier requests.

    Raises:
        RetryLater: S3 did not send the object, or only part of it.
        WrongBytes: S3 sent other bytes than promised.
    """
    if writer.size_bytes < located.size_bytes:
        async for chunk in _iter_chunks(session, located, writer.size_bytes):
            if writer.size_bytes + len(chunk) > located.size_bytes:
                raise WrongBytes(f"{located.label} sent more than {located.size_bytes:,} bytes")
            writer.write(chunk)
            report(len(chunk))
    if writer.size_bytes < located.size_bytes:
        raise RetryLater(
            f"the download from {located.label} broke off after {writer.size_bytes:,} "
            f"of {located.size_bytes:,} bytes"
        )
    if writer.sha256 != located.sha256:
        raise WrongBytes(
            f"the bytes from {located.label} have sha256 {writer.sha256}, not {located.sha256}"
        )


async def _iter_chunks(
    session: aiohttp.ClientSession, located: Located, start: int
) -> AsyncIterator[bytes]:
    """Yield the object's bytes from byte *start* on.

    The presigned URL is the only credential sent: S3 rejects requests with two.
    """
    headers = {"Range": f"bytes={start}-"} if start else None
    try:
        async with session.get(
            URL(located.url, encoded=True), headers=headers, allow_redirects=False
        ) as response:
            skip = _count_known_bytes(response, located, start)
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                if missing := chunk[skip:]:
                    yield missing
                skip = max(0, skip - len(chunk))
    except NETWORK_ERRORS as exc:
        raise RetryLater(f"the download from {located.label} broke off{reason(exc)}") from exc


def _count_known_bytes(response: aiohttp.ClientResponse, located: Located, start: int) -> int:
    """Return how many bytes at the beginning of the body are known already.

    Content-Range says whether the body is a part, because rclone's S3 server sends parts with 200
    instead of 206: https://github.com/johannesboyne/gofakes3/pull/121

    Raises:
        RetryLater: The response is an error, or another part than requested.
        WrongBytes: The object has another size.
    """
    content_range = response.headers.get("Content-Range")
    expected_range = f"bytes {start}-{located.size_bytes - 1}/{located.size_bytes}"
    if response.status not in {200, 206} or content_range not in {None, expected_range}:
        raise RetryLater(f"{located.label} responded with {response.status}")
    expected = located.size_bytes - (start if content_range else 0)
    if response.content_length not in {None, expected}:
        raise WrongBytes(
            f"{located.label} sends {response.content_length:,} bytes, not {expected:,}"
        )
    return 0 if content_range else start
