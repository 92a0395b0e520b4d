"""Translates obstore's exceptions into StorageUnavailable with a short code.

obstore raises a type and a long text. The text contains S3's response, addresses and more, so it
never leaves this module.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import AlreadyExistsError, BaseError

from archiver.errors import StorageUnavailable

SCAN_CHARS = 8192
"""The code is near the beginning of what may be a long page."""

NO_SUCH_BUCKET = "NoSuchBucket"
TIMEOUT = "timeout"
REDIRECTED = "redirected"
WRONG_REGION = "wrong_region"

BLOCKED_PROXY = "127.0.0.1:0"
"""Nothing can listen there. Requests that a region redirects to another host are sent to it."""

_RESPONSE = re.compile(r"Server returned non-2xx status code: (\d{3})(.*)", re.DOTALL)
_CODE = re.compile(r"<Code>\s*([A-Za-z][A-Za-z0-9.]{0,63})\s*</Code>")

_WITHOUT_RESPONSE = (
    ("169.254.169.254", "no_credentials"),  # the machine's role, which is tried last
    ("InvalidCertificate", "untrusted_certificate"),
    ("AlertReceived", "tls_refused"),
    ("InvalidMessage", "not_tls"),
    ("dns error", "unknown_host"),
    (f"{BLOCKED_PROXY},", REDIRECTED),
    ("ConnectionRefused", "connection_refused"),
    ("BareRedirect", WRONG_REGION),
    ("kind: Timeout", TIMEOUT),
    ("kind: Connect,", "not_connected"),
    ("kind: Interrupted", "connection_lost"),
)
"""Phrases in obstore's text if there was no response, the most specific first."""


class ObjectMissing(StorageUnavailable):
    """404: the object does not exist. A missing bucket is an outage instead."""


class ObjectExists(StorageUnavailable):
    """412: the object exists, and the server enforces ``If-None-Match``."""


@contextmanager
def translate_errors(region: str, action: str) -> Iterator[None]:
    """Raise StorageUnavailable, naming *region* and *action*, instead of obstore's errors."""
    try:
        yield
    except TimeoutError as exc:
        message = f"{region} did not {action} in time"
        raise StorageUnavailable(message, s3_code=TIMEOUT) from exc
    except (BaseError, OSError, ValueError) as exc:
        message, code = f"{region} did not {action}", s3_code(exc)
        if isinstance(exc, FileNotFoundError) and code != NO_SUCH_BUCKET:
            raise ObjectMissing(f"{message}: it does not exist", s3_code=code) from exc
        if isinstance(exc, AlreadyExistsError):
            raise ObjectExists(f"{message}: it exists already", s3_code=code) from exc
        raise StorageUnavailable(message, s3_code=code) from exc


def s3_code(exc: BaseException) -> str | None:
    """Return the code in S3's response, such as ``AccessDenied``, or ``http_403`` without one.

    If there was no response, return one of Archiver's own codes, such as ``connection_refused`` or
    ``timeout``; None if *exc* is not specific.
    """
    text = str(exc)[:SCAN_CHARS]
    if response := _RESPONSE.search(text):
        return response_code(int(response[1]), response[2])
    return next((code for phrase, code in _WITHOUT_RESPONSE if phrase in text), None)


def response_code(status: int, body: str) -> str:
    """Return the code of an error response."""
    code = _CODE.search(body[:SCAN_CHARS])
    return code[1] if code else f"http_{status}"
