"""What every section of the configuration is made of."""

import re
import ssl
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, FilePath

from archiver.locality.networks import parse_network

PORT_MAX = 65_535

_LISTEN = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-f:]+\]):(?P<port>\d{1,5})")


class SettingsError(Exception):
    """The configuration is not one. The text names each setting that is wrong, and why."""


def _http_url(value: str) -> str:
    require_plain_http(value)
    url = urlsplit(value)
    if url.query or url.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


def require_plain_http(value: str) -> None:
    """Return if *value* is an http or https URL whose host and port can be read in one way only.

    A raw ``/`` in a password would make its beginning the host, so no ``@`` may stand anywhere.

    Raises:
        ValueError: It is not; the text does not quote it.
    """
    if "@" in value:
        raise ValueError("must have no user name or password; a path has %40 for @")
    try:
        url = urlsplit(value)
        sound = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be an http or https URL")


def _address(value: str) -> str:
    match = _LISTEN.fullmatch(value)
    if not match or int(match["port"]) > PORT_MAX:
        raise ValueError("must be host:port")
    return value


def _network(value: str) -> str:
    try:
        return str(parse_network(value))
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24 or 2001:db8::/32") from None


def _authorities(path: Path) -> Path:
    try:
        ssl.create_default_context().load_verify_locations(path)
    except (OSError, ssl.SSLError):
        raise ValueError("must be a file with certificates in PEM") from None
    return path


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
CaFile = Annotated[FilePath, AfterValidator(_authorities)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)
