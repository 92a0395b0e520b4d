"""What every section of the configuration is made of."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict

from archiver.networks import parse_network

PORT_MAX = 65_535

_LISTEN = re.compile(r"(?P<host>[^:\s]+|\[[0-9a-f:]+\]):(?P<port>\d{1,5})")


class SettingsError(Exception):
    """The configuration is not one. The text names each setting that is wrong, and why."""


def _http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError("must be an http or https URL without a query")
    return value.rstrip("/")


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


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)
