"""An application in a world of fakes, for each test."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from archiver.web.waiting.waiters import WaitLimits
from tests.memory_world import World
from tests.web.client import CONFIG, Client, client

SHORT = replace(CONFIG, wait_limits=WaitLimits(hold_s=0.05))


@pytest.fixture
def web() -> Iterator[Client]:
    with client(World()) as speaking:
        yield speaking


@pytest.fixture
def hasty() -> Iterator[Client]:
    """A client of an application that holds requests for 50 ms."""
    with client(World(), config=SHORT) as speaking:
        yield speaking
