"""Timeouts of the guarded GET: slow, silent and endless hosts."""

from datetime import timedelta

import pytest

from archiver.errors import SourceTimeout, SourceTooSlow
from tests.parts.faulty_host import FaultyHost, Forever, Pause, Step, head, sized
from tests.sources.fetching import BODY, get

NEVER = timedelta(days=1)


def test_a_silent_host_times_out(host: FaultyHost) -> None:
    with pytest.raises(SourceTimeout):
        get(host.script("/a", Pause(5)), read_timeout_s=0.2)
    with pytest.raises(SourceTimeout):
        get(host.script("/b", sized(BODY, missing=1), Pause(5)), read_timeout_s=0.2)


@pytest.mark.parametrize(
    ("start", "drop"),
    (
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (head({"Transfer-Encoding": "chunked"}) + b"1;", b"x"),
        (head({"Transfer-Encoding": "chunked"}) + b"0\r\nX: ", b"x"),
    ),
)
def test_framing_without_content_is_silence(host: FaultyHost, start: bytes, drop: bytes) -> None:
    url = host.script("/a", start, Forever(drop, every_s=0.05))

    with pytest.raises(SourceTimeout):
        get(url, read_timeout_s=0.3, deadline=NEVER)


def test_a_trickling_host_is_too_slow(host: FaultyHost) -> None:
    url = host.script("/a", head({"Content-Length": "999"}), Forever(b".", every_s=0.05))

    with pytest.raises(SourceTooSlow):
        get(url, min_rate_bytes_s=100)


def test_an_endless_transfer_ends_at_the_deadline(host: FaultyHost) -> None:
    drop: tuple[Step, ...] = (b".", Pause(0.05))
    url = host.script("/a", head({"Content-Length": "1000"}), *drop * 100)

    with pytest.raises(SourceTimeout):
        get(url, deadline=timedelta(seconds=0.5))


def test_redirects_do_not_extend_the_deadline(host: FaultyHost) -> None:
    for step in range(3):
        location = f"/{step + 1}"
        host.script(f"/{step}", Pause(0.3), sized(b"", "302 Found", {"Location": location}))
    host.script("/3", sized(BODY))

    with pytest.raises(SourceTimeout):
        get(f"{host.url}/0", deadline=timedelta(seconds=0.6))
