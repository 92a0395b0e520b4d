"""``archiver get`` resumes failed downloads, from the same or another region."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, GET, NODE_URL, OBJECT, PART, REV_URL, STATUS
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

ELSEWHERE = "/other/archives/v1/ash-42bf42bf42bf.tar.gz"
GET_HERE = (*GET, "-o", "here")


@pytest.fixture
def two_regions(server: ScriptedServer, hit: Response) -> None:
    """Serve the archive in us-west-2 and, at another path, in us-east-1."""
    described = {"Link": f'<{server.url}{STATUS}>; rel="describedby"'}
    first = Response(status=302, headers={**hit.headers, **described})
    other = {"Location": server.url + ELSEWHERE, "Archiver-Region": "us-east-1"}
    links = {"us-west-2": server.url + OBJECT, "us-east-1": server.url + ELSEWHERE}
    server.respond(REV_URL, first)
    server.respond(f"{NODE_URL}?suffix=tar.gz&preferred_region=us-west-2", first)
    server.respond(
        f"{NODE_URL}?suffix=tar.gz&preferred_region=us-east-1",
        Response(status=302, headers={**first.headers, **other}),
    )
    result = {"state": "SUCCESS", "s3_urls": links}
    server.respond(STATUS, Response(body=json.dumps({"result": result}).encode()))


def parts(server: ScriptedServer, path: str) -> list[str | None]:
    """Return the Range header of each download of *path*."""
    return [headers.get("Range") for target, headers in server.requests if target.startswith(path)]


@pytest.mark.usefixtures("two_regions")
@pytest.mark.parametrize(("output", "status"), (("here", 206), ("-", 200)))
def test_a_download_that_breaks_off_is_resumed(
    run: Run, server: ScriptedServer, tmp_path: Path, output: str, status: int
) -> None:
    for path in (OBJECT, ELSEWHERE):
        server.respond(path, ranged(CONTENT, broken_at=10_000, status=status))
    result = run(*GET, "-o", output, "--server", server.url)
    assert result.exit_code == 0, result.output
    whole = result.stdout_bytes if output == "-" else (tmp_path / output).read_bytes()
    assert whole == CONTENT
    assert sorted(map(str, parts(server, OBJECT) + parts(server, ELSEWHERE))) == [
        "None",
        "bytes=10000-",
        "bytes=20000-",
    ]
    assert "trying again" in result.stderr


@pytest.mark.usefixtures("two_regions")
@pytest.mark.parametrize(
    "broken", (Response(status=503), Response(body=b"x" * len(CONTENT)), Response(body=b"short"))
)
def test_another_region_is_used_when_one_fails_or_sends_wrong_bytes(
    run: Run, server: ScriptedServer, tmp_path: Path, broken: Response
) -> None:
    server.respond(OBJECT, broken)
    server.respond(ELSEWHERE, ranged(CONTENT))
    result = run(*GET_HERE, "--server", server.url, "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert json.loads(result.stdout)["region"] == "us-east-1"


@pytest.mark.usefixtures("two_regions")
def test_wrong_bytes_from_every_region_exit_with_5(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    for path in (OBJECT, ELSEWHERE):
        server.respond(path, ranged(b"x" * len(CONTENT)))
    result = run(*GET_HERE, "--server", server.url)
    assert result.exit_code == 5
    assert len(parts(server, OBJECT) + parts(server, ELSEWHERE)) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("two_regions")
@pytest.mark.parametrize("output", ("here", "-"))
def test_a_body_of_another_size_is_no_download(
    run: Run, server: ScriptedServer, tmp_path: Path, output: str
) -> None:
    page = Response(body=b"<html>Log in first.</html>")
    server.respond(OBJECT, page, ranged(CONTENT, broken_at=10_000), ranged(CONTENT))
    server.respond(ELSEWHERE, page)
    result = run(*GET, "-o", output, "--server", server.url)
    assert result.exit_code == 0, result.output
    whole = result.stdout_bytes if output == "-" else (tmp_path / output).read_bytes()
    assert whole == CONTENT
    assert "sends 26 bytes, not 23,000; trying again" in result.stderr
    assert parts(server, OBJECT) == [None, None, "bytes=10000-"]
    assert parts(server, ELSEWHERE) == [None, "bytes=10000-"]


def test_an_expired_link_is_replaced(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, hit)
    server.respond(
        NODE_URL, Response(status=302, headers={**hit.headers, "Location": server.url + "/"})
    )
    server.respond(OBJECT, Response(status=403))
    server.respond("/", ranged(CONTENT))
    assert run(*GET_HERE, "--server", server.url).exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize("kept", (CONTENT[:10_000], CONTENT, b"of another archive", b"x" * 99_999))
def test_the_rest_of_an_earlier_download_is_used_if_it_is_valid(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path, kept: bytes
) -> None:
    (tmp_path / PART).write_bytes(kept)
    for path in (REV_URL, NODE_URL):
        server.respond(path, hit)
    server.respond(OBJECT, ranged(CONTENT))
    result = run(*GET_HERE, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    if CONTENT.startswith(kept):
        assert parts(server, OBJECT) == ([] if kept == CONTENT else [f"bytes={len(kept)}-"])


def test_a_server_without_range_requests_is_asked_for_everything(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:10_000])
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT))
    assert run(*GET_HERE, "--server", server.url).exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize(("number", "exit_code"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_signal_sets_the_exit_code_and_leaves_the_part(
    run: Run,
    server: ScriptedServer,
    hit: Response,
    tmp_path: Path,
    number: signal.Signals,
    exit_code: int,
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:100])

    def interrupt(_headers: Mapping[str, str]) -> Response:
        os.kill(os.getpid(), number)
        return Response(status=503)

    server.respond(REV_URL, hit)
    server.respond(OBJECT, interrupt)
    result = run(*GET_HERE, "--server", server.url)
    assert result.exit_code == exit_code
    assert (tmp_path / PART).read_bytes() == CONTENT[:100]
    assert "Traceback" not in result.output
    assert f"{PART} is kept" in result.stderr


def test_an_endless_body_is_abandoned_at_the_promised_size(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, Response(body=CONTENT, times=10_000))
    result = run(*GET_HERE, "--server", server.url, "--retries", "0")
    assert result.exit_code == 5
    assert "sent more than 23,000 bytes" in result.stderr
    assert not list(tmp_path.iterdir())
