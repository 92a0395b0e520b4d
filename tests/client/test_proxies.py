"""Requests through the proxies that the environment names."""

import base64
import socket

import pytest

from archiver.client.transport import proxy_for
from tests.client.responses import CONTENT, GET, OBJECT, REV_URL
from tests.parts.commands import Run
from tests.parts.raw_server import raw_server
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


@pytest.mark.parametrize(
    ("user", "sent_user"),
    (("user:p%40ss", b"user:p@ss"), ("user:%E2%82%AC", "user:€".encode()), ("us%FF", b"us\xff:")),
)
def test_the_password_of_the_proxy_is_for_the_proxy_alone(
    run: Run, proxied: ScriptedServer, user: str, sent_user: bytes
) -> None:
    proxy = proxied.url.replace("//", f"//{user}@")
    result = run(*GET, "--server", ARCHIVER, "-o", "-", http_proxy=proxy)
    assert result.exit_code == 0, result.output
    expected = f"Basic {base64.b64encode(sent_user).decode()}"
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


@pytest.mark.parametrize(
    ("host", "excluded", "included"),
    (
        ("127.0.0.1", "127.0.0.1 127.0.0.0/8 x,127.0.0.1/32", ".0.0.1 0.0.1 127.0.0.1:80 127.1 /8"),
        ("10.1.2.3", "10.0.0.0/8 10.1.2.3/31", "10.0.0.0/33 10.1.2.4 10.0.0.0/x ::/0"),
        ("[::1]", "::1 0:0:0:0:0:0:0:1 ::/64", "[::1] fe80::/10 0.0.0.0/0"),
        (
            "a.example.org",
            "a.example.org example.org .example.org EXAMPLE.org. y,,org",
            "ample.org *.example.org example.org:80 ..org b.a.example.org . , *,x",
        ),
        ("A.example.org.", "example.org a.EXAMPLE.org", "b.example.org"),
    ),
)
def test_no_proxy_is_read_as_curl_reads_it(
    monkeypatch: pytest.MonkeyPatch, host: str, excluded: str, included: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.test")
    for value in ("*", excluded, *excluded.split(" ")):
        monkeypatch.setenv("no_proxy", value)
        assert proxy_for(f"http://user@{host}:8010/") == "", value
    for value in ("", included, *included.split(" ")):
        monkeypatch.setenv("no_proxy", value)
        assert proxy_for(f"http://user@{host}:8010/") == "http://proxy.test", value


def test_a_proxy_that_is_no_url_is_named_without_its_password(run: Run) -> None:
    result = run(*GET, "--server", ARCHIVER, http_proxy="socks5://user:secret@127.0.0.1:1080")
    assert result.exit_code == 2
    assert "socks5://***@127.0.0.1:1080" in result.stderr
    assert "secret" not in result.output


@pytest.mark.parametrize("scheme", ("http", "https"))
@pytest.mark.parametrize("user", ("", "user:wrong@"))
def test_a_proxy_that_wants_credentials_is_reported(run: Run, scheme: str, user: str) -> None:
    def refuse(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
        )

    with raw_server(refuse) as address:
        proxy = {f"{scheme}_proxy": f"http://{user}{address}"}
        result = run(*GET, "--server", f"{scheme}://archiver.test", **proxy)
    assert result.exit_code == 2
    wants = "other credentials" if user else "credentials"
    assert f"Error: the proxy {address} wants {wants} (407)\n" in result.stderr
    assert f"Hint: Write them into {scheme}_proxy: http://USER:PASSWORD@" in result.stderr
    assert "wrong" not in result.output


def test_a_proxy_that_makes_no_tunnels_is_reported(run: Run, server: ScriptedServer) -> None:
    result = run(*GET, "--server", "https://archiver.test", https_proxy=server.url)
    assert result.exit_code == 75
    assert "archiver.test does not respond: its proxy failed" in result.stderr
