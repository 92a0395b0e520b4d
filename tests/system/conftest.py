"""The fixture of tests of the running program: a host whose rate can be limited."""

from collections.abc import Iterator

import pytest

from tests.parts.hgweb import Hgweb
from tests.parts.slow_host import SlowHost, slow_host


@pytest.fixture
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        yield host
