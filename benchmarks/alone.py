"""Runs one step of a build with Archiver's code, and prints its duration in seconds.

``python -m benchmarks.alone verify PIECE …`` uses one core.
``python -m benchmarks.alone upload REGIONS PIECE …`` uploads to the regions, given as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Node, Region
from archiver.sources.hgweb.source import HgArchivalCheck
from archiver.storage.bucket import Bucket
from archiver.storage.regional_storage import open_storage
from archiver.storage.s3_stores import S3Settings
from benchmarks.inputs import BASENAME, NODE, ROOT

CHUNK_BYTES = 1 << 20
"""The size of chunks from a host that is faster than Archiver."""

ARCHIVE = Archive(
    source="hgmo", repo=f"alone/{BASENAME}", node=Node(NODE), subdir="", suffix="tar.gz"
)


def _chunks(pieces: list[str]) -> Iterator[bytes]:
    for piece in pieces:
        with Path(piece).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


async def _read(pieces: list[str]) -> AsyncGenerator[bytes, None]:
    for chunk in _chunks(pieces):
        yield chunk


async def _verify(pieces: list[str]) -> None:
    verifier = StreamVerifier(ARCHIVE, root=ROOT, identity=HgArchivalCheck(ARCHIVE.node))
    for chunk in _chunks(pieces):
        await verifier.update(chunk)
    await verifier.finish()


def buckets(regions: str) -> list[Bucket]:
    """Return the buckets that ``ARCHIVER_REGIONS`` describes."""
    return [
        Bucket(
            S3Settings(region=name, **region),
            region=Region(name),
            presigned_ttl=timedelta(minutes=5),
        )
        for name, region in json.loads(regions).items()
    ]


async def _upload(regions: str, pieces: list[str]) -> None:
    async with open_storage(buckets(regions)) as storage, aclosing(_read(pieces)) as chunks:
        await storage.upload(ARCHIVE, chunks, attempt=f"{time.monotonic_ns():x}")


def main(leg: str, *words: str) -> None:
    started = time.monotonic()
    if leg == "verify":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        asyncio.run(_verify(list(words)))
    else:
        asyncio.run(_upload(words[0], list(words[1:])))
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
