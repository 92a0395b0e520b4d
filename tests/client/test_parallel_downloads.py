"""Large archives are downloaded over several connections."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.client import download, ranges
from tests.client.responses import CONTENT, GET, NODE_URL, OBJECT, PART, REV_URL
from tests.parts.commands import Run
from tests.parts.scripted_server import Responder, Response, ScriptedServer, ranged

PIECE = 2500
PIECES = -(-len(CONTENT) // PIECE)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, hit: Response) -> None:
    """Have the archive count as large, and serve it."""
    monkeypatch.setattr(download, "PARALLEL_MIN_BYTES", PIECE)
    monkeypatch.setattr(ranges, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(ranges, "CHUNK_BYTES", 1000)
    for path in (REV_URL, NODE_URL):
        server.respond(path, hit)
    server.respond(OBJECT, ranged(CONTENT))


def parts(server: ScriptedServer) -> list[str | None]:
    return [headers.get("Range") for path, headers in server.requests if path.startswith(OBJECT)]


@pytest.mark.parametrize("output", ("here", "-"))
@pytest.mark.parametrize("status", (206, 200))
def test_the_pieces_are_written_in_order(
    run: Run, server: ScriptedServer, tmp_path: Path, output: str, status: int
) -> None:
    server.respond(OBJECT, ranged(CONTENT, status=status))
    result = run(*GET, "-o", output, "--server", server.url)
    assert result.exit_code == 0, result.output
    whole = result.stdout_bytes if output == "-" else (tmp_path / output).read_bytes()
    assert whole == CONTENT
    assert len({*parts(server)}) == len(parts(server)) == PIECES


def test_the_rest_of_an_earlier_download_is_used(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:10_000])
    assert run(*GET, "-o", "here", "--server", server.url).exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert min(int(str(part).split("=")[1].split("-")[0]) for part in parts(server)) == 10_000


def test_a_server_without_range_requests_is_asked_once_more(
    run: Run, server: ScriptedServer, tmp_path: Path
) -> None:
    server.respond(OBJECT, Response(body=CONTENT))
    result = run(*GET, "-o", "here", "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert "trying again" not in result.stderr
    assert None in parts(server)


def test_connections_that_break_off_make_progress(
    run: Run, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.001)
    monkeypatch.setattr(download, "PROGRESS_BYTES", 1000)
    server.respond(OBJECT, ranged(CONTENT, broken_at=1500))
    result = run(*GET, "-o", "here", "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT


def only_first(good: Responder, count: int, then: Response) -> Responder:
    """Return the *count* first responses of *good*, and *then* another one."""
    sent = iter(range(count))

    def respond(headers: Mapping[str, str]) -> Response:
        return good(headers) if next(sent, None) is not None else then

    return respond


def test_a_link_that_expires_is_replaced(
    run: Run, server: ScriptedServer, hit: Response, tmp_path: Path
) -> None:
    fresh = Response(status=302, headers={**hit.headers, "Location": f"{server.url}/fresh"})
    server.respond(NODE_URL, fresh)
    server.respond(OBJECT, only_first(ranged(CONTENT), 3, Response(status=403)))
    server.respond("/fresh", ranged(CONTENT))
    result = run(*GET, "-o", "here", "--server", server.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert "responded with 403; trying again" in result.stderr


def test_wrong_bytes_leave_no_file(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    server.respond(OBJECT, ranged(b"x" * len(CONTENT)))
    assert run(*GET, "-o", "here", "--server", server.url).exit_code == 5
    assert not list(tmp_path.iterdir())


def test_a_signal_leaves_what_was_written(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    content = ranged(CONTENT)

    def interrupt(headers: Mapping[str, str]) -> Response:
        if headers["Range"].startswith(f"bytes={2 * PIECE}-"):
            os.kill(os.getpid(), signal.SIGINT)
        return content(headers)

    (tmp_path / PART).write_bytes(CONTENT[:PIECE])
    server.respond(OBJECT, interrupt)
    result = run(*GET, "-o", "here", "--server", server.url)
    assert result.exit_code == 130
    kept = (tmp_path / PART).read_bytes()
    assert kept == CONTENT[: len(kept)]
    assert len(kept) >= PIECE
