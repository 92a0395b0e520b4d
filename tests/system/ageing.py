"""Makes what a stack has stored older than it is."""

import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
from nats.js.errors import NoKeysError
from nats.js.kv import KeyValue

from tests.parts.fleet import an_archive
from tests.system.stack import REGIONS, Stack


def leave(stack: Stack, region: str, *, days: float) -> Path:
    """Leave the object of an abandoned upload in the folder of a region's bucket."""
    archive = an_archive()
    path = stack.folder / region / "bucket" / "archives" / archive.key / "a1-1" / archive.file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"bytes")
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def rewrite(path: Path, **changes: object) -> None:
    """Change fields of a JSON file in a bucket. rclone notices after its restart."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def age_archives(stack: Stack, days: float) -> None:
    """Have all archives be so old, and the fleet know of uses since then."""
    then = datetime.now(UTC) - timedelta(days=days)
    for path in (path for region in REGIONS for path in stack.visible(region)):
        if "manifests" in path.parts:
            rewrite(path, created_at=then.isoformat())
        os.utime(path, (then.timestamp(), then.timestamp()))
    restart_regions(stack)
    asyncio.run(forget_uses(stack, since=then.date().isoformat()))


async def forget_uses(stack: Stack, *, since: str) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{stack.nats.port}")
    try:
        uses = await client.jetstream().key_value("archiver_uses")
        for key in await keys_of(uses):
            await uses.delete(key)
        await uses.put("since", since.encode())
    finally:
        await client.close()


async def keys_of(bucket: KeyValue) -> list[str]:
    try:
        return await bucket.keys()
    except NoKeysError:
        return []


def end_grace(stack: Stack) -> None:
    then = datetime.now(UTC) - timedelta(days=1)
    for path in (path for region in REGIONS for path in stack.visible(region)):
        if "tombstones" in path.parts:
            rewrite(path, expired_at=then.isoformat())
    restart_regions(stack)


def restart_regions(stack: Stack) -> None:
    for server in stack.regions.values():
        server.down()
        server.up()
