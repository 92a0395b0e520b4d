"""The units of systemd."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import COMMANDS, DEPLOY, read, unit

UNITS = ("archiver-web.service", "archiver-worker@.service")
EXPOSURE_MAX = 2.0


@pytest.mark.parametrize("name", UNITS)
def test_the_command_exists(name: str) -> None:
    (start,) = unit(name)["ExecStart"]
    assert start.startswith("/usr/bin/env --chdir=${CREDENTIALS_DIRECTORY} /opt/archiver/venv/bin/")
    assert start.split()[-1] in COMMANDS


@pytest.mark.parametrize("name", UNITS)
def test_secrets_in_the_settings_are_credentials_of_the_unit(name: str) -> None:
    credentials = [each.partition(":")[0] for each in unit(name)["LoadCredential"]]
    named = re.findall(r'^\w+_file = "(.*)"$', read("systemd/archiver.toml"), re.MULTILINE)
    assert set(named) == set(credentials)


def test_each_role_has_secrets_of_its_own() -> None:
    for name, role in zip(UNITS, ("web", "worker"), strict=True):
        for each in unit(name)["LoadCredential"]:
            assert each.partition(":")[2].startswith(f"/etc/archiver/secrets/{role}/")


def test_the_command_of_operators_runs_archiver_with_the_secrets_of_a_role() -> None:
    script = read("systemd/archiver")
    assert 'cd "/etc/archiver/secrets/${ROLE:-worker}"' in script
    assert "exec /opt/archiver/venv/bin/archiver" in script


@pytest.mark.parametrize("name", UNITS)
def test_a_stop_signals_the_main_process_alone(name: str) -> None:
    assert unit(name)["KillMode"] == ["mixed"]


def test_only_ports_of_the_settings_may_be_bound() -> None:
    ports = re.findall(r'listen = "127\.0\.0\.1:(\d+)"', read("systemd/archiver.toml"))
    assert unit("archiver-web.service")["SocketBindAllow"] == [f"ipv4:tcp:{port}" for port in ports]
    worker = unit("archiver-worker@.service")
    assert "ARCHIVER_WORKER__METRICS_LISTEN=127.0.0.1:810%i" in worker["Environment"]
    assert worker["SocketBindAllow"] == ["ipv4:tcp:8101-8109"]


def test_state_is_kept_where_the_settings_say() -> None:
    worker = unit("archiver-worker@.service")
    assert worker["StateDirectory"] == ["archiver"]
    assert 'data_dir = "/var/lib/archiver"' in read("systemd/archiver.toml")


@pytest.mark.programs
@pytest.mark.parametrize("name", UNITS)
def test_systemd_reads_the_unit_without_a_complaint(name: str) -> None:
    path = DEPLOY / "systemd" / name
    result = subprocess.run(
        ["/usr/bin/systemd-analyze", "verify", path], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@pytest.mark.programs
@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_hardly_exposed(name: str) -> None:
    path = DEPLOY / "systemd" / name
    result = subprocess.run(
        ["/usr/bin/systemd-analyze", "security", "--offline=true", "--no-pager", path],
        check=True,
        capture_output=True,
        text=True,
    )
    exposure = re.search(r"exposure level for .*: (\d+\.\d)", result.stdout)
    assert exposure, result.stdout
    assert float(exposure[1]) < EXPOSURE_MAX


@pytest.mark.programs
def test_systemd_reads_the_user_of_the_units(tmp_path: Path) -> None:
    result = subprocess.run(
        [
            *("/usr/bin/systemd-sysusers", f"--root={tmp_path}", "--dry-run"),
            DEPLOY / "systemd" / "archiver.sysusers.conf",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "archiver" in result.stdout + result.stderr
