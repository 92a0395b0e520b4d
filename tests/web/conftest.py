from collections.abc import Iterator

import pytest

from tests.web.client import Client, client
from tests.world import World


@pytest.fixture
def web() -> Iterator[Client]:
    with client(World()) as speaking:
        yield speaking
