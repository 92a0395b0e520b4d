"""compose.yaml: what its services run, mount and reach."""

import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import COMMANDS, DEPLOY, read, read_json, read_yaml
from tests.deploy.settings_files import compose_settings

COMPOSE = read_yaml("compose/compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("web-1", "web-2", "worker-1", "worker-2")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_read_only_root_and_no_capability(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", OURS)
def test_the_command_exists(name: str) -> None:
    assert SERVICES[name]["command"] == [name.partition("-")[0]]
    assert set(SERVICES[name]["command"]) <= COMMANDS


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_uses_is_defined(name: str) -> None:
    service = SERVICES[name]
    for kind in ("secrets", "configs"):
        used = [
            each["source"] if isinstance(each, dict) else each for each in service.get(kind, ())
        ]
        assert set(used) <= COMPOSE[kind].keys()
    assert set(service.get("networks", ())) <= COMPOSE["networks"].keys()
    mounted = [each.partition(":")[0] for each in service.get("volumes", ())]
    assert set(mounted) <= COMPOSE["volumes"].keys()
    assert set(service.get("depends_on", ())) <= SERVICES.keys()


def test_the_script_writes_every_secret_once(tmp_path: Path) -> None:
    compose_settings(tmp_path)
    for secret in COMPOSE["secrets"].values():
        assert (tmp_path / secret["file"]).read_text()
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    before = (tmp_path / "secrets" / "nats-password").read_text()
    again = subprocess.run(["/bin/sh", tmp_path / "make-secrets"], check=False, capture_output=True)
    assert again.returncode == 1
    assert (tmp_path / "secrets" / "nats-password").read_text() == before


def test_configurations_exist() -> None:
    for config in COMPOSE["configs"].values():
        assert (DEPLOY / "compose" / config["file"]).exists()


def test_archiver_trusts_the_proxy_alone() -> None:
    address = SERVICES["proxy"]["networks"]["front"]["ipv4_address"]
    (network,) = COMPOSE["networks"]["front"]["ipam"]["config"]
    assert ip_address(address) in ip_network(network["subnet"])
    assert ip_address(address) not in ip_network(network["ip_range"])
    assert f'trusted_proxies = ["{address}/32"]' in read("compose/archiver.toml")
    for name in ("web-1", "web-2"):
        assert {*SERVICES["proxy"]["networks"]} & {*SERVICES[name]["networks"]} == {"front"}


def test_the_proxy_serves_both_web_processes_at_their_port() -> None:
    environment = SERVICES["proxy"]["environment"]
    assert environment["ARCHIVER_WEB_1"] == "web-1:8010"
    assert environment["ARCHIVER_WEB_2"] == "web-2:8010"
    for name in environment:
        assert f'"${{{name}}}"' in read("haproxy/haproxy.cfg")


def test_the_bucket_that_is_created_is_the_one_in_the_settings() -> None:
    assert "s3.bucket.create -name archives" in SERVICES["bucket"]["command"][0]
    assert 'bucket = "archives"' in read("compose/archiver.toml")


def test_keys_of_web_processes_cannot_write(tmp_path: Path) -> None:
    compose_settings(tmp_path)
    assert SERVICES["web-1"]["environment"] == {"ARCHIVER_REGIONS__LOCAL__ACCESS_KEY_ID": "web"}
    assert read_json(str(tmp_path / "secrets" / "s3-identities.json")) == {
        "identities": [
            {
                "name": role,
                "credentials": [
                    {
                        "accessKey": role,
                        "secretKey": (tmp_path / "secrets" / f"s3-{role}").read_text().strip(),
                    }
                ],
                "actions": actions,
            }
            for role, actions in (
                ("web", ["Read:archives", "List:archives"]),
                ("worker", ["Read:archives", "List:archives", "Write:archives"]),
            )
        ]
    }


def test_seaweedfs_listens_on_loopback_alone_behind_its_gate() -> None:
    """Its gRPC port lets anybody add keys, and has the address to which S3 is bound."""
    command = SERVICES["s3"]["command"]
    bound = [each for each in command if each.partition("=")[0].endswith(("-ip", "ip.bind"))]
    assert bound == ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    assert "-s3.port=8332" in command
    assert SERVICES["s3-gate"]["network_mode"] == "service:s3"
    assert SERVICES["s3-gate"]["environment"]["S3_GATE_TO"] == "127.0.0.1:8332"
    assert SERVICES["s3"]["ports"] == ["127.0.0.1:8333:8333"]
    assert SERVICES["s3-gate"]["environment"]["S3_GATE_BIND"] == ":8333"
