"""Request headers as text, up to a length at which no parser takes long over them."""

from starlette.types import Scope

HEADER_MAX_BYTES = 4096
"""A longer header is ignored, because those that clients send here have some tens of bytes."""


def header(scope: Scope, name: bytes) -> str:
    """Return the values of *name*, joined by commas; empty if they are absent or too long."""
    value = b",".join(value for key, value in scope["headers"] if key == name)
    return value.decode("latin-1") if len(value) <= HEADER_MAX_BYTES else ""
