"""Credentials in the header ``Authorization`` (RFC 7617, RFC 6750)."""

import base64
import binascii

HEADER_MAX_BYTES = 4096


def read_token(header: bytes) -> str | None:
    """Return the token in a header's value: a bearer token, or the password of HTTP Basic.

    Programs that read netrc send Basic, with any user name. Returns None if there is no token in
    it.
    """
    if len(header) > HEADER_MAX_BYTES:
        return None
    scheme, _, value = header.decode("latin-1").strip(" ").partition(" ")
    value = value.strip(" ")
    match scheme.lower():
        case "bearer":
            return value or None
        case "basic":
            return _read_password(value)
        case _:
            return None


def _read_password(encoded: str) -> str | None:
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    _, colon, password = decoded.partition(":")
    return password if colon and password else None
