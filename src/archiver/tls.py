"""TLS for every client connection of Archiver."""

import ssl
from pathlib import Path


def create_ssl_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts the system's authorities and those in *ca_file*."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context
