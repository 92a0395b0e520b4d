"""Fixtures of the tests of webhooks."""

from tests.parts.scripted_server import server

__all__ = ["server"]
