"""``archiver doctor``: its lines, its JSON and its exit codes, on real servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.jetstream.connection import connect
from archiver.jetstream.link import Servers
from archiver.jetstream.worker_reports import Reporter
from archiver.testing import MemoryStorage
from archiver.wiring.adapters import NAMESPACE
from tests.diagnosis.diagnosing import REGION, region_settings
from tests.parts.commands import Run, run_alone
from tests.parts.fleet import HUNG_AFTER_S, prepared
from tests.parts.json_output import documents
from tests.parts.nats import Nats
from tests.parts.raw_server import raw_server
from tests.parts.s3 import Home
from tests.parts.s3_fault_proxy import Fault, Misbehave, sink

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.fixture
def configured(tmp_path: Path) -> Iterator[Path]:
    """A folder with settings whose source answers."""
    with raw_server(lambda link, _: link.sendall(OK)) as address:
        template = f"http://{address}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"
        (tmp_path / "archiver.toml").write_text(
            f'data_dir = "{tmp_path}/data"\n[worker]\nwork_max_bytes = 1\n'
            f'[sources.hgmo]\nurl_template = "{template}"\n'
        )
        yield tmp_path


def doctor_beside_a_worker(
    folder: Path, nats: Nats, home: Home, *words: str
) -> subprocess.CompletedProcess[str]:
    """Run the command while a worker answers."""
    report = Reporter(storage=MemoryStorage()).answer

    async def play() -> subprocess.CompletedProcess[str]:
        servers = Servers(urls=[nats.url])
        async with connect(servers, namespace=NAMESPACE, name="worker", report=report) as worker:
            await worker.link.wait(timedelta(seconds=HUNG_AFTER_S))
            regions = region_settings(home)["regions"]
            return await asyncio.to_thread(
                run_alone, folder, "doctor", *words, engine=nats.url, regions=regions
            )

    return asyncio.run(play())


def test_a_fleet_that_works_has_only_warnings(configured: Path, nats: Nats, home: Home) -> None:
    prepared(nats, NAMESPACE)
    result = doctor_beside_a_worker(configured, nats, home)
    assert result.returncode == 0, result.stdout
    levels = {line.split()[1]: line.split()[0] for line in result.stdout.splitlines()}
    unwell = [check for check, level in levels.items() if level != "ok"]
    assert unwell == [f"region.{REGION}.lifecycle"]
    checks = ["archiver", "settings", "disk.work_dir", "files", "engine", "source.hgmo.host"]
    assert [check for check in levels if check in checks] == checks
    assert "1 warning, 0 failed, in " in result.stderr
    assert not (configured / "data").exists()


def test_what_failed_is_json_and_exits_with_1(configured: Path, nats: Nats, home: Home) -> None:
    regions = region_settings(home, secret_access_key="precious")["regions"]  # noqa: S106
    result = run_alone(
        configured, "doctor", "--json", "--role", "web", engine=nats.url, regions=regions
    )
    assert result.returncode == 1
    *findings, summary = map(json.loads, result.stdout.splitlines())
    workers, failed = (finding for finding in findings if finding["level"] == "failed")
    assert workers["check"] == "workers"
    assert failed["check"] == f"region.{REGION}.list"
    assert failed["action"].startswith(f"set regions.{REGION}.secret_access_key")
    assert summary["failed"] == 2
    assert "Error: 2 checks have failed\n" in result.stderr
    assert "precious" not in result.stdout + result.stderr
    assert not [finding for finding in findings if finding["check"].startswith("disk.")]


@pytest.mark.thorough
def test_quiet_prints_what_is_not_well(configured: Path, nats: Nats, home: Home) -> None:
    regions = region_settings(home, bucket="absent")["regions"]
    result = run_alone(configured, "doctor", "--quiet", engine=nats.url, regions=regions)
    assert result.returncode == 1
    assert {line.split()[0] for line in result.stdout.splitlines()} == {"failed"}
    assert result.stderr.startswith("Error: 2 checks have failed\n")
    quiet = run_alone(configured, "doctor", "--quiet", "--json", engine=nats.url, regions=regions)
    *findings, summary = map(json.loads, quiet.stdout.splitlines())
    assert {finding["level"] for finding in findings} == {"failed"}
    assert summary["ok"] > summary["failed"] == len(findings) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    (
        ("[engine]\nlease_s = 'hunter2'\n[server]\nlisten = 5\n", "server.listen"),
        ("[engine]\nurl = 'nats://127.0.0.1:1'\n", "regions: at least one is required"),
        ("not TOML", "not TOML"),
    ),
)
def test_settings_that_do_not_load_are_one_line(
    run: Run, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "archiver.toml").write_text(text)
    result = run("doctor", "--json")
    assert result.exit_code == 2
    (finding,) = documents(result.stdout)
    assert (finding["check"], finding["level"]) == ("settings", "failed")
    assert problem in finding["found"]
    assert finding["action"]
    (line,) = run("doctor").stdout.splitlines()
    assert line.startswith("failed   settings  ")
    assert "nothing else was examined" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("repo", ("hgmo", "hgmo/", "/repo", "hgmo/repo@", "other/repo"))
def test_a_repository_that_cannot_be_tried_is_rejected(run: Run, repo: str) -> None:
    settings = {
        "ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1",
        "ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "bucket"}}',
    }
    assert run("doctor", "--repo", repo, **settings).exit_code == 2


def interrupted(
    folder: Path,
    nats: Nats,
    home: Home,
    *numbers: signal.Signals,
    at: str,
    misbehave: Misbehave | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command, which gets the signals when the region receives the request *at*."""
    with sink(home.server.endpoint, misbehave) as proxy:
        regions = region_settings(home, endpoint=proxy.endpoint)["regions"]
        with subprocess.Popen(
            [sys.executable, "-m", "archiver", "doctor"],
            env={
                **os.environ,
                "ARCHIVER_ENGINE__URL": nats.url,
                "ARCHIVER_REGIONS": json.dumps(regions),
            },
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            seen: list[str] = []

            def send(method: str, _target: str, _port: int) -> None:
                seen.append(method)
                if at == f"{method} {seen.count(method)}":
                    for number in numbers:
                        process.send_signal(number)

            proxy.on_request = send
            out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize(
    ("number", "at"),
    (
        (signal.SIGINT, "PUT 1"),
        (signal.SIGTERM, "DELETE 1"),
        *(
            pytest.param(number, at, marks=pytest.mark.thorough)
            for number in (signal.SIGINT, signal.SIGTERM)
            for at in ("GET 1", "HEAD 1", "PUT 2", "GET 2", "HEAD 2", "GET 4", "GET 5", "GET 6")
        ),
    ),
)
def test_a_signal_ends_the_command_without_a_traceback_or_an_object(
    configured: Path, nats: Nats, home: Home, number: signal.Signals, at: str
) -> None:
    ended = interrupted(configured, nats, home, number, at=at)
    assert (ended.returncode, ended.stderr) == (128 + number, "")
    assert not any(home.keys().values())


def test_a_second_signal_ends_the_command_without_a_traceback(
    configured: Path, nats: Nats, home: Home
) -> None:
    ended = interrupted(
        *(configured, nats, home, signal.SIGINT, signal.SIGTERM),
        at="PUT 1",
        misbehave=lambda method, _target: Fault.HANG if method == "PUT" else None,
    )
    assert ended.returncode in {130, 143}  # two signals at the same time may arrive in any order
    assert ended.stderr == ""
