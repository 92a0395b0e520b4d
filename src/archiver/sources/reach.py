"""Whether a host answers at all, and why not."""

import ssl
from datetime import timedelta

import aiohttp

from archiver.errors import ForbiddenAddress, SourceError, SourceTimeout
from archiver.ports.diagnosis import Unreachable
from archiver.sources.config import SourceConfig
from archiver.sources.fetch import open_fetch

DEADLINE = timedelta(seconds=8)


async def reach(config: SourceConfig) -> int | Unreachable:
    """Send one request to the address in front of ``{repo}``; return the status of the answer.

    The body is not read.
    """
    url = config.url_template.partition("{")[0]
    try:
        async with (
            open_fetch(config) as fetch,
            fetch.get(url, deadline=DEADLINE) as response,
        ):
            return response.status
    except SourceError as exc:
        return explain_unreachable(config.name, exc)


def explain_unreachable(name: str, exc: SourceError) -> Unreachable:
    """Return why the host of the source *name* gave no answer."""
    setting, cause = f"sources.{name}", exc.__cause__
    match exc, cause:
        case ForbiddenAddress(), _:
            found = exc.message
            check = f"{setting}.allow_private_addresses and {setting}.redirect_hosts"
        case SourceTimeout(), _:
            found = "the host does not answer in time"
            check = f"the host in {setting}.url_template, and the firewalls and the route to it"
        case _, aiohttp.ClientConnectorCertificateError():
            found = "the host's certificate is not trusted, or is of another host"
            check = f"{setting}.ca_file, and the host name in {setting}.url_template"
        case _, aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError()):
            found = "the host does not speak TLS as Archiver does"
            check = f"scheme and port in {setting}.url_template"
        case _, aiohttp.ClientConnectorDNSError():
            found = "the host name is unknown"
            check = f"the host name in {setting}.url_template, and this machine's DNS"
        case _, aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            found = "the host refuses the connection"
            check = f"host and port in {setting}.url_template, and whether the host is up"
        case _:
            found = exc.message
            check = f"{setting}.url_template, and whether the host is up"
    return Unreachable(found=found, check=check)
