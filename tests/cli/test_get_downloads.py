"""Downloads that break: ``archiver get`` goes on with them, here or in another region."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cli.conftest import Run, Said, Script, ranged
from tests.cli.test_get import ASKED, ASKED_AGAIN, CONTENT, OBJECT, PART, STATUS, WORDS, hit

__all__ = ["hit"]

ELSEWHERE = "/other/archives/v1/ash-42bf42bf42bf.tar.gz"
HERE = (*WORDS, "-o", "here")


@pytest.fixture
def two_regions(script: Script, hit: Said) -> None:
    """Have the archive in us-west-2 and, under another address, in us-east-1."""
    described = {"Link": f'<{script.url}{STATUS}>; rel="describedby"'}
    first = Said(status=302, headers={**hit.headers, **described})
    other = {"Location": script.url + ELSEWHERE, "Archiver-Region": "us-east-1"}
    links = {"us-west-2": script.url + OBJECT, "us-east-1": script.url + ELSEWHERE}
    script.say(ASKED, first)
    script.say(f"{ASKED_AGAIN}?suffix=tar.gz&preferred_region=us-west-2", first)
    script.say(
        f"{ASKED_AGAIN}?suffix=tar.gz&preferred_region=us-east-1",
        Said(status=302, headers={**first.headers, **other}),
    )
    result = {"state": "SUCCESS", "s3_urls": links}
    script.say(STATUS, Said(body=json.dumps({"result": result}).encode()))


def parts(script: Script, path: str) -> list[str | None]:
    """Return which part each download of *path* asked for."""
    return [headers.get("Range") for target, headers in script.asked if target.startswith(path)]


@pytest.mark.usefixtures("two_regions")
@pytest.mark.parametrize(("output", "status"), (("here", 206), ("-", 200)))
def test_a_download_that_breaks_off_is_resumed(
    run: Run, script: Script, tmp_path: Path, output: str, status: int
) -> None:
    for path in (OBJECT, ELSEWHERE):
        script.say(path, ranged(CONTENT, broken_at=10_000, status=status))
    result = run(*WORDS, "-o", output, "--server", script.url)
    assert result.exit_code == 0, result.output
    whole = result.stdout_bytes if output == "-" else (tmp_path / output).read_bytes()
    assert whole == CONTENT
    assert sorted(map(str, parts(script, OBJECT) + parts(script, ELSEWHERE))) == [
        "None",
        "bytes=10000-",
        "bytes=20000-",
    ]
    assert "trying again" in result.stderr


@pytest.mark.usefixtures("two_regions")
@pytest.mark.parametrize(
    "broken", (Said(status=503), Said(body=b"x" * len(CONTENT)), Said(body=b"short"))
)
def test_another_region_is_asked_when_one_fails_or_has_other_bytes(
    run: Run, script: Script, tmp_path: Path, broken: Said
) -> None:
    script.say(OBJECT, broken)
    script.say(ELSEWHERE, ranged(CONTENT))
    result = run(*HERE, "--server", script.url, "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert json.loads(result.stdout)["region"] == "us-east-1"


@pytest.mark.usefixtures("two_regions")
def test_bytes_that_are_wrong_in_every_region_end_it_with_5(
    run: Run, script: Script, tmp_path: Path
) -> None:
    for path in (OBJECT, ELSEWHERE):
        script.say(path, ranged(b"x" * len(CONTENT)))
    result = run(*HERE, "--server", script.url)
    assert result.exit_code == 5
    assert len(parts(script, OBJECT) + parts(script, ELSEWHERE)) == 2
    assert not list(tmp_path.iterdir())


def test_a_link_that_has_expired_is_replaced(
    run: Run, script: Script, hit: Said, tmp_path: Path
) -> None:
    script.say(ASKED, hit)
    script.say(ASKED_AGAIN, Said(status=302, headers={**hit.headers, "Location": script.url + "/"}))
    script.say(OBJECT, Said(status=403))
    script.say("/", ranged(CONTENT))
    assert run(*HERE, "--server", script.url).exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize("kept", (CONTENT[:10_000], CONTENT, b"of another archive", b"x" * 99_999))
def test_what_an_earlier_download_left_is_used_if_it_is_right(
    run: Run, script: Script, hit: Said, tmp_path: Path, kept: bytes
) -> None:
    (tmp_path / PART).write_bytes(kept)
    for path in (ASKED, ASKED_AGAIN):
        script.say(path, hit)
    script.say(OBJECT, ranged(CONTENT))
    result = run(*HERE, "--server", script.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    if CONTENT.startswith(kept):
        assert parts(script, OBJECT) == ([] if kept == CONTENT else [f"bytes={len(kept)}-"])


def test_a_server_that_knows_no_parts_is_asked_for_all(
    run: Run, script: Script, hit: Said, tmp_path: Path
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:10_000])
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    assert run(*HERE, "--server", script.url).exit_code == 0
    assert (tmp_path / "here").read_bytes() == CONTENT


@pytest.mark.parametrize(("number", "exit_code"), ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_a_signal_ends_it_as_shells_expect_and_leaves_what_came(
    run: Run, script: Script, hit: Said, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    (tmp_path / PART).write_bytes(CONTENT[:100])

    def interrupt(_headers: Mapping[str, str]) -> Said:
        os.kill(os.getpid(), number)
        return Said(status=503)

    script.say(ASKED, hit)
    script.say(OBJECT, interrupt)
    result = run(*HERE, "--server", script.url)
    assert result.exit_code == exit_code
    assert (tmp_path / PART).read_bytes() == CONTENT[:100]
    assert "Traceback" not in result.output
    assert f"{PART} is kept" in result.stderr


def test_a_body_without_end_is_left_at_the_promised_size(
    run: Run, script: Script, hit: Said, tmp_path: Path
) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT, times=10_000))
    result = run(*HERE, "--server", script.url, "--retries", "0")
    assert result.exit_code == 5
    assert "sent more than 23,000 bytes" in result.stderr
    assert not list(tmp_path.iterdir())
