"""Each documented way to log in to NATS, and each way to fail, on real servers."""

import asyncio
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from archiver.errors import EngineUnavailable
from archiver.jetstream.connection import connect
from archiver.jetstream.connection_faults import CHECKS, UnreadableFile
from archiver.jetstream.link import Servers
from archiver.jetstream.streams import INDEX
from archiver.settings import Settings
from archiver.settings.engine import EngineSettings
from archiver.wiring.adapters import engine_servers
from tests.parts.process import free_port
from tests.parts.secured_nats import Certificates, operator, secured, tls

USERS = """\
{jetstream}
authorization { users = [
  { user: "archiver", password: "p@ss/w,rd:%" }
  { user: "reader", password: "reader", permissions: { publish: "nothing", subscribe: ">" } }
] }
"""


@pytest.fixture(scope="module")
def with_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with secured(tmp_path_factory.mktemp("users"), USERS) as (port, _):
        yield port


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[int]:
    with secured(tmp_path_factory.mktemp("tls"), tls(certificates)) as (port, _):
        yield port


@pytest.fixture(scope="module")
def with_mutual_tls(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[int]:
    config = "{jetstream}\n" + tls(certificates, verify=True)
    with secured(tmp_path_factory.mktemp("mutual"), config) as (port, _):
        yield port


def writes(**settings: Any) -> bool:  # noqa: ANN401 - whatever the section takes
    """Return whether a key can be written and read with these *settings*."""

    async def play() -> bool:
        servers = engine_servers(Settings(engine=EngineSettings(**settings)))
        async with (
            asyncio.timeout(30),
            connect(servers, namespace="login", name="test") as connection,
        ):
            while True:
                with suppress(EngineUnavailable):
                    await connection.kv.put(INDEX, "key", b"value")
                    entry = await connection.kv.get(INDEX, "key")
                    return entry is not None and entry.value == b"value"

    return asyncio.run(play())


def test_a_user_and_a_password_log_in_as_settings_or_in_the_url(with_users: int) -> None:
    place = f"127.0.0.1:{with_users}"
    assert writes(url=f"nats://{place}", user="archiver", password="p@ss/w,rd:%")  # noqa: S106
    assert writes(url=f"nats://archiver:p%40ss%2Fw%2Crd:%25@{place}")


def test_a_token_in_the_url_logs_in(tmp_path: Path) -> None:
    config = '{jetstream}\nauthorization { token: "t@k/n:%" }\n'
    with secured(tmp_path, config) as (port, _):
        assert writes(url=f"nats://t%40k%2Fn%3A%25@127.0.0.1:{port}")


def test_a_credentials_file_logs_in(tmp_path: Path) -> None:
    issued = operator()
    path = tmp_path / "user.creds"
    path.write_text(issued.credentials)
    with secured(tmp_path, issued.config) as (port, _):
        assert writes(url=f"nats://127.0.0.1:{port}", credentials_file=path)


def test_a_client_certificate_logs_in_to_a_server_of_a_trusted_authority(
    with_mutual_tls: int, certificates: Certificates
) -> None:
    assert writes(
        url=f"tls://127.0.0.1:{with_mutual_tls}",
        ca_file=certificates.authority,
        tls_cert=certificates.client,
    )


def test_a_client_certificate_may_have_its_key_in_a_separate_file(
    with_mutual_tls: int, certificates: Certificates, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    both = certificates.client.read_text()
    start = both.index("-----BEGIN CERTIFICATE-----")
    key.write_text(both[:start])
    certificate.write_text(both[start:])

    assert writes(
        url=f"tls://127.0.0.1:{with_mutual_tls}",
        ca_file=certificates.authority,
        tls_cert=certificate,
        tls_key=key,
    )


Line = MutableMapping[str, Any]


def first_fault(servers: Servers) -> Sequence[Line]:
    """Return the log lines up to a fault, and for some time after it."""

    async def play() -> Sequence[Line]:
        with capture_logs() as lines:
            async with asyncio.timeout(30), connect(servers, namespace="login", name="test"):
                while not any("reason" in line for line in lines):
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.5)
        return [line for line in lines if line["log_level"] != "debug"]

    return asyncio.run(play())


def assert_one_fault(servers: Servers, reason: str, event: str = "engine.unreachable") -> None:
    """Assert that the log has one line about the fault, although it occurred many times."""
    faults = [line for line in first_fault(servers) if line["event"] != "engine.connected"]
    assert [(line["event"], line["log_level"], line["reason"]) for line in faults] == [
        (event, "warning", reason)
    ]
    assert faults[0]["check"] == CHECKS[reason]


@pytest.mark.thorough
def test_an_unknown_host_and_a_refused_connection_are_different_reasons() -> None:
    assert_one_fault(Servers(urls=["nats://no-such-host.invalid:4222"]), "unknown_host")
    assert_one_fault(Servers(urls=[f"nats://127.0.0.1:{free_port()}"]), "refused")


def test_a_wrong_password_and_missing_permissions_are_different_reasons(with_users: int) -> None:
    servers = Servers(urls=[f"nats://127.0.0.1:{with_users}"], user="archiver", password="wrong")  # noqa: S106
    assert_one_fault(servers, "not_authorized")
    reader = replace(servers, user="reader", password="reader")  # noqa: S106
    assert_one_fault(reader, "not_permitted", "engine.not_ready")


@pytest.mark.thorough
def test_invalid_credentials_are_a_reason_and_do_not_hang(tmp_path: Path, with_users: int) -> None:
    path = tmp_path / "no.creds"
    path.write_text("nothing of the kind")
    servers = Servers(urls=[f"nats://127.0.0.1:{with_users}"], credentials_file=path)
    assert_one_fault(servers, "unreadable_file")


@pytest.mark.parametrize("setting", ("ca_file", "tls_cert", "tls_key"))
def test_an_unreadable_tls_file_is_a_reason(
    setting: str, certificates: Certificates, tmp_path: Path
) -> None:
    files = Servers(urls=[], ca_file=certificates.authority, tls_cert=certificates.client)
    path = tmp_path / "changed.pem"
    changed: dict[str, Any] = {setting: path}
    for _ in range(2):
        with pytest.raises(UnreadableFile):
            replace(files, **changed).tls()
        path.write_text("nothing of the kind")


@pytest.mark.thorough
def test_a_file_that_disappears_before_a_connection_is_a_reason(tmp_path: Path) -> None:
    servers = Servers(urls=[f"tls://127.0.0.1:{free_port()}"], ca_file=tmp_path / "gone.pem")
    assert_one_fault(servers, "unreadable_file")


@pytest.mark.thorough
def test_a_certificate_of_another_authority_or_host_is_not_trusted(
    with_tls: int, certificates: Certificates
) -> None:
    here = Servers(urls=[f"tls://127.0.0.1:{with_tls}"], ca_file=certificates.stranger)
    assert_one_fault(here, "untrusted_certificate")
    elsewhere = Servers(urls=[f"tls://localhost:{with_tls}"], ca_file=certificates.authority)
    assert_one_fault(elsewhere, "wrong_host_name")


@pytest.mark.thorough
def test_a_required_client_certificate_is_a_reason(
    with_mutual_tls: int, certificates: Certificates
) -> None:
    urls = [f"tls://127.0.0.1:{with_mutual_tls}"]
    assert_one_fault(Servers(urls=urls, ca_file=certificates.authority), "demands_certificate")


@pytest.mark.thorough
def test_no_password_is_sent_without_tls_if_the_settings_require_it(with_users: int) -> None:
    servers = Servers(
        urls=[f"tls://127.0.0.1:{with_users}"],
        user="archiver",
        password="p@ss/w,rd:%",  # noqa: S106
    )
    assert_one_fault(servers, "tls_not_offered")


def test_a_server_without_jetstream_is_a_reason(with_tls: int, certificates: Certificates) -> None:
    servers = Servers(urls=[f"tls://127.0.0.1:{with_tls}"], ca_file=certificates.authority)
    assert_one_fault(servers, "no_jetstream", "engine.not_ready")
