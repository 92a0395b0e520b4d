"""Settings of the engine: the addresses of NATS, and how to log in."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, FilePath, SecretStr, field_validator, model_validator

from archiver.settings.section import PORT_MAX, CaFile, SecretFile, Section, read_secret

_SERVER = re.compile(
    r"(?P<address>(?P<scheme>nats://|tls://)?(?P<login>[^\s/@,]+@)?"
    r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?)/?"
)


def _parse_number(value: object) -> object:
    """Return the number in an environment variable.

    pydantic does not parse strings for a Literal: https://github.com/pydantic/pydantic/issues/9991
    """
    return int(value) if isinstance(value, str) and value.isdecimal() else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


class EngineSettings(Section):
    """NATS JetStream."""

    url: str | None = None
    """NATS servers, separated by commas: `nats://host:4222`, or `tls://host` for servers that must
    offer TLS. If not set, `archiver serve` starts one.
    """
    user: str | None = None
    """User name for NATS."""
    password: SecretStr | None = None
    """Password for NATS."""
    password_file: SecretFile | None = None
    """File with the password for NATS, instead of `engine.password`. Read when a process starts."""
    credentials_file: FilePath | None = None
    """NATS credentials file (JWT and seed), instead of user and password."""
    ca_file: CaFile | None = None
    """PEM file with certificate authorities to trust besides the system's. The servers must offer
    TLS.
    """
    tls_cert: FilePath | None = None
    """PEM file with the client certificate, for servers that require one. The servers must offer
    TLS.
    """
    tls_key: FilePath | None = None
    """PEM file with the key of `tls_cert`, if the key is in another file."""
    replicas: Annotated[Literal[1, 3, 5], BeforeValidator(_parse_number)] = 1
    """Number of servers that store each new stream. `archiver engine set-replicas` changes existing
    streams.
    """
    archives: int = Field(default=1_000_000, ge=1000, le=1_000_000_000)
    """Archives that the index, and what else the engine remembers of archives, has room for. The
    streams may then hold 4.6 kB for each, which NATS reserves.
    """
    lease_s: float = Field(default=20, ge=2, le=600)
    """Seconds of silence after which a worker loses its task to another worker."""

    @field_validator("url")
    @classmethod
    def _require_unambiguous_servers(cls, value: str | None) -> str | None:
        for server in _split_servers(value):
            match = _SERVER.fullmatch(server)
            if not match or int(match["port"] or 0) > PORT_MAX:
                raise ValueError(
                    "must be servers such as nats://host:4222, separated by commas; in a password, "
                    "write %40 for @, %2F for / and %2C for a comma, or use engine.password"
                )
            if match["login"] and not match["scheme"]:
                raise ValueError("must begin with nats:// or tls:// if it has a password")
        return value

    @model_validator(mode="after")
    def _require_one_login(self) -> Self:
        if len(self._logins) > 1:
            raise ValueError("url: must have the same user and password for every server")
        if self.password and self.password_file:
            raise ValueError("password_file: must not be set together with password")
        if (self.password or self.password_file) and not self.user:
            raise ValueError("password: requires user")
        if sum(map(bool, (self._logins, self.user, self.credentials_file))) > 1:
            raise ValueError(
                "must have one login: in url, in user and password, or in credentials_file"
            )
        return self

    @model_validator(mode="after")
    def _require_matching_key(self) -> Self:
        if self.tls_key and not self.tls_cert:
            raise ValueError("tls_key: requires tls_cert")
        if self.tls_cert:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.load_cert_chain(self.tls_cert, self.tls_key, password="")  # no prompt
            except (OSError, ValueError):
                raise ValueError(
                    "tls_cert, tls_key: must be PEM files with a certificate and its own "
                    "unencrypted key"
                ) from None
        return self

    @property
    def _logins(self) -> frozenset[str]:
        return frozenset(each["login"][:-1] for each in _match_servers(self.url) if each["login"])

    @property
    def login(self) -> Login:
        """The login in ``user`` and ``password``, else in ``url``. Reads ``password_file``."""
        if self.user:
            return Login(user=self.user, password=self._read_password())
        for login in self._logins:
            user, colon, password = login.partition(":")
            if colon:
                return Login(user=unquote(user), password=unquote(password))
            return Login(token=unquote(user))
        return Login()

    def _read_password(self) -> str:
        if self.password_file:
            return read_secret(self.password_file)
        return self.password.get_secret_value() if self.password else ""

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_s)

    @property
    def servers(self) -> tuple[str, ...]:
        """The addresses of the servers, without user and password."""
        matches = _match_servers(self.url)
        return tuple(each["address"].replace(each["login"] or "", "", 1) for each in matches)


def _split_servers(url: str | None) -> Iterator[str]:
    return filter(None, (server.strip() for server in (url or "").split(",")))


def _match_servers(url: str | None) -> Iterator[re.Match[str]]:
    return filter(None, map(_SERVER.fullmatch, _split_servers(url)))
