"""The image: its user, its health check, and what may be written."""

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archiver.settings import Settings, load
from archiver.settings.load import setting_variables
from tests.deploy.files import COMMANDS, DEPLOY, ROOT, read
from tests.parts.faulty_host import FaultyHost, faulty_host, sized
from tests.parts.raw_server import raw_server

CONTAINERFILE = read("container/Containerfile")
FINAL = CONTAINERFILE.rpartition("FROM ")[2].replace("\\\n", " ")
ENV = dict(re.findall(r"(\w+)=(\S+)", re.findall(r"^ENV (.*)$", FINAL, re.MULTILINE)[0]))
HEALTHCHECK = DEPLOY / "container" / "healthcheck.py"


def words(instruction: str) -> list[str]:
    """Return the words of an instruction of the final image that is a list."""
    (found,) = re.findall(rf"^{instruction} \[(.*)\]$", FINAL, re.MULTILINE)
    return re.findall(r'"([^"]*)"', found)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a process in the image whose file has what the image cannot know."""
    for name in setting_variables():
        monkeypatch.delenv(name)
    config = tmp_path / "archiver.toml"
    config.write_text('[server]\npublic_url = "https://archiver.example.org"\n')
    for name, value in ENV.items():
        if name.startswith("ARCHIVER_"):
            monkeypatch.setenv(name, value)
    return load(config)


def test_the_processes_are_those_of_an_unprivileged_user() -> None:
    assert "USER 10001:10001" in FINAL
    assert "groupadd --gid 10001 app" in FINAL
    assert "useradd --uid 10001 --gid app" in FINAL


def test_the_command_exists_and_is_one_process() -> None:
    assert words("ENTRYPOINT")[:2] == ["/usr/bin/tini", "--"]
    assert words("ENTRYPOINT")[2:] == ["/app/venv/bin/archiver"]
    assert words("CMD") == ["web"]
    assert "web" in COMMANDS


def test_the_settings_of_the_image_are_valid(settings: Settings) -> None:
    assert settings.server.listen == "0.0.0.0:8010"
    assert settings.worker.metrics_listen == "0.0.0.0:8011"
    assert settings.server.version_file == Path("/app/version.json")
    assert "EXPOSE 8010 8011" in FINAL


def test_workers_write_only_into_the_volume(settings: Settings) -> None:
    assert words("VOLUME") == [str(settings.data_dir)]
    assert f"{settings.data_dir}/work {settings.data_dir}/mirrors" in FINAL


def test_packages_come_from_the_lock_with_their_hashes() -> None:
    installs = re.findall(r"/pip (?!wheel).*?(?=&&|\n)", CONTAINERFILE.replace("\\\n", " "))
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps" in install
    locked = {name: _locked(name) for name in ("run", "server")}
    embedded = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    embedded = embedded["optional-dependencies"]["embedded"]
    names = {re.split(r"[>=]", each)[0] for each in embedded[1:]}
    assert {name.partition("==")[0] for name in locked["run"] - locked["server"]} == names
    assert locked["server"] < locked["run"]


def _locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return set(re.findall(r"^\S+==\S+", text, re.MULTILINE))


def test_everything_that_is_copied_is_in_the_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    sources = {word for line in copied for word in line.split() if not word.startswith("--")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


@pytest.fixture
def process() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


def is_healthy(*words: str, role: str, **env: str) -> bool:
    command = [sys.executable, "-IS", str(HEALTHCHECK), role, *words]
    return subprocess.run(command, env={**os.environ, **env}, check=False).returncode == 0


@pytest.mark.parametrize("role", ("web", "worker"))
def test_a_role_is_healthy_while_its_own_address_answers(process: FaultyHost, role: str) -> None:
    other = {
        "ARCHIVER_SERVER__LISTEN": "127.0.0.1:9",
        "ARCHIVER_WORKER__METRICS_LISTEN": "127.0.0.1:9",
    }
    name = "ARCHIVER_SERVER__LISTEN" if role == "web" else "ARCHIVER_WORKER__METRICS_LISTEN"
    env = {**other, name: f"0.0.0.0:{process.port}"}

    process.script("/__lbheartbeat__", sized(b""))
    assert is_healthy(role=role, **env)
    assert not is_healthy(role=role, **other)
    process.script("/__lbheartbeat__", sized(b"", "500 Internal Server Error"))
    assert not is_healthy(role=role, **env)


def test_a_command_without_an_address_is_healthy() -> None:
    assert is_healthy(role="fsck")
    assert is_healthy("web", role="prewarm", ARCHIVER_SERVER__LISTEN="127.0.0.1:9")
    assert not is_healthy("web", role="--some-option", ARCHIVER_SERVER__LISTEN="127.0.0.1:9")


@pytest.mark.thorough
def test_an_answer_that_drips_is_not_awaited() -> None:
    def drip(link: socket.socket, _head: bytes) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            link.sendall(b"X: y\r\n")
            link.settimeout(0.1)
            with suppress(TimeoutError):
                link.recv(1)

    with raw_server(drip) as address:
        assert not is_healthy(role="web", ARCHIVER_SERVER__LISTEN=address)
