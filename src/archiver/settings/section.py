"""The base class of all sections, and the types of their fields."""

import os
import re
import ssl
import stat
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, FilePath

from archiver.locality.networks import parse_network

PORT_MAX = 65_535

SECRET_MAX_BYTES = 4096

_SECRET = re.compile(r"[!-~]+")

_LISTEN = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-f:]+\]):(?P<port>\d{1,5})")


class SettingsError(Exception):
    """The settings are wrong or incomplete. The text names each problem and its setting."""


def _validate_http_url(value: str) -> str:
    require_plain_http(value)
    url = urlsplit(value)
    if url.query or url.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


def require_plain_http(value: str) -> None:
    """Raise ValueError unless *value* is an unambiguous http or https URL. The text has no secret.

    A ``/`` in a password would make the password's beginning the host, so ``@`` is not allowed.
    """
    if "@" in value:
        raise ValueError("must not contain a user name or password; in a path, write %40 for @")
    try:
        url = urlsplit(value)
        valid = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("must be an http or https URL")


def validate_address(value: str) -> str:
    """Return *value* if it is ``host:port``. Raises ValueError."""
    match = _LISTEN.fullmatch(value)
    if not match or int(match["port"]) > PORT_MAX:
        raise ValueError("must be host:port")
    return value


def _validate_network(value: str) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24 or 2001:db8::/32") from None


def _validate_ca_file(path: Path) -> Path:
    try:
        ssl.create_default_context().load_verify_locations(path)
    except (OSError, ssl.SSLError):
        raise ValueError("must be a PEM file with certificates") from None
    return path


def read_secret(path: Path) -> str:
    """Return the secret in a file, without the white space around it.

    Raises ValueError, whose text has nothing of the file.
    """
    content = _read_start(path)
    secret = content.decode("latin-1").strip()
    if len(content) > SECRET_MAX_BYTES or not _SECRET.fullmatch(secret):
        raise ValueError("must contain one secret of printable ASCII without spaces")
    return secret


def _read_start(path: Path) -> bytes:
    """Return a bit more of a file than a secret may have. Opening a pipe would wait forever."""
    try:
        with open(
            path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)
        ) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("must be a regular file, and no pipe or device")
            return file.read(SECRET_MAX_BYTES + 1)
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None


def _validate_secret_file(path: Path) -> Path:
    read_secret(path)
    return path


def _validate_pattern(value: str) -> str:
    if not value or value.strip("/ ") != value or "//" in value:
        raise ValueError("must be a pattern such as mozilla/*, without a slash at an end")
    if value.count("[") != value.count("]"):
        raise ValueError("must have a ] for each [")
    return value


HttpUrl = Annotated[str, AfterValidator(_validate_http_url)]
Address = Annotated[str, AfterValidator(validate_address)]
Network = Annotated[str, AfterValidator(_validate_network)]
Pattern = Annotated[str, AfterValidator(_validate_pattern)]
CaFile = Annotated[FilePath, AfterValidator(_validate_ca_file)]
SecretFile = Annotated[Path, AfterValidator(_validate_secret_file)]


class Section(BaseModel):
    """A frozen table of settings that rejects unknown keys.

    The docstrings of the settings are also their descriptions in docs/reference/settings.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)
