"""What a fleet stores: written to a file by running it, and put into other servers by a test.

The fleet is real: web process, worker, commands, nats-server, S3 servers and hosts. Its code may be
that of another commit, in a worktree of its own.
"""

import asyncio
import base64
import json
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from archiver.storage.object_keys import bucket_id
from tests.parts.process import wait_until
from tests.records.world import World, world
from tests.system.client import ended, fetch, poll
from tests.system.stack import REGIONS, Stack

FOLDER = Path(__file__).with_name("snapshots")
SLOW = 2000
"""Bytes per second."""

QUEUED = ("suffix=zip", "suffix=tar.xz", "suffix=tar", "suffix=tar.bz2", "suffix=tar.zst")
SUBDIRS = ("", "&subdir=src")


def write(name: str, *, source: str) -> None:
    """Run a fleet of the package in *source*, and write ``snapshots/{name}.json``."""
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), source=Path(source)) as here:
        roles = play(here)
        content = {
            "roles": roles,
            "places": places(here.stack),
            "streams": asyncio.run(read_streams(here.stack)),
            "buckets": {region: read_bucket(here.stack, region) for region in REGIONS},
        }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def build(here: World, url: str) -> dict[str, Any]:
    """Request an archive; return where it is, and some of its result, once its task has ended."""
    answer = fetch(here.stack.public + url)
    assert answer.status == 202, (answer, here.stack.logs()[-2000:])
    result = poll(answer.location, ended, timeout_s=120)[-1]
    kept = {name: result.get(name) for name in ("task_id", "state", "sha256")}
    return {"url": url, "status": _path(here.stack, answer.location), **kept}


def play(here: World) -> dict[str, Any]:
    """Bring about each kind of record; return what a later release needs to know of them."""
    roles: dict[str, Any] = {}
    stack = here.stack
    with stack.web():
        with stack.worker("worker-1") as victim:
            for role, url in {
                "hit": here.hg(here.node, "suffix=tar.gz"),
                "git": here.git,
                "expired": here.hg(here.node, "suffix=zip&subdir=src"),
                "purging": here.hg(here.tip, "suffix=tar.gz"),
                "failed": here.hg(here.node, "subdir=missing"),
            }.items():
                roles[role] = build(here, url)
            fetch(f"{stack.public}{here.hg('default', 'suffix=tar.gz')}")
            wait_until(lambda: _is_copied(here), what="all copies")
            if is_known(here, "gc"):
                expire(here, roles["expired"])
            stack.regions["us-west-2"].down()
            roles["repair"] = build(here, here.hg(here.old, "suffix=tar.gz"))
            if is_known(here, "pins"):
                pin = here.run("pins", "add", roles["hit"]["task_id"], "--reason", "a release")
                assert pin.returncode in {0, 75}, pin
            if is_known(here, "purge"):
                purge = here.run(
                    "purge", f"hgmo/records/hg/{here.tip}", "--yes", "--reason", "a test"
                )
                assert purge.returncode == 75, purge
            here.host.rate = SLOW
            answer = fetch(stack.public + here.hg(here.node, "suffix=tar.gz&subdir=noise"))
            poll(answer.location, lambda result: bool(result["bytes_done"]), timeout_s=120)
            roles["killed"] = {"status": _path(stack, answer.location)}
            victim.kill()
            victim.wait()
        stack.regions["us-west-2"].up()
        roles["queued"] = [
            {"status": _path(stack, fetch(stack.public + here.hg(here.tip, query)).location)}
            for query in (f"{suffix}{subdir}" for subdir in SUBDIRS for suffix in QUEUED)
        ]
    return roles


def _path(stack: Stack, url: str) -> str:
    return url.removeprefix(stack.public)


def _is_copied(here: World) -> bool:
    """Return whether both regions have all archives and manifests."""
    east, west = (sorted(read_bucket(here.stack, region)) for region in REGIONS)
    return [k for k in east if "probes" not in k] == [k for k in west if "probes" not in k]


def is_known(here: World, command: str) -> bool:
    """Return whether this code has the *command*."""
    return here.run(command, "--help").returncode == 0


def expire(here: World, result: dict[str, Any]) -> None:
    """Have one archive seem unused for 40 days, and expire it."""
    then = datetime.now(UTC) - timedelta(days=40)
    for region in REGIONS:
        for path in here.stack.visible(region):
            if "manifests" in path.parts and result["sha256"] in path.read_text():
                manifest = {**json.loads(path.read_text()), "created_at": then.isoformat()}
                path.write_text(json.dumps(manifest))
                os.utime(path, (then.timestamp(), then.timestamp()))
    for server in here.stack.regions.values():  # rclone notices after its restart
        server.down()
        server.up()
    asyncio.run(_know_uses_since(here.stack, then.date().isoformat()))
    gc = here.run("gc", "--apply", env={"ARCHIVER_RETENTION__DAYS": "30"})
    assert gc.returncode == 0, gc
    assert "expired" in gc.stdout, gc


async def _know_uses_since(stack: Stack, day: str) -> None:
    client = await nats.connect(f"nats://127.0.0.1:{stack.nats.port}")
    try:
        await client.jetstream().publish("$KV.archiver_uses.since", day.encode())
    finally:
        await client.close()


def places(stack: Stack) -> dict[str, str]:
    """Return the ids of the regions' buckets, which depend on the ports of their servers."""
    return {
        region: bucket_id(f"http://127.0.0.1:{server.port}", "bucket")
        for region, server in stack.regions.items()
    }


def read_bucket(stack: Stack, region: str) -> dict[str, str]:
    root = stack.folder / region / "bucket"
    return {
        str(path.relative_to(root)): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(stack.visible(region))
    }


def fill_bucket(stack: Stack, region: str, objects: dict[str, str]) -> None:
    """Write the objects of a region before its server is used."""
    for key, body in objects.items():
        path = stack.folder / region / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(body))


async def read_streams(stack: Stack) -> list[dict[str, Any]]:
    """Return the streams in files, with their configurations and messages."""
    client = await nats.connect(f"nats://127.0.0.1:{stack.nats.port}")
    try:
        names = (await _ask(client, "STREAM.NAMES", {}))["streams"]
        streams = [await _read_stream(client, name) for name in sorted(names)]
        return [stream for stream in streams if stream["config"]["storage"] == "file"]
    finally:
        await client.close()


async def _read_stream(client: Client, name: str) -> dict[str, Any]:
    info = await _ask(client, f"STREAM.INFO.{name}", {})
    state, messages = info["state"], []
    for sequence in range(state["first_seq"], state["last_seq"] + 1):
        found = await _ask(client, f"STREAM.MSG.GET.{name}", {"seq": sequence})
        if message := found.get("message"):
            data = base64.b64decode(message.get("data", "")).decode()
            messages.append({"seq": sequence, "subject": message["subject"], "data": data})
    return {"config": info["config"], "messages": messages}


async def fill_streams(stack: Stack, streams: list[dict[str, Any]], ids: dict[str, str]) -> None:
    """Create the streams with their messages, whose numbers stay; *ids* replace old by new ones."""
    client = await nats.connect(f"nats://127.0.0.1:{stack.nats.port}")
    try:
        for stream in streams:
            await _fill_stream(client, stream, ids)
    finally:
        await client.close()


async def _fill_stream(client: Client, stream: dict[str, Any], ids: dict[str, str]) -> None:
    config, last = stream["config"], 0
    created = await _ask(client, f"STREAM.CREATE.{config['name']}", config)
    assert "error" not in created, created
    for message in stream["messages"]:
        while last < message["seq"] - 1 and not config["name"].startswith("KV_"):
            last = await _add_and_remove(client, config["name"], message["subject"])
        data = message["data"]
        for old, new in ids.items():
            data = data.replace(old, new)
        last = (await client.jetstream().publish(message["subject"], data.encode())).seq
        assert config["name"].startswith("KV_") or last == message["seq"]


async def _add_and_remove(client: Client, stream: str, subject: str) -> int:
    """Use up a number of the stream, as a message that has ended did."""
    gap = f"{subject.rpartition('.')[0]}.gap"
    sequence = (await client.jetstream().publish(gap, b"")).seq
    await _ask(client, f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})
    return sequence


async def _ask(client: Client, api: str, request: dict[str, Any]) -> dict[str, Any]:
    payload = json.dumps(request).encode() if request else b""
    response = await client.request(f"$JS.API.{api}", payload, timeout=10)
    answer: dict[str, Any] = json.loads(response.data)
    return answer
