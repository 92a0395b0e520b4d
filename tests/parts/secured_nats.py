"""NATS servers that require a password, a JWT or a client certificate."""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import nkeys
import pytest
import trustme

from tests.parts.nats import nats_binary
from tests.parts.process import accepts, free_port, running

UNLIMITED = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM files: an authority, an unrelated one, and certificates issued by the first one."""

    authority: Path
    stranger: Path
    server: Path
    client: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    files = Certificates(
        authority=folder / "authority.pem",
        stranger=folder / "stranger.pem",
        server=folder / "server.pem",
        client=folder / "client.pem",
    )
    authority.cert_pem.write_to_path(files.authority)
    trustme.CA().cert_pem.write_to_path(files.stranger)
    for path, name in ((files.server, "127.0.0.1"), (files.client, "client.example.org")):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)
    return files


@contextlib.contextmanager
def secured(folder: Path, config: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a server with *config*, in which ``{jetstream}`` becomes JetStream's configuration.

    Yields the server's port and process.
    """
    port, path = free_port(), folder / "secured.conf"
    store = f'jetstream {{ store_dir: "{folder / "store"}" }}'
    path.write_text(f"listen: 127.0.0.1:{port}\n{config.replace('{jetstream}', store)}\n")
    start = [str(nats_binary()), "--config", str(path)]
    with running(start, log=folder / "secured.log", ready=lambda: accepts(port)) as process:
        yield port, process


def tls(certificates: Certificates, *, verify: bool = False) -> str:
    files = f'cert_file: "{certificates.server}", key_file: "{certificates.server}"'
    clients = f', ca_file: "{certificates.authority}", verify: true' if verify else ""
    return f"tls {{ {files}{clients} }}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator with one account and user: the server's ``config``, the user's credentials."""

    config: str
    credentials: str


def operator() -> Operator:
    """Return an operator whose account may use JetStream.

    JWTs of NATS: https://docs.nats.io/running-a-nats-service/nats_admin/security/jwt
    """
    operator, user = _Key(nkeys.PREFIX_BYTE_OPERATOR), _Key(nkeys.PREFIX_BYTE_USER)
    account, system = _Key(nkeys.PREFIX_BYTE_ACCOUNT), _Key(nkeys.PREFIX_BYTE_ACCOUNT)
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    storage = ("mem_storage", "disk_storage", "streams", "consumer")
    limits = dict.fromkeys((*names, *storage), UNLIMITED) | {"wildcards": True}
    account_jwt = operator.sign(account, {"type": "account", "limits": limits})
    user_jwt = account.sign(user, {"type": "user", **dict.fromkeys(names[:3], UNLIMITED)})
    config = (
        f"operator: {operator.sign(operator, {'type': 'operator'})}\n"
        f"system_account: {system.public}\n"
        f"resolver: MEMORY\nresolver_preload: {{\n"
        f"  {account.public}: {account_jwt}\n"
        f"  {system.public}: {operator.sign(system, {'type': 'account'})}\n"
        f"}}\n"
    )
    credentials = (
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
    )
    return Operator(config="{jetstream}\n" + config, credentials=credentials)


class _Key:
    def __init__(self, prefix: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode()

    def sign(self, subject: "_Key", claims: Mapping[str, object]) -> str:
        """Return a JWT with *claims* about *subject*, signed by this key."""
        body = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": "test",
            "sub": subject.public,
            "nats": {"version": 2, **claims},
        }
        sha256 = hashlib.sha256(json.dumps(body).encode()).digest()
        body["jti"] = base64.b32encode(sha256).decode().rstrip("=")
        header = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(body).encode())}"
        return f"{text}.{_encoded(self._pair.sign(text.encode()))}"


def _encoded(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
