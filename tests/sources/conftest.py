"""Hosts with scripted responses."""

from collections.abc import Iterator

import pytest

from tests.parts.faulty_host import FaultyHost, faulty_host


@pytest.fixture
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.fixture
def other() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host
