"""Explains failed HTTP requests in our own words: libraries' texts may quote secrets."""

import os
import ssl

import aiohttp

NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, ValueError)
"""What aiohttp raises for a request that fails; ValueError is for a malformed response."""


def reason(exc: Exception) -> str:
    """Return why a request failed, to append to a sentence; empty if that is unknown."""
    match exc:
        case aiohttp.ClientConnectorDNSError():
            return ": its name does not resolve"
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return ": its certificate is not trusted"
        case aiohttp.ClientConnectorSSLError():
            return ": TLS failed"
        case aiohttp.ClientConnectorError(os_error=OSError(errno=int() as number)) if number > 0:
            return f": {os.strerror(number)}"
        case TimeoutError():
            return ": timed out"
        case _:
            return ""
