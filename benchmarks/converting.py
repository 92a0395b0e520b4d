"""Runs one conversion with Archiver's code, and prints its duration in seconds.

``python -m benchmarks.converting ARCHIVE NAME NODE SUFFIX TARGET`` converts the zip *ARCHIVE* into
*TARGET*. At the same time a verifier reads the result, as it does before a commit.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from archiver.formats.convert import ProcessConverter
from archiver.formats.verify import StreamVerifier
from archiver.formats.workspace import Workspace
from archiver.model import Archive, Node
from archiver.runtime.threads import available_cores
from archiver.sources.hgweb.source import HgArchivalCheck
from benchmarks.alone import CHUNK_BYTES


async def _read(path: Path) -> AsyncGenerator[bytes, None]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


async def convert(given: Path, name: str, node: str, suffix: str, target: Path) -> None:
    """Convert *given*, the zip of the changeset *node* of the repository *name*, into *target*."""
    archive = Archive(source="hgmo", repo=f"alone/{name}", node=Node(node), subdir="", suffix="zip")
    root = f"{name}-{node[:12]}"
    wanted = replace(archive, suffix=suffix)
    converter = ProcessConverter(
        workspace=Workspace(folder=target.parent, max_bytes=1 << 40), threads=available_cores()
    )
    with ThreadPoolExecutor(1) as pool:
        verifier = StreamVerifier(
            wanted, root=root, identity=HgArchivalCheck(wanted.node), pool=pool
        )
        async with converter.convert(
            _read(given), original=archive, target=wanted, root=root
        ) as pieces:
            with target.open("wb") as file:
                async for piece in pieces:
                    await verifier.update(piece)
                    file.write(piece)
        await verifier.finish()


def main(given: str, name: str, node: str, suffix: str, target: str) -> None:
    started = time.monotonic()
    asyncio.run(convert(Path(given), name, node, suffix, Path(target)))
    print(time.monotonic() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
