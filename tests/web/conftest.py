"""The application in a world of fakes, for one test."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from archiver.web.seats import Holding
from tests.web.client import SITE, Client, client
from tests.world import World

SHORT = replace(SITE, holding=Holding(hold_s=0.05))


@pytest.fixture
def web() -> Iterator[Client]:
    with client(World()) as speaking:
        yield speaking


@pytest.fixture
def hasty() -> Iterator[Client]:
    """A server that holds nobody for long."""
    with client(World(), site=SHORT) as speaking:
        yield speaking
