"""Translates aiohttp's errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from yarl import URL

from archiver.errors import ForbiddenAddress, SourceTimeout, SourceUnavailable, TruncatedArchive


class OutsidePerimeterError(OSError):
    """Prevents a socket. It is an OSError: aiohttp then tries the name's other addresses."""


@contextmanager
def translated_errors(
    url: URL, *, broken_off: type[SourceUnavailable | TruncatedArchive] = SourceUnavailable
) -> Iterator[None]:
    """Translate aiohttp's errors, whose texts may quote URLs and the host's bytes."""
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if isinstance(exc.__cause__, OutsidePerimeterError):
            raise ForbiddenAddress(f"{url.host} has an address that is not allowed") from exc
        raise SourceUnavailable(f"{url.host} cannot be reached") from exc
    except TimeoutError as exc:
        raise SourceTimeout(f"{url.host} took too long") from exc
    except aiohttp.ClientPayloadError as exc:
        raise broken_off(f"{url.host} closed the connection before the end of the body") from exc
    except (aiohttp.ClientError, ValueError) as exc:
        raise SourceUnavailable(f"{url.host} sent a malformed HTTP response") from exc
