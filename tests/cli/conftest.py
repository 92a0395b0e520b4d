"""Fixtures that run commands and script the responses of a server."""

from tests.parts.commands import restored, run
from tests.parts.scripted_server import server

__all__ = ["restored", "run", "server"]
