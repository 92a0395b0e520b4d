"""A command that cannot listen on its address reports that in one sentence."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiver.cli import main
from archiver.web.address_claim import claimed_address, fleet_identity
from tests.parts.process import accepts, free_port, running
from tests.system.client import fetch

DISCONNECTED = b'archiver_engine_connected{process="archiver-worker"} 0.0'
ELSEWHERE = {
    "ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1",
    "ARCHIVER_REGIONS": '{"here": {"bucket": "here", "endpoint": "http://127.0.0.1:1"}}',
}


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as squatter:
        yield f"127.0.0.1:{squatter.getsockname()[1]}"


@pytest.mark.parametrize(
    ("command", "setting"),
    (
        ("web", "server.listen"),
        ("worker", "worker.metrics_listen"),
        pytest.param("web", "server.metrics_listen", marks=pytest.mark.thorough),
    ),
)
def test_an_address_in_use_is_reported_with_its_setting(
    command: str, setting: str, taken: str, tmp_path: Path
) -> None:
    variable = f"ARCHIVER_{setting.upper().replace('.', '__')}"
    ended = subprocess.run(
        [sys.executable, "-m", "archiver", command],
        env={**os.environ, **ELSEWHERE, variable: taken, "ARCHIVER_WORKER__WORK_DIR": __file__},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    *log, last = ended.stderr.splitlines()
    assert last == f"Error: {setting}: cannot listen on {taken}: Address already in use"
    assert "Traceback" not in "".join(log)
    assert ("worker.work_dir is not writable" in "".join(log)) is (command == "worker")


@pytest.mark.parametrize("address", ("x", "127.0.0.1", "127.0.0.1:65536", ""))
def test_an_address_of_the_demo_has_a_host_and_a_port(address: str) -> None:
    result = CliRunner().invoke(main, ["demo", "--listen", address])
    assert result.exit_code == 2
    assert f"{address!r} must be host:port" in result.stderr


def test_an_address_of_another_fleet_is_rejected(tmp_path: Path) -> None:
    port = free_port()
    with claimed_address("127.0.0.1", port, fleet_identity(("nats://elsewhere",), {})):
        ended = subprocess.run(
            [sys.executable, "-m", "archiver", "web"],
            env={**os.environ, **ELSEWHERE, "ARCHIVER_SERVER__LISTEN": f"127.0.0.1:{port}"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr.strip() == (
        f"Error: server.listen: cannot listen on 127.0.0.1:{port}: another fleet serves at "
        f"127.0.0.1, port {port}, with other settings of `engine.url`; stop it first, "
        "or use another address"
    )


def test_several_workers_cannot_serve_metrics_at_one_address(tmp_path: Path) -> None:
    settings = {
        "ARCHIVER_DATA_DIR": str(tmp_path),
        "ARCHIVER_WORKER__PROCESSES": "2",
        "ARCHIVER_WORKER__METRICS_LISTEN": "127.0.0.1:9",
    }
    ended = CliRunner().invoke(main, ["serve"], env=settings)

    assert ended.exit_code == 2
    assert "worker.metrics_listen" in ended.stderr


def test_workers_of_one_machine_serve_their_metrics_side_by_side(tmp_path: Path) -> None:
    started = re.compile(rb'"metrics": ?"(127\.0\.0\.1:80[123]\d)"')
    env = {**ELSEWHERE, "ARCHIVER_LOG__FORMAT": "json"}

    def has_started(log: Path) -> bool:
        return started.search(log.read_bytes()) is not None

    with ExitStack() as stack:
        addresses = []
        for name in ("one", "two"):
            log = tmp_path / name
            stack.enter_context(
                running(
                    [sys.executable, "-m", "archiver", "worker"],
                    log=log,
                    ready=partial(has_started, log),
                    env=env,
                    cwd=tmp_path,
                )
            )
            found = started.search(log.read_bytes())
            assert found
            addresses.append(found[1].decode())
        assert len(set(addresses)) == 2
        for address in addresses:
            answer = fetch(f"http://{address}/metrics")
            assert (answer.status, DISCONNECTED in answer.body) == (200, True)


@pytest.mark.thorough
def test_metrics_may_have_an_address_of_their_own(tmp_path: Path) -> None:
    listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    env = {
        **ELSEWHERE,
        "ARCHIVER_SERVER__LISTEN": listen,
        "ARCHIVER_SERVER__METRICS_LISTEN": metrics,
        "ARCHIVER_SERVER__PROCESSES": "1",
    }
    with running(
        [sys.executable, "-m", "archiver", "web"],
        log=tmp_path / "log",
        ready=lambda: accepts(int(listen.rpartition(":")[2])),
        env=env,
        cwd=tmp_path,
    ):
        answer = fetch(f"http://{metrics}/metrics")
        assert (answer.status, b"archiver_build_info" in answer.body) == (200, True)
        assert fetch(f"http://{listen}/metrics").status == 404
        assert fetch(f"http://{listen}/__lbheartbeat__").status == 200
