"""Requests through the proxies that the environment names."""

import base64

import pytest

from tests.client.responses import CONTENT, GET, OBJECT, REV_URL
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

ARCHIVER = "http://archiver.test"
S3 = "http://s3.test"


@pytest.fixture
def proxied(server: ScriptedServer, hit: Response) -> ScriptedServer:
    """Return a proxy, behind which Archiver and S3 have names that do not resolve."""
    server.respond(
        ARCHIVER + REV_URL, Response(status=302, headers={**hit.headers, "Location": S3 + OBJECT})
    )
    server.respond(S3 + OBJECT, ranged(CONTENT))
    return server


@pytest.mark.parametrize("name", ("http_proxy", "HTTP_PROXY", "all_proxy"))
def test_archiver_and_s3_are_reached_through_the_proxy(
    run: Run, proxied: ScriptedServer, name: str
) -> None:
    result = run(
        *GET, "--server", ARCHIVER, "-o", "-", **{name: proxied.url, "ARCHIVER_TOKEN": "t"}
    )
    assert result.exit_code == 0, result.output
    assert result.stdout_bytes == CONTENT
    to_archiver, to_s3 = [headers for _, headers in proxied.requests]
    assert to_archiver["Authorization"] == "Bearer t"
    assert "Authorization" not in to_s3
    assert not {"proxy-authorization"} & {name.lower() for name in (*to_archiver, *to_s3)}


def test_the_password_of_the_proxy_is_for_the_proxy_alone(
    run: Run, proxied: ScriptedServer
) -> None:
    proxy = proxied.url.replace("//", "//user:p%40ss@")
    result = run(*GET, "--server", ARCHIVER, "-o", "-", http_proxy=proxy)
    assert result.exit_code == 0, result.output
    expected = f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    for _, headers in proxied.requests:
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent["proxy-authorization"] == expected
        assert "authorization" not in sent


def test_hosts_in_no_proxy_are_reached_directly(
    run: Run, server: ScriptedServer, hit: Response
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    proxy = "http://127.0.0.1:9"
    words = (*GET, "--server", server.url, "-o", "-")
    assert run(*words, http_proxy=proxy, no_proxy="127.0.0.1").exit_code == 0
    refused = run(*words, http_proxy=proxy)
    assert refused.exit_code == 75
    assert "its proxy failed: Connection refused" in refused.stderr


def test_a_proxy_that_is_no_url_is_named_without_its_password(run: Run) -> None:
    result = run(*GET, "--server", ARCHIVER, http_proxy="socks5://user:secret@127.0.0.1:1080")
    assert result.exit_code == 2
    assert "socks5://***@127.0.0.1:1080" in result.stderr
    assert "secret" not in result.output


def test_a_proxy_that_makes_no_tunnels_is_reported(run: Run, server: ScriptedServer) -> None:
    result = run(*GET, "--server", "https://archiver.test", https_proxy=server.url)
    assert result.exit_code == 75
    assert "archiver.test does not respond: its proxy failed" in result.stderr
