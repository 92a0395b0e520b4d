"""Fixtures that run the commands of the client, and responses of Archiver to them."""

import pytest

from tests.client.responses import CONTENT, NODE, OBJECT, SHA256, SIGNATURE, STATUS
from tests.parts.commands import restored, run
from tests.parts.scripted_server import Response, ScriptedServer, server
from tests.parts.secured_nats import certificates

__all__ = ["certificates", "restored", "run", "server"]


@pytest.fixture
def hit(server: ScriptedServer) -> Response:
    return Response(
        status=302,
        headers={
            "Location": f"{server.url}{OBJECT}?{SIGNATURE}",
            "Archiver-SHA256": SHA256,
            "Archiver-Size": str(len(CONTENT)),
            "Archiver-Node": NODE,
            "Archiver-Region": "us-west-2",
        },
    )


@pytest.fixture
def miss(server: ScriptedServer) -> Response:
    return Response(
        status=202,
        headers={"Location": f"{server.url}{STATUS}", "Retry-After": "1"},
        body=b'{"result": {}}',
    )
