"""Archiver's own codes for aiohttp's errors of requests without an answer."""

import ssl

import aiohttp

from archiver.storage.s3_errors import TIMEOUT

_NO_ANSWER: tuple[tuple[type[BaseException], str], ...] = (  # the first match counts
    (TimeoutError, TIMEOUT),
    (aiohttp.ClientConnectorCertificateError, "untrusted_certificate"),
    (aiohttp.ClientConnectorDNSError, "unknown_host"),
    (aiohttp.ClientConnectorError, "not_connected"),
)


def lost_code(exc: BaseException) -> str:
    """Return the code, such as ``connection_refused``. Most others are ``connection_lost``."""
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        cause = exc.os_error
        is_plain = isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in (cause.reason or "")
        return "not_tls" if is_plain else "tls_refused"
    if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(
        exc.os_error, ConnectionRefusedError
    ):
        return "connection_refused"
    return next((code for kind, code in _NO_ANSWER if isinstance(exc, kind)), "connection_lost")
