"""What tests of a running installation share: a host that can be slowed down."""

from collections.abc import Iterator

import pytest

from tests.parts.hgweb import Hgweb
from tests.parts.slow_host import SlowHost, slow_host


@pytest.fixture
def host(hgweb: Hgweb) -> Iterator[SlowHost]:
    with slow_host(hgweb.port) as host:
        yield host
